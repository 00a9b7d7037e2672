"""Measure many training steps on the card at hand and write each one down.

    python benchmarks/measure_grid.py [--minutes 9] [--scratch FOLDER] [--models NAME ...]

Appends one line a run to data/measured/<card>-<date>.jsonl, with the whole config, the measured
breakdown and what was predicted. Runs that are written down already are passed over, so that the
script can be cut and called again. Weights are random: they take the same bytes and no download.
"""

import argparse
import json
import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

from ftcourse.config import FinetuneConfig
from ftcourse.errors import CourseError
from ftcourse.hardware import detect
from ftcourse.measure import measure_memory
from ftcourse.memory import predict_memory
from ftcourse.models import save_random_model
from ftcourse.resources import course_path

MODELS = (
    "smollm2-135m",
    "qwen2.5-0.5b",
    "llama-3.2-1b",
    "qwen2.5-3b",
    "mistral-7b",
    "llama-3.1-8b",
)

# Each line turns one knob from a common base, so that each term of the arithmetic is seen alone.
KNOBS = (
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
QLORA_KNOBS = ({"upcast": True}, {"double_quant": False}, {"bits": 8})


def grid(models: tuple[str, ...]) -> Iterator[FinetuneConfig]:
    """Yield every run of the grid, small models first."""
    for model in models:
        for method in ("full", "lora", "qlora"):
            for knob in KNOBS + (QLORA_KNOBS if method == "qlora" else ()):
                yield FinetuneConfig(model=model, method=method, **knob)


def measure(config: FinetuneConfig, scratch: Path) -> dict:
    """Return the record of one run; a run that does not fit is recorded as that."""
    folder = scratch / config.model
    if not folder.exists():
        save_random_model(config.model, folder)
    record = {"config": asdict(config), "predicted": asdict(predict_memory(config))}
    start = time.perf_counter()
    try:
        measured = measure_memory(replace(config, model=str(folder)))
    except CourseError as error:
        return record | {"error": error.must}
    seconds = round(time.perf_counter() - start, 2)
    return record | {"measured": asdict(measured), "seconds": seconds}


def main() -> None:
    """Measure what is not yet written down, for as long as there is time."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()) / "ftcourse")
    parser.add_argument("--models", nargs="+", default=MODELS)
    options = parser.parse_args()
    card, end = detect(), time.monotonic() + 60 * options.minutes
    name = re.sub(r"\W+", "-", card.name).strip("-").lower()
    written = course_path("data/measured").glob(f"{name}-*.jsonl")
    lines = [line for path in written for line in path.read_text().splitlines()]
    done = {json.dumps(json.loads(line)["config"], sort_keys=True) for line in lines}
    output = course_path("data/measured") / f"{name}-{time.strftime('%Y-%m-%d')}.jsonl"
    for config in grid(tuple(options.models)):
        key = json.dumps(asdict(config), sort_keys=True)
        if key in done or predict_memory(config).allocated > card.memory:
            continue
        if time.monotonic() > end:
            break
        record = measure(config, options.scratch)
        with output.open("a") as file:
            file.write(json.dumps(record) + "\n")
        print(config.model, config.method, record.get("seconds", record.get("error")))


if __name__ == "__main__":
    main()
