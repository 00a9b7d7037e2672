from collections import Counter

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ftcourse.live import LiveBytes, plain


def live_bytes(tracker):
    return sum(change for _, change in tracker.history.events)


def names(tracker):
    return [row.name for row in tracker.history.rows]


def test_peft_is_not_a_part_of_a_models_path():
    paths = ["base_model", "base_model.model", "base_model.model.lm_head", "lm_head"]
    assert list(map(plain, paths)) == ["", "", "lm_head", "lm_head"]  # peft 0.20 runs the first


def test_a_tensor_counts_from_its_birth_to_its_death_and_a_view_not_at_all():
    with LiveBytes() as tracker:
        one = torch.zeros(1000)
        assert live_bytes(tracker) == 4000
        view = one.view(10, 100)[2:]
        assert live_bytes(tracker) == 4000
        del one
        assert live_bytes(tracker) == 4000
        del view
        assert live_bytes(tracker) == 0


def test_a_tensor_that_was_there_before_is_counted_when_it_is_used():
    old = torch.zeros(1000)
    with LiveBytes() as tracker:
        old.add_(1)
        assert live_bytes(tracker) == 4000


def test_a_tensor_that_was_noted_keeps_its_part_and_its_name():
    old = torch.zeros(1000)
    tracker = LiveBytes()
    tracker.note(old, "weights", "model.norm.weight")
    with tracker:
        old.add_(1)
    (row,) = tracker.history.rows
    assert (row.name, row.part, row.shape, row.dtype) == (
        "model.norm.weight",
        "weights",
        (1000,),
        "float32",
    )


def test_what_autograd_saves_counts_until_the_backward_pass():
    x = torch.randn(1000, requires_grad=True)
    with LiveBytes() as tracker:
        loss = x.exp().sum()
        held = live_bytes(tracker)
        loss.backward()
        assert held == 4000 + 4000 + 4  # x, exp(x) and the sum
        assert live_bytes(tracker) == held - 4000 + 4000  # exp(x) went, the gradient came


class Block(nn.Module):
    """A layer with a module before and a module after a function."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x):
        return self.down(self.up(x).relu())


class Two(nn.Module):
    """Two layers, which may run again in the backward pass."""

    def __init__(self, again):
        super().__init__()
        self.layers = nn.ModuleList([Block(), Block()])
        self.again = again

    def forward(self, x):
        for layer in self.layers:
            x = checkpoint(layer, x, use_reentrant=False) if self.again else layer(x)
        return x


def follow(model):
    """Return what a forward and a backward pass are followed as, without what was there before."""
    x = torch.randn(4, 8)
    tracker = LiveBytes()
    for path, parameter in model.named_parameters():
        tracker.note(parameter, "weights", path)
    hooks = tracker.follow(model)
    with tracker:
        model(x).sum().backward()
    for hook in hooks:
        hook.remove()
    return tracker


def made(tracker):
    """Return how often each module made an activation."""
    rows = [row for row in tracker.history.rows if row.part == "activations"]
    return Counter(row.name for row in rows)


def test_tensors_are_named_after_the_module_that_made_them_in_either_direction():
    tracker = follow(Two(again=False))
    assert made(tracker) == {
        "layers.*.up": 2,
        "layers.*": 2,
        "layers.*.down": 2,
        "step": 2,  # the sum, and its gradient
        "layers.*.down (backward)": 2,
        "layers.* (backward)": 2,
        "layers.*.up (backward)": 1,  # the batch needs no gradient
    }
    gradients = [row for row in tracker.history.rows if row.part == "gradients"]
    assert sorted((row.name, row.shape) for row in gradients) == [
        ("layers.*.down.bias", (8,)),
        ("layers.*.down.bias", (8,)),
        ("layers.*.down.weight", (8, 16)),
        ("layers.*.down.weight", (8, 16)),
        ("layers.*.up.bias", (16,)),
        ("layers.*.up.bias", (16,)),
        ("layers.*.up.weight", (16, 8)),
        ("layers.*.up.weight", (16, 8)),
    ]


def test_a_layer_that_runs_again_in_the_backward_pass_names_its_tensors_as_before():
    once, again = made(follow(Two(again=False))), made(follow(Two(again=True)))
    assert again - once == {"layers.*.up": 2, "layers.*": 2}  # no further than has to be


def test_removed_hooks_leave_the_model_as_it_was():
    model = Two(again=False)
    follow(model)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert not any(p._post_accumulate_grad_hooks for p in model.parameters())
