import torch

from ftcourse.config import FinetuneConfig
from ftcourse.data import load_dialogues
from ftcourse.live import LiveBytes
from ftcourse.measure import MemoryMeter
from ftcourse.memory import PARTS
from ftcourse.train import finetune


def live_bytes(tracker):
    return sum(change for _, change in tracker.events)


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


def test_what_autograd_saves_counts_until_the_backward_pass():
    x = torch.randn(1000, requires_grad=True)
    with LiveBytes() as tracker:
        loss = x.exp().sum()
        held = live_bytes(tracker)
        loss.backward()
        assert held == 4000 + 4000 + 4  # x, exp(x) and the sum
        assert live_bytes(tracker) == held - 4000 + 4000  # exp(x) went, the gradient came


def test_the_meter_measures_the_very_run_and_changes_nothing():
    dialogues = load_dialogues("train")[:32]
    config = FinetuneConfig(max_steps=4, batch_size=4, max_length=128)
    meter = MemoryMeter()
    metered = finetune(config, dialogues, callbacks=[meter])
    plain = finetune(config, dialogues)
    assert metered.history == plain.history
    assert meter.breakdown.allocated == max(sum(live.values()) for live in meter.timeline)
    assert all(tuple(live) == PARTS for live in meter.timeline)


def test_the_meter_tells_the_peak_of_each_phase_and_in_which_one_the_highest_lies():
    meter = MemoryMeter()
    config = FinetuneConfig(method="full", max_steps=2, gradient_checkpointing=False)
    finetune(config, load_dialogues("train")[:16], callbacks=[meter])
    highest = {phase: sum(parts.values()) for phase, parts in meter.peaks.items()}
    assert list(highest) == ["the forward pass", "the backward pass", "the optimizer's step"]
    assert highest[meter.breakdown.moment] == meter.breakdown.allocated == max(highest.values())
    assert meter.peaks["the forward pass"]["gradients"] == 0
    held = [parts["activations"] for parts in meter.peaks.values()]
    assert held[2] < held[0] <= held[1]


def test_the_timeline_shows_gradients_come_and_activations_go():
    dialogues = load_dialogues("train")[:16]
    meter = MemoryMeter()
    finetune(FinetuneConfig(method="full", max_steps=2), dialogues, callbacks=[meter])
    peak = max(meter.timeline, key=lambda live: live["gradients"])
    assert peak["gradients"] == peak["weights"]
    assert meter.timeline[0]["gradients"] == 0
    assert len({live["optimizer"] for live in meter.timeline[-100:]}) == 1
