"""Measure many training steps on the card at hand and write each one down.

    python benchmarks/measure_grid.py [--minutes 9] [--scratch FOLDER] [--models NAME ...]
                                      [--timeline] [--output FOLDER]

Appends one line for each run to data/measured/<card>-<date>.jsonl: the whole config with its seed,
the model's shape, the number format that "auto" stood for, the measured breakdown with its three
totals and library versions, the driver, the bytes between two steps, seconds and tokens a second,
and what was predicted. ftcourse/memory/records.py reads it. The script skips the runs that are
already there, so you can stop it and start it again. Weights are random: they take the same bytes.

``--timeline`` instead writes down how the bytes come and go in one step of full, lora and qlora of
each model, to <card>-<date>-timeline.jsonl: each part's bytes after some of the events (``thin``).
Such a line has no ``measured``, so records.py passes it by.
"""

import argparse
import json
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import torch
from transformers import TrainerCallback

from ftcourse.chat import Example
from ftcourse.config import FinetuneConfig
from ftcourse.errors import CourseError
from ftcourse.files import course_path
from ftcourse.hardware import detect
from ftcourse.measure import MemoryMeter
from ftcourse.memory import PARTS, MemoryBreakdown, predict_memory
from ftcourse.memory.fit import judge_fit
from ftcourse.models import attach_adapter, libraries_quiet, load_base, save_random_model
from ftcourse.shape import load_shape
from ftcourse.train import make_trainer, train

TIMED = 3
"""Steps that are timed; their median counts."""

MODELS = (
    "smollm2-135m",
    "qwen2.5-0.5b",
    "llama-3.2-1b",
    "qwen2.5-3b",
    "mistral-7b",
    "llama-3.1-8b",
)

# Each line changes one field or two of a common base, so that we see each term of the arithmetic
# alone.
CHANGES = (
    {},
    {"rank": 4},
    {"rank": 64},
    {"rank": 256},
    {"max_length": 256},
    {"max_length": 2048},
    {"max_length": 4096, "batch_size": 1},
    {"batch_size": 1},
    {"batch_size": 8},
    {"gradient_checkpointing": False},
    {"loss": "chunked"},
    {"loss": "chunked", "max_length": 4096},
    {"optimizer": "adamw_torch"},
    {"optimizer": "adamw_8bit"},
    {"optimizer": "paged_adamw_8bit"},
    {"attention": "eager"},
    {"dtype": "float32"},
    {"target_modules": ("q_proj", "v_proj")},
)
QLORA_CHANGES = ({"upcast": True}, {"double_quant": False}, {"bits": 8})


def grid(models: tuple[str, ...]) -> Iterator[FinetuneConfig]:
    """Yield every run of the grid, small models first."""
    for model in models:
        for method in ("full", "lora", "qlora"):
            for change in CHANGES + (QLORA_CHANGES if method == "qlora" else ()):
                yield FinetuneConfig(model=model, method=method, **change)


def timelines(models: tuple[str, ...]) -> Iterator[FinetuneConfig]:
    """Yield the runs whose timelines are measured."""
    for model in models:
        for method in ("full", "lora", "qlora"):
            yield FinetuneConfig(model=model, method=method)


