import pytest
import torch
from torch import nn
from transformers.loss.loss_utils import ForCausalLMLoss

from ftcourse.chat import IGNORED
from ftcourse.config import FinetuneConfig
from ftcourse.errors import CourseError
from ftcourse.loss import check_head, chunked_cross_entropy
from ftcourse.models import load_base


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


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("problem", [None, "it raises", "its logits differ"])
def test_a_checked_model_is_left_as_it_was_whatever_happens(training, problem, monkeypatch):
    model = load_base(FinetuneConfig(method="lora")).train(training)

    def stop(*_):
        raise RuntimeError("stopped")

    if problem == "it raises":
        monkeypatch.setattr(model.get_output_embeddings(), "forward", stop)
        with pytest.raises(RuntimeError, match="stopped"):
            check_head(model)
    elif problem:
        model.config.logits_scaling = 2
        with pytest.raises(CourseError, match="LlamaForCausalLM, whose logits differ"):
            check_head(model)
    else:
        check_head(model)
    assert model.training is model.base_model.training is training
    assert not model.base_model._forward_hooks
