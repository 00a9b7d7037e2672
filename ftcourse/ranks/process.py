"""One of the processes of a run: it trains, and writes what it held."""

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

from torch import distributed
from transformers import TrainerCallback

from ftcourse.config_file import read_config
from ftcourse.data import load_records
from ftcourse.errors import CourseError
from ftcourse.files import write_whole
from ftcourse.ranks.meter import RankMeter
from ftcourse.train import finetune

RUN, DATA, STEPS = "run.toml", "data.jsonl", "steps"
"""Files in the folder of the run: what to do, the records, and a character for each step."""


class _CountSteps(TrainerCallback):
    """Writes one character a step, for the bar of the process that waits."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def on_step_end(self, args, state, control, **_):
        if state.is_world_process_zero:
            with self.file.open("ab") as file:
                file.write(b".")


def train_here(folder: Path) -> None:
    """Train as one of the processes; write what was measured, or the error."""
    plan, rank = read_config(folder / RUN), os.environ.get("RANK", "0")
    meter = RankMeter()
    callbacks = [meter, _CountSteps(folder / STEPS)]
    try:
        result = finetune(
            plan.config, load_records(plan.data), plan.output_dir, callbacks=callbacks
        )
    except CourseError as error:
        write_whole(folder / f"error{rank}", json.dumps([error.must, error.got, error.do]))
        raise
    found = asdict(replace(meter.breakdown, ledger=()))
    found["ledger"] = [asdict(row) for row in meter.breakdown.ledger]
    together = distributed.get_world_size() if distributed.is_initialized() else 1
    losses = [entry["loss"] for entry in result.history]
    facts = {
        "losses": losses,
        "world_size": together,
        "breakdown": found,
        "collectives": meter.collectives,
    }
    write_whole(folder / f"rank{rank}.json", json.dumps(facts))
