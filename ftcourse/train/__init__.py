"""Fine-tuning on transformers.Trainer: a run saves checkpoints and resumes where it stopped."""

from ftcourse.train.trainer import FinetuneResult, finetune, make_trainer, train

__all__ = ["FinetuneResult", "finetune", "make_trainer", "train"]
