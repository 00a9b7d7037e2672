"""One fine-tuning run on transformers.Trainer, which saves checkpoints and resumes from them."""

import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    set_seed,
)

from ftcourse import models
from ftcourse.chat import Example
from ftcourse.config import FinetuneConfig, check_training
from ftcourse.config_file import check_patience
from ftcourse.data import Record, as_records, encode
from ftcourse.errors import CourseError
from ftcourse.files import user_path
from ftcourse.hardware import detect
from ftcourse.memory.fit import does_not_fit, refuse_if_too_large
from ftcourse.train.build import make_trainer
from ftcourse.train.checkpoints import KeepWhole, last_checkpoint
from ftcourse.train.processes import from_first, join_processes, wait_for_all
from ftcourse.train.result import check_result, finished, read_history, save_result
from ftcourse.train.run import Run, describe_run, locked, open_run, run_name, write_run
from ftcourse.train.sharded import gather_whole
from ftcourse.train.trouble import checkpoint_bytes, explained_disk


@dataclass(frozen=True)
class FinetuneResult:
    """A finished run: the tuned model and its history."""

    config: FinetuneConfig
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    history: list[dict[str, float]]
    """One entry per step: ``step``, ``loss``, ``learning_rate``; ``eval_loss`` where judged."""
    output_dir: Path
    """Folder with the tuned weights (safetensors), run.json and the last checkpoint."""
    trained_parameters: int
    seconds: float
    """Duration of the training; of a resumed run, only since it resumed."""
    processes: int = 1
    """Processes that trained it together."""

    @property
    def best_step(self) -> int | None:
        """The step with the lowest validation loss, whose weights were kept; None without any."""
        judged = [entry for entry in self.history if "eval_loss" in entry]
        return min(judged, key=lambda entry: entry["eval_loss"])["step"] if judged else None

    def __repr__(self) -> str:
        """Return what was trained, for how long, and the first and last loss."""
        first, last, most = self.history[0], self.history[-1], self.config.max_steps
        steps = f"{most}" if last["step"] == most else f"{last['step']} of {most}"
        together = f" on {self.processes} processes" * (self.processes > 1)
        judged = {entry["step"]: entry.get("eval_loss") for entry in self.history}
        kept = self.best_step and (
            f"\nweights of step {self.best_step}: lowest validation loss, "
            f"{judged[self.best_step]:.2f}"
        )
        return (
            f"{self.config.method}: {self.trained_parameters:,} parameters, "
            f"{steps} steps in {self.seconds:.0f} s{together}, "
            f"training loss {first['loss']:.2f} -> {last['loss']:.2f}{kept or ''}"
        )


def finetune(
    config: FinetuneConfig,
    data: Iterable[Record],
    output_dir: str | Path | None = None,
    resume: bool = True,
    callbacks: Sequence[TrainerCallback] = (),
    validation: Iterable[Record] | None = None,
    patience: int | None = None,
) -> FinetuneResult:
    """Fine-tune a model on records or a ``datasets.Dataset``; return it with its history.

    A run that stopped resumes from its last checkpoint if it is called again with the same config,
    data and folder; a finished one is loaded. Without ``output_dir`` the run gets a new temporary
    folder. Nothing is overwritten: a folder with anything else in it, or with an old run if
    ``resume=False``, raises CourseError. So does a batch that does not fit the card.

    ``validation`` records judge each checkpoint, and the weights with the lowest loss on them are
    kept. With ``patience`` the run stops after so many checkpoints without a lower loss.

    Several processes, started by ``accelerate launch`` or ``torchrun``, train one model together:
    each takes ``batch_size`` records a step. With ``--use_fsdp`` each holds only a shard.
    """
    check_training(config, detect())
    records, held_out = as_records(data), None if validation is None else as_records(validation)
    _check_judges(held_out, patience)
    asked = describe_run(config, records, held_out, patience, join_processes())
    folder = from_first(lambda: _folder(output_dir))
    with explained_disk(folder) as needs, ExitStack() as held, models.libraries_quiet():
        run, checkpoint = from_first(lambda: _open(folder, asked, resume, held))
        tokenizer, whole = models.load_tokenizer(config.model), None
        if "history" in run:
            check_result(folder, run)
            model = models.load_finetuned(config, folder)
        else:
            if checkpoint and (end := finished(checkpoint, config.max_steps)):
                model, run = models.load_finetuned(config, end[0]), run | end[1]
            else:
                examples = encode(records, tokenizer, config.max_length)
                judges = held_out and encode(held_out, tokenizer, config.max_length)
                trainer = _prepare(config, examples, folder, run, callbacks, judges)
                needs.append(lambda: checkpoint_bytes(trainer))
                model, run = trainer.model, run | train(trainer, config, checkpoint)
                whole = gather_whole(trainer)
            from_first(lambda: save_result(folder, run, model, tokenizer, whole))
    return FinetuneResult(
        config,
        model,
        tokenizer,
        run["history"],
        folder,
        run["trained_parameters"],
        run["seconds"],
        run.get("processes", 1),
    )


