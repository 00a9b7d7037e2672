"""What a finished run leaves: the tuned weights, the tokenizer, and run.json with its history."""

import shutil
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ftcourse.errors import CourseError
from ftcourse.train.checkpoints import best_checkpoint, find_damage, list_files, read_state
from ftcourse.train.run import Run, write_run

STAGE = ".saving"
_JUDGED = "eval_loss"


def finished(checkpoint: Path, max_steps: int) -> tuple[Path, Run] | None:
    """Return the best weights' folder and the facts of a run that only has to be saved, or None.

    It has taken all its steps, or validation stopped it.
    """
    state = read_state(checkpoint)
    stop = state.get("stateful_callbacks", {}).get("EarlyStoppingCallback")
    waited = stop and stop["attributes"]["early_stopping_patience_counter"]
    if state["global_step"] < max_steps and not (
        stop and waited >= stop["args"]["early_stopping_patience"]
    ):
        return None
    facts = {"history": read_history(state["log_history"]), "seconds": 0.0}
    return best_checkpoint(checkpoint) or checkpoint, facts


def read_history(log: list[dict[str, float]]) -> list[dict[str, float]]:
    """Return one entry for each step of the Trainer's log, with ``eval_loss`` where it is known."""
    judged = {entry["step"]: {_JUDGED: entry[_JUDGED]} for entry in log if _JUDGED in entry}
    return [entry | judged.get(entry["step"], {}) for entry in log if "loss" in entry]


def save_result(
    folder: Path,
    run: Run,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    whole: dict[str, torch.Tensor] | None = None,
) -> None:
    """Write the tuned weights and the tokenizer, and at last that the run is finished.

    Everything is written aside first. Before it is moved, run.json says which files will be ours:
    if the program stops in between, the next call knows that it may replace these, and no others.
    """
    stage = folder / STAGE
    shutil.rmtree(stage, ignore_errors=True)
    model.save_pretrained(stage, state_dict=whole)  # of a sharded model, gathered from all
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
