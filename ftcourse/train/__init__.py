"""Fine-tuning on transformers.Trainer: a run saves checkpoints and resumes where it stopped."""

from ftcourse.train.build import make_trainer
from ftcourse.train.processes import is_first
from ftcourse.train.trainer import FinetuneResult, finetune, train

__all__ = ["FinetuneResult", "finetune", "is_first", "make_trainer", "train"]