def thin(timeline: list[dict[str, int]], most: int = 1200) -> dict[str, list[int]]:
    """Return each part's bytes after some events: of each stretch the fullest one and the last.

    ``event`` says which ones. The fullest of all is among them, and both ends; at most about
    ``most``, which is what a picture can show.
    """
    stretch = max(1, -(-2 * len(timeline) // most))
    kept = {0}
    for start in range(0, len(timeline), stretch):
        events = range(start, min(start + stretch, len(timeline)))
        kept |= {max(events, key=lambda event: sum(timeline[event].values())), events[-1]}
    events = sorted(kept)
    return {"event": events} | {part: [timeline[n][part] for n in events] for part in PARTS}


class Clock(TrainerCallback):
    """Times the steps after the measured one, and notes the bytes on the card between two steps.

    The meter makes its own step slow, so that step is not timed.
    """

    def __init__(self, after: int) -> None:
        """Choose the last step that is not timed, counted from 1."""
        self.after, self.resident, self.times = after, None, []

    def on_step_begin(self, args, state, control, **_):
        """Note the resident bytes, and start."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            self.resident = torch.cuda.memory_allocated()
        self.start = time.perf_counter()

    def on_step_end(self, args, state, control, **_):
        """Stop, when the card is done."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if state.global_step > self.after:
            self.times.append(time.perf_counter() - self.start)


def measure(config: FinetuneConfig, scratch: Path, timeline: bool = False) -> dict:
    """Return the record of one run; if it does not fit, the record says so."""
    folder = scratch / config.model
    if config.model == "embedded":  # its weights are here
        folder = course_path("data/model")
    elif not folder.exists():
        save_random_model(config.model, folder)
    record = {
        "by": "ftcourse",
        "config": asdict(config),
        "shape": asdict(load_shape(config.model)),
        "dtype": config.dtype_on(detect()),
        "driver": driver_version(),
        "cuda": torch.version.cuda,
        "predicted": sums(predict_memory(config)),
    }
    start = time.perf_counter()
    try:
        meter, clock = run_steps(replace(config, model=str(folder), max_steps=2 + TIMED))
    except (CourseError, torch.OutOfMemoryError) as error:
        return record | {"error": getattr(error, "must", "out of memory")}
    if timeline:
        found = meter.breakdown
        facts = {"device": found.device, "date": found.date, "versions": found.versions}
        peak = max(sum(parts.values()) for parts in meter.timeline)
        return record | facts | {"peak": peak, "timeline": thin(meter.timeline)}
    step = statistics.median(clock.times)
    tokens = config.batch_size * config.gradient_accumulation_steps * config.max_length
    return record | {
        "measured": {"allocated": meter.breakdown.allocated} | sums(meter.breakdown),
        "resident": clock.resident,
        "seconds": round(time.perf_counter() - start, 2),
        "step_seconds": round(step, 4),
        "tokens_per_second": round(tokens / step, 1),
    }


def sums(breakdown: MemoryBreakdown) -> dict:
    """Return a breakdown without its ledger, whose hundreds of rows a line need not hold."""
    return {name: value for name, value in asdict(breakdown).items() if name != "ledger"}


def run_steps(config: FinetuneConfig) -> tuple[MemoryMeter, Clock]:
    """Take ``finetune``'s own steps on random tokens; the second one is measured."""
    meter, clock = MemoryMeter(), Clock(after=2)
    torch.manual_seed(config.seed)
    with tempfile.TemporaryDirectory() as folder, libraries_quiet():
        model = attach_adapter(load_base(config), config)
        count = config.max_steps * config.batch_size * config.gradient_accumulation_steps
        ids = torch.randint(model.config.vocab_size, (count, config.max_length)).tolist()
        examples = [Example(row, row) for row in ids]
        train(make_trainer(config, model, examples, Path(folder), [clock, meter]), config)
    return meter, clock


def driver_version() -> str | None:
    """Return the version of the NVIDIA driver, or None where there is none."""
    if not shutil.which("nvidia-smi"):
        return None
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True).stdout.split("\n")[0] or None


def main() -> None:
    """Measure the runs that are not in a file yet, for as long as there is time."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()) / "ftcourse")
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--timeline", action="store_true")
    parser.add_argument("--output", type=Path, default=course_path("data/measured"))
    options = parser.parse_args()
    card, end = detect(), time.monotonic() + 60 * options.minutes
    name = re.sub(r"\W+", "-", card.name).strip("-").lower()
    end_of_name = "-timeline.jsonl" if options.timeline else ".jsonl"
    dated = re.compile(re.escape(name) + r"-\d{4}-\d\d-\d\d" + re.escape(end_of_name))
    written = [path for path in options.output.glob("*.jsonl") if dated.fullmatch(path.name)]
    lines = [line for path in written for line in path.read_text(encoding="utf-8").splitlines()]
    done = {json.dumps(json.loads(line)["config"], sort_keys=True) for line in lines}
    output = options.output / f"{name}-{time.strftime('%Y-%m-%d')}{end_of_name}"
    for config in (timelines if options.timeline else grid)(tuple(options.models)):
        key = json.dumps(asdict(config), sort_keys=True)
        if key in done or judge_fit(predict_memory(config), card).answer == "no":
            continue
        if time.monotonic() > end:
            break
        record = measure(config, options.scratch, options.timeline)
        with output.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        print(config.model, config.method, record.get("error", record.get("seconds", "done")))


if __name__ == "__main__":
    main()
