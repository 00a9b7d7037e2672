"""The shape of a model: the numbers of its config that decide its bytes.

Reading a shape needs neither torch nor transformers; only a Hub id needs the network.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ftcourse.errors import CourseError
from ftcourse.resources import course_path

_FAMILIES = ("llama", "mistral", "qwen2", "qwen3")


@dataclass(frozen=True)
class ModelShape:
    """The numbers of a decoder that decide its bytes, in the words of transformers' configs."""

    model_type: str
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    tie_word_embeddings: bool
    """Whether the output head reuses the embedding matrix, which then is stored once."""
    attention_bias: bool = False
    """Whether the projections of queries, keys and values have a bias (Qwen2 has)."""
    qk_norm: bool = False
    """Whether queries and keys are normalized per head (Qwen3 does)."""

    @classmethod
    def named(cls, name: str) -> "ModelShape":
        """Return one of the shapes that ship with the package, such as ``llama-3.1-8b``."""
        if name not in named_shapes():
            raise CourseError(
                "A shape's name is one of those that ship with ftcourse.",
                repr(name),
                "Use one of " + ", ".join(named_shapes()) + ".",
            )
        return cls.from_config(named_shapes()[name])

    @classmethod
    def from_config(cls, config: Any) -> "ModelShape":
        """Return the shape of a transformers config, given as an object or as its dictionary.

        Raises CourseError for a family whose layers this arithmetic does not know.
        """
        values = config if isinstance(config, dict) else config.to_dict()
        family = values.get("model_type")
        if family not in _FAMILIES:
            raise CourseError(
                "The arithmetic knows decoders of these families: " + ", ".join(_FAMILIES) + ".",
                f"model_type={family!r}",
                "Use a model of a known family.",
            )
        if missing := [name for name in _ALWAYS_THERE if name not in values]:
            raise CourseError(
                "A model's config says " + ", ".join(_ALWAYS_THERE) + ".",
                "a config without " + ", ".join(missing),
                "Use the config.json that came with the model.",
            )
        heads = values["num_attention_heads"]
        return cls(
            family,
            **{name: values[name] for name in _ALWAYS_THERE},
            num_key_value_heads=values.get("num_key_value_heads") or heads,
            head_dim=values.get("head_dim") or values["hidden_size"] // heads,
            tie_word_embeddings=bool(values.get("tie_word_embeddings")),
            attention_bias=family == "qwen2" or bool(values.get("attention_bias")),
            qk_norm=family == "qwen3",
        )

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """The linear modules of one layer: name to (inputs, outputs)."""
        hidden, middle = self.hidden_size, self.intermediate_size
        queries = self.num_attention_heads * self.head_dim
        keys = self.num_key_value_heads * self.head_dim
        return {
            "q_proj": (hidden, queries),
            "k_proj": (hidden, keys),
            "v_proj": (hidden, keys),
            "o_proj": (queries, hidden),
            "gate_proj": (hidden, middle),
            "up_proj": (hidden, middle),
            "down_proj": (middle, hidden),
        }


_ALWAYS_THERE = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "vocab_size",
)


@cache
def named_shapes() -> dict[str, dict[str, Any]]:
    """Return the shapes that ship with the package: name to a transformers config and a Hub id."""
    return json.loads((Path(__file__).parent / "shapes.json").read_text())


def load_shape(model: str) -> ModelShape:
    """Return the shape of a model: ``embedded``, a shape's name, a folder or a Hub id.

    Only ``config.json`` is read; for a Hub id it is downloaded unless it is in the local cache.
    """
    if model in named_shapes():
        return ModelShape.named(model)
    folder = course_path("data/model") if model == "embedded" else Path(model)
    path = folder / "config.json" if folder.is_dir() else download(model, "config.json")
    if not path.exists():
        raise CourseError(
            "A model folder in the Hub's format holds a config.json.",
            f"{folder} without one",
            "Point to the folder that from_pretrained would load.",
        )
    try:
        return ModelShape.from_config(json.loads(path.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CourseError(
            "A model's config.json is JSON.",
            f"{path}: {error}",
            "Copy the file again from where the model came from.",
        ) from error


def download(model: str, name: str) -> Path:
    """Return the local path of one file of a Hub repository. Raises CourseError if out of reach."""
    from huggingface_hub import hf_hub_download  # here: a named shape needs no network code

    try:
        return Path(hf_hub_download(model, name))
    except (OSError, ValueError) as error:  # no network, no such repository, not a Hub id
        raise model_not_found(model) from error


def model_not_found(model: str) -> CourseError:
    """Return the error for a model that is neither here nor within reach."""
    return CourseError(
        "A model is 'embedded', a shape's name, a folder, or a Hub id that can be reached.",
        f"{model!r}: no such folder here, and the Hub did not give it",
        "Check the spelling and the network, or use model='embedded', which needs neither.",
    )
