"""What a finished run leaves: the tuned weights, the tokenizer, and run.json with its history."""

import json
import shutil
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ftcourse.errors import CourseError
from ftcourse.train.checkpoints import find_damage, list_files
from ftcourse.train.run import Run, write_run

STAGE = ".saving"


def finished(checkpoint: Path, max_steps: int) -> Run:
    """Return what a run would have said at its end, if a checkpoint has all steps; else nothing."""
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    if state["global_step"] < max_steps:
        return {}
    return {"history": [entry for entry in state["log_history"] if "loss" in entry], "seconds": 0.0}


def save_result(
    folder: Path, run: Run, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Write the tuned weights and the tokenizer, and at last that the run is finished.

    Everything is written aside first. Before it is moved, run.json says which files will be ours:
    if the program stops in between, the next call knows that it may replace these, and no others.
    """
    stage = folder / STAGE
    shutil.rmtree(stage, ignore_errors=True)
    model.save_pretrained(stage)
    tokenizer.save_pretrained(stage)
    files = list_files(stage)
    ours = run.get("files", {})
    if strange := [name for name in files if name not in ours and (folder / name).exists()]:
        raise CourseError(
            "A run writes no file over one that it did not make.",
            f"{folder} already has {', '.join(strange)}",
            "Move them away and call it again: all steps are done, and only this is left.",
        )
    begun = {name: value for name, value in run.items() if name not in ("history", "seconds")}
    write_run(folder, begun | {"files": files})
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (stage / name).replace(folder / name)
    shutil.rmtree(stage)
    write_run(folder, run | {"files": files})


def check_result(folder: Path, run: Run) -> None:
    """Refuse to load a finished run whose weights are not those that it wrote."""
    weights = {n: facts for n, facts in run["files"].items() if n.endswith(".safetensors")}
    if problem := find_damage(folder, weights):
        raise CourseError(
            "The weights of a finished run are those that it wrote.",
            f"{folder}: {problem}",
            "Copy the file again, or give another output_dir to train again.",
        )
