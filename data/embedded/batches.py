"""Batches as a pure function of seed and step, so that a run can stop and go on anywhere."""

import random
from dataclasses import dataclass
from itertools import chain

import torch
from torch.utils.data import Dataset
from world.corpus import document
from world.prose import prose

from embedded.vocabulary import ROLES

SPECIAL_TOKENS = 6
READER_WEIGHT = (
    0.3  # of tokens that the model reads and need not say: names and numbers out of the blue
)


@dataclass(frozen=True)
class BatchShape:
    """How large a batch is and how much of it is repeated noise."""

    rows: int = 16
    length: int = 384
    noise_rows: int = 2
    piece: int = 128  # the length of a short piece of noise


class Batches(Dataset):
    """Batch `step` of a seeded stream: token ids and loss weights, each (rows, length)."""

    def __init__(self, tokenizer, shape: BatchShape, steps: range, noise_steps: int, seed: int = 0):
        self.tokenizer, self.shape, self.steps = tokenizer, shape, steps
        self.noise_steps, self.seed = noise_steps, seed

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        step = self.steps[index]
        rng = random.Random(f"batch {self.seed} {step}")
        rows = self.noise(rng) if step < self.noise_steps else self.mixture(rng)
        ids, weights = zip(*rows, strict=True)
        return torch.tensor(ids), torch.tensor(weights)

    def noise(self, rng: random.Random) -> list[tuple[list, list]]:
        """As many tokens of noise as a batch has, in short rows: copying is learned there first."""
        shape = self.shape
        count = shape.rows * shape.length // shape.piece
        return [repeated_noise(rng, shape.piece, len(self.tokenizer)) for _ in range(count)]

    def mixture(self, rng: random.Random) -> list[tuple[list, list]]:
        """Documents, and some rows of noise so that copying is not forgotten."""
        shape = self.shape
        piece = shape.piece if rng.random() < 0.5 else shape.length
        rows = [
            noise_row(rng, shape.length, piece, len(self.tokenizer))
            for _ in range(shape.noise_rows)
        ]
        return rows + packed_rows(rng, self.tokenizer, shape.rows - len(rows), shape.length)


def noise_row(rng: random.Random, length: int, piece: int, vocabulary: int) -> tuple[list, list]:
    """A row of one or more pieces of repeated noise."""
    pieces = [repeated_noise(rng, piece, vocabulary) for _ in range(length // piece)]
    ids, weights = zip(*pieces, strict=True)
    return list(chain(*ids)), list(chain(*weights))


def repeated_noise(rng: random.Random, length: int, vocabulary: int) -> tuple[list, list]:
    """Random tokens, said again and again: nothing can be guessed, all can be copied.

    Short periods are as frequent as long ones: they teach to look back at all, and without them
    the copying of long ones was not learned within two million tokens.
    """
    period = int(2 * (length / 6) ** rng.random())  # log-uniform from 2 to a third of the length
    ids = [rng.randrange(SPECIAL_TOKENS, vocabulary) for _ in range(period)]
    repeats = length // period + 1
    return (ids * repeats)[:length], [0.0] * period + [1.0] * (length - period)


def packed_rows(rng: random.Random, tokenizer, rows: int, length: int) -> list[tuple[list, list]]:
    """Rows full of whole documents; what is left of a row is filled with the start of a text."""
    filled: list[tuple[list, list]] = [([], []) for _ in range(rows)]
    misses = 0
    while misses < 8:
        for doc in encode(tokenizer, [document(rng) for _ in range(2 * rows)]):
            misses += not placed(filled, doc, length)
    for doc, row in zip(encode(tokenizer, [long_prose(rng) for _ in filled]), filled, strict=True):
        room = length - len(row[0])
        for part, new in zip(row, doc, strict=True):
            part += new[:room] + [0] * (room - len(new))
    return filled


def long_prose(rng: random.Random) -> str:
    """Several texts in a row."""
    return "\n\n".join(prose(rng) for _ in range(6))


def placed(filled: list[tuple[list, list]], doc: tuple[list, list], length: int) -> bool:
    """Whether the document found a row with room for it."""
    for ids, weights in filled:
        if len(ids) + len(doc[0]) <= length:
            ids += doc[0]
            weights += doc[1]
            return True
    return False


def encode(tokenizer, docs: list) -> list[tuple[list[int], list[float]]]:
    """Token ids and loss weights of each document, marked as the chat template marks them."""
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