def _check_judges(held_out: list[Record] | None, patience: int | None) -> None:
    """Refuse a validation set without records, and patience without a validation set."""
    check_patience(patience)
    if held_out == [] or (held_out is None and patience is not None):
        raise CourseError(
            "Validation records, one or more, judge each checkpoint; patience waits for them.",
            f"{'no' if held_out is None else '0'} validation records, patience={patience}",
            "Give validation=records that are not in the training data.",
        )


def _folder(output_dir: str | Path | None) -> Path:
    return user_path(tempfile.mkdtemp(prefix="ftcourse-") if output_dir is None else output_dir)


def _open(folder: Path, asked: Run, resume: bool, held: ExitStack) -> tuple[Run, Path | None]:
    """Lock a folder, and return the run that it holds with its last checkpoint."""
    open_run(folder, asked, resume)  # refuses before anything is written
    held.enter_context(locked(folder))
    run = open_run(folder, asked, resume)  # again, now that nobody else can write there
    return run, None if "history" in run else last_checkpoint(folder, run_name(run))


def _prepare(
    config: FinetuneConfig,
    examples: Sequence[Example],
    folder: Path,
    run: Run,
    callbacks: Sequence[TrainerCallback],
    judges: Sequence[Example] | None,
) -> Trainer:
    """Load the model, write down which run begins, and return its trainer."""
    longest = max(len(example.input_ids) for example in examples)
    refuse_if_too_large(replace(config, max_length=longest))
    set_seed(config.seed)
    model = models.attach_adapter(models.load_base(config), config)
    run = run | {"trained_parameters": _count_trained(model)}
    from_first(lambda: write_run(folder, run))
    keeper = KeepWhole(folder, run_name(run))
    callbacks = [*callbacks, keeper]
    if judges and (patience := run["validation"]["patience"]):
        callbacks.append(EarlyStoppingCallback(patience))
    wait_for_all()
    return make_trainer(config, model, examples, keeper.place, callbacks, judges)


def _count_trained(model: PreTrainedModel) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def train(trainer: Trainer, config: FinetuneConfig, checkpoint: Path | None = None) -> Run:
    """Train to the end, from a checkpoint if there is one; return ``history`` and other facts.

    Raises CourseError with the cheapest change that would fit, if there is not enough memory.
    """
    start, trained = time.perf_counter(), _count_trained(trainer.model)
    try:
        trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
    except torch.OutOfMemoryError as error:
        raise does_not_fit(config, detect()) from error
    finally:
        for callback in trainer.callback_handler.callbacks:
            getattr(callback, "close", lambda: None)()
    return {
        "history": read_history(trainer.state.log_history),
        "trained_parameters": trained,
        "seconds": round(time.perf_counter() - start, 1),
    }
