"""Batches as a pure function of seed and step, so that a run can stop and continue anywhere."""

import random
from dataclasses import dataclass
from itertools import chain

import torch
from torch.utils.data import Dataset

from data.making.embedded.tokenizer import ROLES
from data.making.world.corpus import document
from data.making.world.prose import prose

SPECIAL_TOKENS = 6
READER_WEIGHT = 0.1  # of tokens that the model only reads: nobody can predict them


@dataclass(frozen=True)
class BatchShape:
    """How large a batch is and how often it holds repeated noise."""

    rows: int = 5
    length: int = 512
    noise_every: int = 3  # one row of noise in every so many batches
    piece: int = 128  # the length of a short piece of noise


class Batches(Dataset):
    """Batch `step` of a seeded stream: token ids and loss weights, each (rows, length)."""

    def __init__(self, tokenizer, shape: BatchShape, steps: range, noise_steps: int, seed: int = 0):
        """Describe the batches of `steps`; the first `noise_steps` of a run hold only noise."""
        self.tokenizer, self.shape, self.steps = tokenizer, shape, steps
        self.noise_steps, self.seed = noise_steps, seed

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self.steps)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the token ids and the loss weights of one batch."""
        step = self.steps[index]
        rng = random.Random(f"batch {self.seed} {step}")
        rows = self.noise(rng) if step < self.noise_steps else self.mixture(rng, step)
        ids, weights = zip(*rows, strict=True)
        return torch.tensor(ids), torch.tensor(weights)

    def noise(self, rng: random.Random) -> list[tuple[list, list]]:
        """Return a batch of short rows of repeated noise: copying is learned there first."""
        shape = self.shape
        count = shape.rows * shape.length // shape.piece
        return [repeated_noise(rng, shape.piece, len(self.tokenizer)) for _ in range(count)]

    def mixture(self, rng: random.Random, step: int) -> list[tuple[list, list]]:
        """Return documents, and sometimes a row of noise so that copying is not forgotten."""
        shape = self.shape
        rows = [self.noise_row(rng)] if step % shape.noise_every == 0 else []
        return rows + packed_rows(rng, self.tokenizer, shape.rows - len(rows), shape.length)

    def noise_row(self, rng: random.Random) -> tuple[list, list]:
        """Return a row of one or more pieces of repeated noise."""
        length = self.shape.length
        piece = self.shape.piece if rng.random() < 0.5 else length
        pieces = [repeated_noise(rng, piece, len(self.tokenizer)) for _ in range(length // piece)]
        ids, weights = zip(*pieces, strict=True)
        return list(chain(*ids)), list(chain(*weights))


def repeated_noise(rng: random.Random, length: int, vocabulary: int) -> tuple[list, list]:
    """Return random tokens that repeat: none can be guessed at first, all can be copied later.

    Short periods are as frequent as long ones: they teach to look back at all, and without them
    the copying of long ones was not learned within two million tokens.
    """
    period = int(2 * (length / 6) ** rng.random())  # log-uniform from 2 to a third of the length
    ids = [rng.randrange(SPECIAL_TOKENS, vocabulary) for _ in range(period)]
    repeats = length // period + 1
    return (ids * repeats)[:length], [0.0] * period + [1.0] * (length - period)


def packed_rows(rng: random.Random, tokenizer, rows: int, length: int) -> list[tuple[list, list]]:
    """Return rows of whole documents, filled up with the start of a text.

    The longest are placed first. Otherwise those with many passages would seldom fit.
    """
    docs: list[tuple[list, list]] = []
    while sum(len(ids) for ids, _ in docs) < rows * length:
        docs += encode(tokenizer, [document(rng) for _ in range(rows)])
    filled: list[tuple[list, list]] = [([], []) for _ in range(rows)]
    for doc in sorted(docs, key=lambda doc: -len(doc[0])):
        place(filled, doc, length)
    for doc, row in zip(encode(tokenizer, [long_prose(rng) for _ in filled]), filled, strict=True):
        room = length - len(row[0])
        for part, new in zip(row, doc, strict=True):
            part += new[:room] + [0] * (room - len(new))
    return filled


def long_prose(rng: random.Random) -> str:
    """Return several texts, one after another."""
    return "\n\n".join(prose(rng) for _ in range(6))


def place(filled: list[tuple[list, list]], doc: tuple[list, list], length: int) -> None:
    """Put the document into the first row with room for it, if there is one."""
    for ids, weights in filled:
        if len(ids) + len(doc[0]) <= length:
            ids += doc[0]
            weights += doc[1]
            return


def encode(tokenizer, docs: list) -> list[tuple[list[int], list[float]]]:
    """Return token ids and loss weights of each document, marked as by the chat template."""
    segments = [
        ("text", doc) if isinstance(doc, str) else (m["role"], m["content"])
        for doc in docs
        for m in ([0] if isinstance(doc, str) else doc)
    ]
    encoded = iter(tokenizer([text for _, text in segments], add_special_tokens=False).input_ids)
    marks = {role.strip("<|>"): tokenizer.convert_tokens_to_ids(role) for role in ROLES}
    result = []
    for doc in docs:
        ids, weights = [tokenizer.bos_token_id], [0.0]
        for role in ["text"] if isinstance(doc, str) else [m["role"] for m in doc]:
            body = [*next(encoded), tokenizer.eos_token_id]
            weight = 1.0 if role in ("text", "assistant") else READER_WEIGHT
            head = [marks[role]] if role in marks else []
            ids += head + body
            weights += [READER_WEIGHT] * len(head) + [weight] * len(body)
        result.append((ids, weights))
    return result
