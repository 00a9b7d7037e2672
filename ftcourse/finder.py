"""A learning rate found in a minute: the range test, which tries all of them on one short run."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

from ftcourse.chat import Example, show_progress
from ftcourse.config import FinetuneConfig, check_run
from ftcourse.data import as_records, encode
from ftcourse.errors import CourseError
from ftcourse.loop import Batch, draw_batches
from ftcourse.models import attach_adapter, load_base, load_tokenizer
from ftcourse.records import Record

_KEPT = 0.9
"""Share of the smoothed loss that a step keeps from the steps before it."""
_FIRST = 10
"""So many steps say nothing yet: the running mean moves with each batch."""
_DIVERGED = 2
"""The test ends where the smoothed loss is so many times its lowest value."""


@dataclass(frozen=True)
class RateSearch:
    """What a range test saw, and the rate to begin with."""

    rates: tuple[float, ...]
    """The rate of each step, each the same factor above the last."""
    losses: tuple[float, ...]
    """The training loss of each step, measured before the step is taken."""
    smoothed: tuple[float, ...]
    """The losses as a running mean, which hides most of the batches' differences."""
    suggestion: float
    """The rate at which the smoothed loss falls most."""

    def __repr__(self) -> str:
        """Return the suggestion, and where the loss was lowest."""
        lowest = self.rates[self.smoothed.index(min(self.smoothed))]
        return (
            f"suggested learning rate: {self.suggestion:.1e}, where the loss falls most "
            f"(lowest at {lowest:.1e}, {len(self.rates)} steps from {self.rates[0]:.0e})"
        )


def find_learning_rate(
    config: FinetuneConfig,
    records: Iterable[Record],
    lowest: float = 1e-6,
    highest: float = 1.0,
    steps: int = 60,
) -> RateSearch:
    """Return the losses of one run whose rate rises from lowest to highest, and a suggestion.

    The learning-rate range test: Smith, "Cyclical Learning Rates for Training Neural Networks"
    (2017), section 3.3, with the exponential rise that fastai made usual. It trains a model of its
    own, which is thrown away: nothing is written. The config's rate and steps are not used.

    What it suggests is a rate to begin with: it saw a few steps, and no validation set.
    """
    check_run(config)
    _check_range(lowest, highest, steps)
    examples = encode(as_records(records), load_tokenizer(config.model), config.max_length)
    factor = (highest / lowest) ** (1 / (steps - 1))
    rates = [lowest * factor**step for step in range(steps)]
    with torch.random.fork_rng():  # the caller's random numbers go on as if nothing had happened
        torch.manual_seed(config.seed)
        model = attach_adapter(load_base(config), config)
        losses = _rise(model, _batches(examples, config, steps), rates)
    smoothed = smooth(losses)
    suggestion = rates[_steepest(smoothed, lowest)]
    return RateSearch(tuple(rates[: len(losses)]), tuple(losses), smoothed, suggestion)


def _steepest(smoothed: Sequence[float], lowest: float) -> int:
    """Return the step at which the smoothed loss falls most."""
    falls = [after - before for before, after in pairwise(smoothed)][_FIRST:]
    if min(falls, default=0) >= 0:
        raise CourseError(
            "A range test begins at a rate that is too low, so that the loss falls later.",
            f"from lowest={lowest:g} on, the loss does not fall in {len(smoothed)} steps",
            "Give a lower one; or give more steps, or other records.",
        )
    return _FIRST + 1 + falls.index(min(falls))


def _check_range(lowest: float, highest: float, steps: int) -> None:
    """Refuse rates that do not rise, and steps too few to see a curve."""
    numbers = all(isinstance(value, int | float) for value in (lowest, highest))
    rises = numbers and 0 < lowest < highest and math.isfinite(highest)
    if not rises or type(steps) is not int or steps < 2 * _FIRST:
        raise CourseError(
            "A range test rises from a rate above 0 to a higher one, in 20 steps or more.",
            f"lowest={lowest!r}, highest={highest!r}, steps={steps!r}"[:200],
            "The defaults, 1e-6 to 1 in 60 steps, suit most models.",
        )


def _batches(examples: list[Example], config: FinetuneConfig, steps: int) -> list[list[Batch]]:
    """Return the batches of each step: as many as the config's run accumulates."""
    parts = config.gradient_accumulation_steps
    drawn = draw_batches(examples, config.batch_size, steps * parts, config.seed)
    return [drawn[step * parts : (step + 1) * parts] for step in range(steps)]


def _rise(model: nn.Module, steps: list[list[Batch]], rates: list[float]) -> list[float]:
    """Train with a rate that rises from step to step, until the loss diverges; return the losses.

    AdamW without weight decay, gradients clipped to a norm of 1, as in ``train_on``.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer, losses = torch.optim.AdamW(trained, weight_decay=0), []
    model.train()
    for parts, rate in zip(show_progress(steps, "learning rates"), rates, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        losses.append(0.0)
        for batch in parts:
            device = trained[0].device
            loss = model(**{name: rows.to(device) for name, rows in batch.items()}).loss / len(
                parts
            )
            loss.backward()
            losses[-1] += loss.item()
        if not math.isfinite(losses[-1]):
            return losses[:-1]
        if smooth(losses)[-1] > _DIVERGED * min(smooth(losses)):
            return losses
        nn.utils.clip_grad_norm_(trained, 1)
        optimizer.step()
        optimizer.zero_grad()
    return losses


def smooth(losses: Sequence[float]) -> tuple[float, ...]:
    """Return the running mean of losses, in which each step counts a tenth of what is left.

    The first ones are divided by the weight that they have, as in Adam (Kingma and Ba, 2015,
    section 3), so that the mean does not begin near zero.
    """
    mean, means = 0.0, []
    for step, loss in enumerate(losses, 1):
        mean = _KEPT * mean + (1 - _KEPT) * loss
        means.append(mean / (1 - _KEPT**step))
    return tuple(means)
