"""Encoders: texts as vectors, near where they mean the same. The course ships a small one."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import normalize

from ftcourse.errors import CourseError, check_kind
from ftcourse.files import course_path, user_path
from ftcourse.models import libraries_quiet, load_tokenizer
from ftcourse.models.quiet import explained

BATCH = 256  # texts at once


class Encoder(nn.Module):
    """A bag of token vectors, weighed by attention, as few numbers.

    Each token has a vector. One more vector asks all of them how
    much they matter (attention pooling; Lin and others, 2017,
    with one head). The sum is projected to ``width`` numbers.
    The order of the words is lost.
    """

    def __init__(self, vocab_size: int, hidden_size: int, width: int):
        """Make an encoder with random weights."""
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, hidden_size)
        self.attention = nn.Linear(hidden_size, 1, bias=False)
        self.projection = nn.Linear(hidden_size, width, bias=False)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return rows of length 1. Shape (texts, width).

        ``ids`` and ``mask`` have the shape (texts, tokens); the
        mask is 0 where a text has ended.
        """
        vectors = self.tokens(ids)
        asked = self.attention(vectors).squeeze(-1)
        shares = asked.masked_fill(mask == 0, -1e9).softmax(-1)
        bag = (shares[..., None] * vectors).sum(-2)
        return normalize(self.projection(bag), dim=-1)


class Embedder:
    """Turns texts into vectors by an Encoder: ``embed(texts)``. Its name tells its weights."""

    def __init__(self, encoder: Encoder, tokenizer: Any, name: str):
        """Keep the encoder with the tokenizer that it was trained with."""
        self.encoder, self.tokenizer, self.name = encoder.eval(), tokenizer, name

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return a row of length 1 for each text. Shape (texts, width), float32."""
        width = self.encoder.projection.out_features
        rows = [np.empty((0, width), np.float32)]
        for start in range(0, len(texts), BATCH):
            batch = tokenize(self.tokenizer, texts[start : start + BATCH])
            rows.append(self.encoder(*batch).numpy())
        return np.concatenate(rows)

    def __repr__(self) -> str:
        """Return the name."""
        return f"<Embedder {self.name}>"


def tokenize(tokenizer: Any, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return the token ids of texts and their mask, each (texts, tokens of the longest)."""
    lists = tokenizer(list(texts), add_special_tokens=False).input_ids
    lists = [ids or [tokenizer.pad_token_id] for ids in lists]  # an empty text is one token
    longest = max(map(len, lists))
    ids = torch.tensor([row + [tokenizer.pad_token_id] * (longest - len(row)) for row in lists])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in lists])
    return ids, mask


def load_encoder(name: str | Path = "embedded") -> Any:
    """Return ``embed``: a function from a list of texts to an array with a row for each.

    ``name``: "embedded", the course's own small encoder; a folder that ``make_encoder`` wrote; or
    a model of sentence-transformers on the Hub, which needs the extra ``ftcourse[rag]``. The
    array is float32 with rows of length 1, and ``embed.name`` tells the weights.
    """
    check_kind("name", name, (str, Path), "'embedded'")
    folder = course_path("data/encoder") if name == "embedded" else user_path(name)
    if not (folder / "encoder.safetensors").is_file():
        return _SentenceTransformer(str(name))
    must = "An encoder is a folder with config.json and encoder.safetensors that fit."
    with explained(must, str(folder), "Copy the folder again, or train it again."):
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        sides = {key: config[key] for key in ("vocab_size", "hidden_size", "width")}
        encoder = Encoder(**sides)
        weights = load_file(folder / "encoder.safetensors")
        encoder.load_state_dict({key: value.float() for key, value in weights.items()})
    print_ = fingerprint(weights)
    return Embedder(encoder, load_tokenizer(config["tokenizer"]), f"{config['name']} {print_}")


def fingerprint(weights: dict[str, Tensor]) -> str:
    """Return a short hash of all weights."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12]


class _SentenceTransformer:
    """A model of sentence-transformers as ``embed``."""

    def __init__(self, name: str):
        """Load the model, from the Hub or from a folder."""
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            must = 'An encoder is "embedded", or the extra ftcourse[rag] is installed.'
            do = 'Use load_encoder("embedded"), or pip install "ftcourse[rag]".'
            raise CourseError(must, f"{name!r} without sentence-transformers", do) from error
        do = 'Check the name and the network, or use load_encoder("embedded").'
        with explained("The Hub or a folder has the encoder.", name, do), libraries_quiet():
            self.model = SentenceTransformer(name, trust_remote_code=False)
        self.name = f"{name} {fingerprint(self.model.state_dict())}"

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return a row of length 1 for each text. Shape (texts, width), float32."""
        rows = self.model.encode(
            list(texts), normalize_embeddings=True, show_progress_bar=False, batch_size=64
        )
        return np.asarray(rows, dtype=np.float32)
