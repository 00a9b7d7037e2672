"""The bytes of a training step by running the real model code on tensors without content.

Where all layers are alike, we trace models of two and of three layers, and every further layer
adds what the third one added. Where one layer of so many sees all tokens, we add as many at once.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib.metadata import version
from itertools import count

import torch
from tqdm import tqdm

from ftcourse.config import FinetuneConfig
from ftcourse.errors import CourseError
from ftcourse.hardware import Card, detect
from ftcourse.live import LIBRARIES
from ftcourse.memory import MemoryBreakdown, Step
from ftcourse.memory.ledger import Ledger
from ftcourse.memory.peak import around
from ftcourse.models import architecture, build_empty
from ftcourse.shape import ModelShape, is_known, load_shape
from ftcourse.simulate.allocator import replay
from ftcourse.simulate.cache import cached
from ftcourse.simulate.fakes import as_traced
from ftcourse.simulate.trace import layers_alike, trace, trace_from_load, trace_timeline

Progress = Callable[[float], None]
"""Gets the share of the work that is done."""


def simulate_memory(
    config: FinetuneConfig,
    card: Card | None = None,
    progress: Progress | None = None,
    *,
    reserved: bool = False,
) -> MemoryBreakdown:
    """Return the bytes of a training step, from the real code of any decoder on fake tensors.

    Needs no GPU and no memory, and takes seconds the first time; then the result is cached, until
    the model, a library or ftcourse changes. Not seen: scratch memory inside kernels, but for the
    few that we know. ``reserved`` also asks for what PyTorch's allocator takes, for which all
    layers are traced: some seconds more for each ten. It is an estimate, as gaps depend on the
    order of small things: half of the published runs on a T4 are met within 2 %, and the worst is
    24 % off (``benchmarks/memory_accuracy.py --reserved``).
    """
    step = _step(config, card)
    model = architecture(config.model).to_dict()
    versions = {name: version(name) for name in LIBRARIES}
    key = [asdict(config), asdict(step.card), model, versions, reserved]
    return cached(key, lambda: simulate_step(step, progress, reserved=reserved))


def simulate_timeline(config: FinetuneConfig, card: Card | None = None) -> list[dict[str, int]]:
    """Return the live bytes of each part after each event of a step, with every layer traced.

    An event is a tensor that comes or goes. The fullest moment has ``simulate_memory``'s bytes.
    Nothing is cached; it takes some seconds for each ten layers.
    """
    return trace_timeline(_step(config, card))


def _step(config: FinetuneConfig, card: Card | None) -> Step:
    return Step(config, _shape(config), card or detect())


def _shape(config: FinetuneConfig) -> ModelShape:
    """Return a model's shape, as far as it is known; raise CourseError if there is no such code."""
    if is_known(config.model):
        return load_shape(config.model)
    try:
        build_empty(as_traced(config), 1, torch.float32)
        return ModelShape.of_stranger(architecture(config.model))
    except ValueError as error:
        raise CourseError(
            "A model is simulated if transformers has it as a decoder, with the attention.",
            str(error).split("\n")[0],
            "Try attention='eager' if that is at fault, else another model or transformers.",
        ) from error


def simulate_step(
    step: Step, progress: Progress | None = None, *, reserved: bool = False
) -> MemoryBreakdown:
    """Return the bytes of a step that may differ from the Trainer's, as a ``Step`` describes it.

    Raises CourseError for a mixture in float32, which fake tensors cannot follow.
    """
    if step.shape.num_experts and step.weights_dtype == "float32":
        raise CourseError(
            "Fake tensors multiply a mixture's experts in bfloat16.",
            "experts in float32",
            "Use dtype='bfloat16', or predict_memory.",
        )
    peaks = _peaks(step, progress)
    moment = max(peaks, key=lambda name: sum(peaks[name].parts.values()))
    rows = peaks[moment]
    if step.dtype == "float16":  # for which bfloat16 stands in a trace
        rows = [replace(r, dtype="float16") if r.dtype == "bfloat16" else r for r in rows]
    ledger, totals = Ledger.of([*rows, *around(step)]), _totals(step) if reserved else {}
    facts = {"source": "simulated", "moment": moment, "device": step.card.name}
    return MemoryBreakdown.of(ledger, **facts, **totals)


def _peaks(step: Step, progress: Progress | None) -> dict[str, Ledger]:
    """Return the peak of each moment with all layers: extended, or traced if the layers differ."""
    layers, period = step.shape.num_hidden_layers, step.shape.family.sees_all_every
    few = next(n for n in count(period + 1) if (layers - n) % period == 0)
    extends = layers > few + period and layers_alike(step)
    done, runs = count(1), 4 if extends else 2  # two in each trace

    def tick() -> None:
        if progress:
            progress(next(done) / runs)

    if not extends:
        return trace(step, layers, tick)
    first, second = trace(step, few, tick), trace(step, few + period, tick)
    times = (layers - few) // period
    return {name: extend(first[name], second[name], times) for name in first if name in second}


def extend(first: Ledger, second: Ledger, times: int) -> Ledger:
    """Return what lives where so often is added what the second ledger has more than the first."""
    more = [replace(row, count=row.count * times) for row in second]
    less = [replace(row, count=row.count * (1 - times)) for row in first]
    return Ledger.of([*more, *less])


def _totals(step: Step) -> dict[str, int]:
    """Return what PyTorch's allocator takes for two steps, and what the process then holds.

    Nothing on a CPU, which has no such allocator; and nothing for paged states, which are outside
    of it. Loading is not replayed: it may leave more gaps.
    """
    if step.card.device == "cpu" or "paged" in step.config.optimizer:
        return {}
    events, loaded = trace_from_load(step)
    sizes = [row.bytes for row in around(step) for _ in range(row.count)]
    scratch = [(-1 - n, size) for n, size in enumerate(sizes)]
    reserved = replay([*events[:loaded], *scratch, *events[loaded:]])
    context = step.card.context
    return {"reserved": reserved, "process": reserved + context if context else None}


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Yield a callback that moves a bar on a terminal; elsewhere, and with TQDM_DISABLE=1, none."""
    quiet = not sys.stderr.isatty() or os.environ.get("TQDM_DISABLE", "0") not in ("", "0")
    with tqdm(total=1.0, desc="simulating", disable=quiet, bar_format="{desc}: {bar}") as bar:
        yield lambda done: bar.update(done - bar.n)
