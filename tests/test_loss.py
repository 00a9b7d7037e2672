import pytest
import torch
from torch import nn
from transformers.loss.loss_utils import ForCausalLMLoss

from ftcourse.chat import IGNORED
from ftcourse.loss import chunked_cross_entropy


@pytest.fixture
def inputs():
    torch.manual_seed(0)
    hidden = torch.randn(3, 300, 16, requires_grad=True)
    labels = torch.randint(50, (3, 300))
    labels[:, :100] = IGNORED
    return hidden, nn.Linear(16, 50, bias=False), labels


@pytest.mark.parametrize("num_items", [None, 1000])
def test_the_chunked_loss_and_its_gradients_are_those_of_transformers(inputs, num_items):
    hidden, head, labels = inputs
    results = []
    for loss in (
        chunked_cross_entropy(hidden, head, labels, num_items),
        ForCausalLMLoss(head(hidden), labels, vocab_size=50, num_items_in_batch=num_items),
    ):
        results.append((loss, *torch.autograd.grad(loss, [hidden, head.weight])))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_chunk_without_a_supervised_token_adds_nothing(inputs):
    hidden, head, labels = inputs
    labels[:] = IGNORED
    labels[0, -1] = 7
    assert chunked_cross_entropy(hidden, head, labels).isfinite()
