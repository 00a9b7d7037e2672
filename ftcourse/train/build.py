"""Our config as transformers' Trainer: its arguments, its bar, and how it judges."""

from collections.abc import Sequence
from pathlib import Path

from tqdm.auto import tqdm
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from ftcourse import models
from ftcourse.chat import IGNORED, Example, bars_are_off
from ftcourse.config import FinetuneConfig
from ftcourse.data import pad_batch
from ftcourse.hardware import Card, detect
from ftcourse.loss import check_head, use_chunked_loss
from ftcourse.train.processes import is_first
from ftcourse.train.sharded import shard_on_cpus_too
from ftcourse.train.trouble import StopWithoutLoss


def make_trainer(
    config: FinetuneConfig,
    model: PreTrainedModel,
    examples: Sequence[Example],
    folder: Path,
    callbacks: Sequence[TrainerCallback] = (),
    judges: Sequence[Example] | None = None,
) -> Trainer:
    """Return the transformers Trainer of a run, which writes its checkpoints into a folder.

    ``judges``: the examples whose mean loss judges each checkpoint, if there are any.
    """
    if config.loss == "chunked":
        causal = model if config.method == "full" else model.get_base_model()
        check_head(causal)
        use_chunked_loss(causal)
    if "8bit" in config.optimizer:
        models.forget_overrides()
    args = training_arguments(config, folder, detect(), judged=judges is not None)
    args._n_gpu = min(args.n_gpu, 1)  # one process drives one GPU, however many there are
    trainer = _TokenMeanTrainer(
        model=model,
        args=args,
        train_dataset=[vars(example) for example in examples],
        eval_dataset=judges and [vars(example) for example in judges],
        data_collator=pad_batch,
        callbacks=[*callbacks, StopWithoutLoss(), _ProgressBar()],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


class _TokenMeanTrainer(Trainer):
    """Judges by the mean loss of a token, as ``held_out_loss`` does, and not of a batch.

    transformers takes the mean of the batches' means, so that a token of a short answer counts
    more. Several processes share the last batches out so that each has as many; a record that is
    there twice for that reason moves the loss a little.
    """

    def create_accelerator_and_postprocess(self):
        """Make the Accelerator, which shards on CPUs, too."""
        shard_on_cpus_too()
        super().create_accelerator_and_postprocess()

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Divide a batch's sum of losses by what would be its tokens if all records were alike."""
        if not model.training:
            supervised = sum(_num_targets(row["labels"]) for row in self.eval_dataset)
            share = len(inputs["labels"]) / len(self.eval_dataset)
            num_items_in_batch = supervised * share * self.args.world_size
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)


def _num_targets(labels: Sequence[int]) -> int:
    return sum(label != IGNORED for label in labels[1:])  # the first token has none before it


def training_arguments(
    config: FinetuneConfig, folder: Path, card: Card, judged: bool = False
) -> TrainingArguments:
    """Return our config as the Trainer's arguments; ``judged`` if there are validation records."""
    dtype, steps = config.dtype_on(card), max(10, config.max_steps // 10)
    judging = {
        "eval_strategy": "steps",
        "eval_steps": steps,
        "per_device_eval_batch_size": config.batch_size,
        "load_best_model_at_end": True,
        "metric_for_best_model": "loss",
        "greater_is_better": False,
        "restore_callback_states_from_checkpoint": True,  # how long patience has waited
    }
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
        save_steps=steps,
        seed=config.seed,
        data_seed=config.seed,
        dataloader_pin_memory=card.device == "cuda",
        label_names=["labels"],
        remove_unused_columns=False,
        ddp_find_unused_parameters=False,  # every trained weight is used in every step
        report_to="none",
        disable_tqdm=True,
        **(judging if judged else {}),
    )


class _ProgressBar(TrainerCallback):
    """One line with the steps, the time left and the last loss; TQDM_DISABLE=1 hides it."""

    def on_train_begin(self, args, state, control, **_):
        steps = {"initial": state.global_step, "total": state.max_steps}
        self.bar = tqdm(**steps, desc="training", disable=bars_are_off() or not is_first())

    def on_log(self, args, state, control, logs, **_):
        if "loss" in logs:
            self.bar.set_postfix(loss=f"{float(logs['loss']):.2f}")

    def on_step_end(self, args, state, control, **_):
        self.bar.update()

    def on_train_end(self, args, state, control, **_):
        self.bar.close()
