"""Training: a question is near to its own passage and far from those of its batch (InfoNCE)."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from data.making.encoder.pairs import Asks, all_asks, batch
from ftcourse.config import FinetuneConfig
from ftcourse.models import load_base, load_tokenizer
from ftcourse.retrieval.encoder import Encoder, tokenize


@dataclass(frozen=True)
class Recipe:
    """Everything besides the data that decides the result."""

    width: int = 64
    steps: int = 1_500
    learning_rate: float = 3e-3
    temperature: float = 0.05
    seed: int = 0


def new_encoder(recipe: Recipe) -> Encoder:
    """Return an encoder that begins with the embedded model's token vectors, centred."""
    torch.manual_seed(recipe.seed)
    model = load_base(FinetuneConfig(model="embedded", method="full", dtype="float32"))
    tokens = model.get_input_embeddings().weight.detach().cpu()
    encoder = Encoder(*tokens.shape, recipe.width)
    encoder.tokens.weight.data.copy_((tokens - tokens.mean(0)) / tokens.std())
    return encoder


def train(recipe: Recipe, checkpoint: Path, asks: Asks = all_asks, every: int = 250) -> Encoder:
    """Return a trained encoder; a killed run continues from its checkpoint, one each ``every``."""
    encoder, tokenizer, first = new_encoder(recipe), load_tokenizer("embedded"), 0
    optimizer = torch.optim.AdamW(encoder.parameters(), recipe.learning_rate, weight_decay=0.01)
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        encoder.load_state_dict(state["encoder"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    for step in tqdm(range(first, recipe.steps), checkpoint.stem, initial=first, delay=2):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * min(1.0, step / 50) * (1 - step / recipe.steps)
        questions, passages = zip(*batch(recipe.seed, step, asks), strict=True)
        asked = encoder(*tokenize(tokenizer, questions))
        told = encoder(*tokenize(tokenizer, passages))
        scores = asked @ told.T / recipe.temperature
        loss = cross_entropy(scores, torch.arange(len(scores)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % every == 0 or step + 1 == recipe.steps:
            save(checkpoint, encoder, optimizer, step + 1)
    return encoder.eval()


def save(path: Path, encoder: Encoder, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Write the checkpoint completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {"encoder": encoder.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
    torch.save(state, path.with_suffix(".new"))
    os.replace(path.with_suffix(".new"), path)
