"""A training loop, short enough to read: what a Trainer does in each step."""

from collections.abc import Sequence
from dataclasses import asdict

import torch
from torch import Tensor, nn
from transformers import get_linear_schedule_with_warmup

from ftcourse.chat import Example, show_progress
from ftcourse.data import pad_batch

Batch = dict[str, Tensor]


def draw_batches(
    examples: Sequence[Example], batch_size: int, steps: int, seed: int = 0
) -> list[Batch]:
    """Return one batch for each step; every example is drawn once before any is drawn again."""
    generator = torch.Generator().manual_seed(seed)
    rounds = -(-steps * batch_size // len(examples))
    order = [
        number
        for _ in range(rounds)
        for number in torch.randperm(len(examples), generator=generator)
    ]
    starts = range(0, steps * batch_size, batch_size)
    chosen = [[asdict(examples[i]) for i in order[start : start + batch_size]] for start in starts]
    return [pad_batch(each) for each in chosen]


def train_on(model: nn.Module, batches: Sequence[Batch], learning_rate: float) -> list[float]:
    """Train what is not frozen, one step for each batch; return the loss of every step.

    AdamW without weight decay, gradients clipped to a norm of 1, a rate that rises over the first
    twentieth of the steps and then falls to zero in a line. Twin: transformers.Trainer.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=0)
    warmup = -(-len(batches) // 20)
    schedule = get_linear_schedule_with_warmup(optimizer, warmup, len(batches))
    device, losses = trained[0].device, []
    model.train()
    for batch in show_progress(batches, "training"):
        loss = model(**{name: rows.to(device) for name, rows in batch.items()}).loss
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses
