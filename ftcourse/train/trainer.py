"""One fine-tuning run on transformers.Trainer, which saves checkpoints and resumes from them."""

import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from tqdm.auto import tqdm
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from ftcourse import models
from ftcourse.chat import Example, bars_are_off
from ftcourse.config import FinetuneConfig, check_run
from ftcourse.data import Record, as_records, encode, pad_batch
from ftcourse.files import user_path
from ftcourse.hardware import Card, detect
from ftcourse.loss import check_head, use_chunked_loss
from ftcourse.memory.fit import does_not_fit, refuse_if_too_large
from ftcourse.train.checkpoints import KeepWhole, last_checkpoint
from ftcourse.train.result import check_result, finished, save_result
from ftcourse.train.run import Run, describe_run, locked, open_run, run_name, write_run
from ftcourse.train.trouble import StopWithoutLoss, checkpoint_bytes, explained_disk


@dataclass(frozen=True)
class FinetuneResult:
    """A finished run: the tuned model and its history."""

    config: FinetuneConfig
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    history: list[dict[str, float]]
    """One entry per step: ``step``, ``loss``, ``learning_rate``."""
    output_dir: Path
    """Folder with the tuned weights (safetensors), run.json and the last checkpoint."""
    trained_parameters: int
    seconds: float
    """Duration of the training; of a resumed run, only since it resumed."""

    def __repr__(self) -> str:
        """Return what was trained, for how long, and the first and last loss."""
        first, last = self.history[0]["loss"], self.history[-1]["loss"]
        return (
            f"{self.config.method}: {self.trained_parameters:,} parameters, "
            f"{self.config.max_steps} steps in {self.seconds:.0f} s, "
            f"training loss {first:.2f} -> {last:.2f}"
        )


def finetune(
    config: FinetuneConfig,
    data: Iterable[Record],
    output_dir: str | Path | None = None,
    resume: bool = True,
    callbacks: Sequence[TrainerCallback] = (),
) -> FinetuneResult:
    """Fine-tune a model on records or a ``datasets.Dataset``; return it with its history.

    A run that stopped resumes from its last checkpoint if it is called again with the same config,
    data and folder; a finished one is loaded. Without ``output_dir`` the run gets a new temporary
    folder. Nothing is overwritten: a folder with anything else in it, or with an old run if
    ``resume=False``, raises CourseError. So does a batch that does not fit the card.
    """
    check_run(config)
    records = as_records(data)
    new = output_dir is None
    folder = user_path(tempfile.mkdtemp(prefix="ftcourse-") if new else output_dir)
    asked = describe_run(config, records)
    open_run(folder, asked, resume)  # refuses before anything is written
    with explained_disk(folder) as needs, locked(folder), models.libraries_quiet():
        run = open_run(folder, asked, resume)  # again, now that nobody else can write there
        tokenizer = models.load_tokenizer(config.model)
        if "history" in run:
            check_result(folder, run)
            model = models.load_finetuned(config, folder)
        else:
            checkpoint = last_checkpoint(folder, run_name(run))
            if checkpoint and (facts := finished(checkpoint, config.max_steps)):
                model, run = models.load_finetuned(config, checkpoint), run | facts
            else:
                examples = encode(records, tokenizer, config.max_length)
                trainer = _prepare(config, examples, folder, run, callbacks)
                needs.append(lambda: checkpoint_bytes(trainer))
                model, run = trainer.model, run | train(trainer, config, checkpoint)
            save_result(folder, run, model, tokenizer)
    return FinetuneResult(
        config, model, tokenizer, run["history"], folder, run["trained_parameters"], run["seconds"]
    )


def _prepare(
    config: FinetuneConfig,
    examples: Sequence[Example],
    folder: Path,
    run: Run,
    callbacks: Sequence[TrainerCallback],
) -> Trainer:
    """Load the model, write down which run begins, and return its trainer."""
    longest = max(len(example.input_ids) for example in examples)
    refuse_if_too_large(replace(config, max_length=longest))
    set_seed(config.seed)
    model = models.attach_adapter(models.load_base(config), config)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    write_run(folder, run | {"trained_parameters": trained})
    keeper = KeepWhole(folder, run_name(run))
    return make_trainer(config, model, examples, keeper.place, [*callbacks, keeper])


def train(trainer: Trainer, config: FinetuneConfig, checkpoint: Path | None = None) -> Run:
    """Train to the end, from a checkpoint if there is one; return ``history`` and other facts.

    Raises CourseError with the cheapest change that would fit, if there is not enough memory.
    """
    start = time.perf_counter()
    try:
        trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
    except torch.OutOfMemoryError as error:
        raise does_not_fit(config, detect()) from error
    finally:
        for callback in trainer.callback_handler.callbacks:
            getattr(callback, "close", lambda: None)()
    return {
        "history": [entry for entry in trainer.state.log_history if "loss" in entry],
        "trained_parameters": sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
        "seconds": round(time.perf_counter() - start, 1),
    }


def make_trainer(
    config: FinetuneConfig,
    model: PreTrainedModel,
    examples: Sequence[Example],
    folder: Path,
    callbacks: Sequence[TrainerCallback] = (),
) -> Trainer:
    """Return the transformers Trainer of a run, which writes its checkpoints into a folder."""
    if config.loss == "chunked":
        causal = model if config.method == "full" else model.get_base_model()
        check_head(causal)
        use_chunked_loss(causal)
    if "8bit" in config.optimizer:
        models.forget_overrides()
    trainer = Trainer(
        model=model,
        args=training_arguments(config, folder, detect()),
        train_dataset=[asdict(example) for example in examples],
        data_collator=pad_batch,
        callbacks=[*callbacks, StopWithoutLoss(), _ProgressBar()],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def training_arguments(config: FinetuneConfig, folder: Path, card: Card) -> TrainingArguments:
    """Return our config as the Trainer's arguments."""
    dtype = config.dtype_on(card)
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=config.max_steps,
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        learning_rate=config.learning_rate,
        warmup_steps=0.05,  # a share of all steps
        optim=config.optimizer,
        bf16=dtype == "bfloat16",
        fp16=dtype == "float16",
        use_cpu=card.device == "cpu",
        logging_steps=1,
        logging_nan_inf_filter=False,  # a loss of nan must be seen, not smoothed away
        save_steps=max(10, config.max_steps // 10),
        seed=config.seed,
        data_seed=config.seed,
        dataloader_pin_memory=card.device == "cuda",
        label_names=["labels"],
        remove_unused_columns=False,
        report_to="none",
        disable_tqdm=True,
    )


class _ProgressBar(TrainerCallback):
    """One line with the steps, the time left and the last loss; TQDM_DISABLE=1 hides it."""

    def on_train_begin(self, args, state, control, **_):
        steps = {"initial": state.global_step, "total": state.max_steps}
        self.bar = tqdm(**steps, desc="training", disable=bars_are_off())

    def on_log(self, args, state, control, logs, **_):
        if "loss" in logs:
            self.bar.set_postfix(loss=f"{float(logs['loss']):.2f}")

    def on_step_end(self, args, state, control, **_):
        self.bar.update()

    def on_train_end(self, args, state, control, **_):
        self.bar.close()
