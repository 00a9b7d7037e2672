"""The choices of a fine-tuning run, frozen and checked when they are made, without torch."""

import ast
import inspect
import warnings
from collections.abc import Sequence
from dataclasses import FrozenInstanceError, dataclass, fields
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ftcourse.errors import CourseError, check_kind
from ftcourse.hardware import Card, choose_dtype

LOSS_CHUNK = 256
"""Tokens whose logits exist together where ``loss="chunked"``."""


@dataclass(frozen=True)
class FinetuneConfig:
    """All the choices of one fine-tuning run. Bad values raise CourseError at once."""

    model: str = "embedded"
    """``embedded``, a shape's name, a folder in the Hub's format, or a Hub id."""
    method: Literal["full", "lora", "qlora"] = "qlora"
    """What is trained: all weights, an adapter, or an adapter on a quantized model."""
    rank: int = 16
    """Inner width of the adapter's two matrices (``r`` in the LoRA paper, section 4.1)."""
    alpha: float = 32
    """The adapter's output is multiplied by alpha / rank (LoRA paper, section 4.1)."""
    target_modules: str | Sequence[str] = "all-linear"
    """Which linear modules get an adapter: ``all-linear``, or names such as ``q_proj``."""
    lora_dropout: float = 0.0
    """Share of the adapter's inputs that is zeroed in training."""
    bits: Literal[4, 8] = 4
    """Bits of a stored base weight in ``qlora``."""
    quant_type: Literal["nf4", "fp4"] = "nf4"
    """The sixteen levels of a 4-bit weight (QLoRA paper, section 3)."""
    double_quant: bool = True
    """Whether the block constants of a 4-bit weight are quantized too (QLoRA paper, section 3)."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Number format of the unquantized weights and of the arithmetic; ``auto`` asks the card."""
    adapter_dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Number format of the adapter, and so of its gradients and optimizer states."""
    upcast: bool = False
    """Whether norms, embeddings and head go to fp32 (``prepare_model_for_kbit_training``)."""
    optimizer: Literal[
        "adamw_torch_fused",
        "adamw_torch",
        "adamw_8bit",
        "paged_adamw_32bit",
        "paged_adamw_8bit",
        "adafactor",
        "sgd",
    ] = "adamw_torch_fused"
    """One of transformers' own optimizer names, of those whose bytes we can count."""
    batch_size: int = 4
    """Sequences in one forward pass."""
    gradient_accumulation_steps: int = 1
    """Forward passes whose gradients are summed before the optimizer steps."""
    max_length: int = 512
    """Longest sequence in tokens; longer ones are cut."""
    gradient_checkpointing: bool = True
    """Keep only each layer's input and compute the rest again in the backward pass."""
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """Which attention code runs, as transformers names it."""
    loss: Literal["full", "chunked"] = "full"
    """``chunked`` computes logits and loss piece by piece and never holds all logits at once."""
    learning_rate: float = 2e-4
    max_steps: int = 100
    """Optimizer steps."""
    seed: int = 0

    def __new__(cls, *values: Any, **named: Any) -> "FinetuneConfig":
        """Refuse a name that is no field; Python's own error would not say which there are."""
        known = [field.name for field in fields(cls)]
        if unknown := [name for name in named if name not in known]:
            near = get_close_matches(unknown[0], known, 1)
            raise CourseError(
                "A config has the fields " + ", ".join(known) + ".",
                f"{unknown[0]}={named[unknown[0]]!r}",
                f"Do you mean {near[0]}?" if near else "Leave it out.",
            )
        return super().__new__(cls)

    def __post_init__(self) -> None:
        """Refuse values that cannot work, each with what to do."""
        for field in fields(self):
            object.__setattr__(self, field.name, _as_plain(getattr(self, field.name)))
        self._check_choices()
        self._check_values()
        if self.upcast and self.method != "qlora":
            raise CourseError(
                "upcast goes with method='qlora'; peft's casts would turn any other base to fp32.",
                f"upcast=True with method={self.method!r}",
                "Leave upcast out, or use dtype='float32'.",
            )

    def _check_choices(self) -> None:
        hints = get_type_hints(type(self))
        for field in fields(self):
            hint, value = hints[field.name], getattr(self, field.name)
            choices = (True, False) if hint is bool else get_args(hint)
            alike = [choice for choice in choices if type(choice) is type(value)]
            if (hint is bool or get_origin(hint) is Literal) and value not in alike:
                raise CourseError(
                    f"{field.name} is one of {', '.join(map(repr, choices))}.",
                    f"{field.name}={value!r}"[:200],
                    f"Leave it out for the default, {field.default!r}.",
                )

    def _check_values(self) -> None:
        for name, (rule, keeps) in _RULES.items():
            value, default = getattr(self, name), getattr(type(self), name)
            if not keeps(value):
                do, got = f"The default is {default!r}.", f"{name}={value!r}"
                raise CourseError(f"{name} {rule}.", got[:200], do)

    def dtype_on(self, card: Card) -> str:
        """Return the number format that this run uses on a card."""
        return choose_dtype(card).dtype if self.dtype == "auto" else self.dtype


def _as_plain(value: Any) -> Any:
    """Return a number of numpy or torch as Python's own, a path as text, a list as a tuple."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    return tuple(value) if isinstance(value, list) else value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: Any, lowest: int, highest: int) -> bool:
    return isinstance(value, int) and value is not True and lowest <= value <= highest


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and "\0" not in value


_MOST = 2**31 - 1
_WHOLE = f"is a whole number from 1 to {_MOST}", lambda n: _is_whole(n, 1, _MOST)
_POSITIVE = "is a number above 0, up to 1e9", lambda x: _is_number(x) and 0 < x <= 1e9
_NAMES = (
    "names at least one module, or is 'all-linear'",
    lambda x: all(map(_is_name, x)) and bool(x) if isinstance(x, tuple) else _is_name(x),
)
_SHARE = "is at least 0 and below 1", lambda x: _is_number(x) and 0 <= x < 1
_SEED = "is a whole number from 0 to 2**32 - 1", lambda n: _is_whole(n, 0, 2**32 - 1)
_MODEL = "is a name, a folder or a Hub id", _is_name
_RULES = {"model": _MODEL, "rank": _WHOLE, "alpha": _POSITIVE}
_RULES |= {"target_modules": _NAMES, "lora_dropout": _SHARE}
_RULES |= dict.fromkeys(("batch_size", "gradient_accumulation_steps", "max_length"), _WHOLE)
_RULES |= {"learning_rate": _POSITIVE, "max_steps": _WHOLE, "seed": _SEED}


class FrozenConfigError(CourseError, FrozenInstanceError):
    """A field of a config was to be set."""


def _refuse_to_set(config: FinetuneConfig, name: str, value: Any) -> None:
    raise FrozenConfigError(
        "A config never changes, so that what we know of it stays true.",
        f"{name} = {value!r}",
        f"Make a new one, with replace from dataclasses: replace(config, {name}={value!r}).",
    )


FinetuneConfig.__setattr__ = _refuse_to_set  # dataclasses' own error says only that it cannot be


def field_docs(cls: type) -> dict[str, str]:
    """Return the strings below the fields of a class, which Python itself does not keep."""
    body = ast.parse(inspect.getsource(cls)).body[0].body
    return {
        field.target.id: inspect.cleandoc(below.value.value).replace("``", "")
        for field, below in pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
    }


def adapted_modules(config: FinetuneConfig, modules: dict[str, tuple[int, int]]) -> list[str]:
    """Return the names of the linear modules that get an adapter; empty for a full fine-tune.

    ``modules`` maps each name that exists to (inputs, outputs). A name may be the end of several,
    as peft has it: GPT-2's ``c_proj`` is attention's and the MLP's. Raises CourseError for a name
    that is not there, and warns if the rank is above a module's width.
    """
    if config.method == "full":
        return []
    wanted = config.target_modules
    if isinstance(wanted, str):
        wanted = list(modules) if wanted == "all-linear" else [wanted]
    found = {name: [m for m in modules if f".{m}".endswith(f".{name}")] for name in wanted}
    if unknown := [name for name in wanted if not found[name]]:
        raise CourseError(
            "target_modules names linear modules of the model, or says 'all-linear'.",
            "unknown: " + ", ".join(unknown),
            "This model has " + ", ".join(modules) + ".",
        )
    chosen = list(dict.fromkeys(module for names in found.values() for module in names))
    width, name = min((min(modules[name]), name) for name in chosen)
    if config.rank > width:
        warnings.warn(
            f"rank {config.rank} is above the width of {name} ({width}): the product "
            "of the two matrices cannot have a higher rank than that, so the rest is wasted.",
            stacklevel=2,
        )
    return chosen


def check_run(config: FinetuneConfig, card: Card | None = None) -> None:
    """Refuse what is no config, or no card."""
    check_kind("config", config, FinetuneConfig, "FinetuneConfig(model='embedded')")
    check_kind("card", card, Card | None, "CARDS['T4'], or None for this machine")


def check_attention(config: FinetuneConfig, capped: bool) -> None:
    """Refuse PyTorch's own attention for a model that caps its scores, as transformers does."""
    if capped and config.attention == "sdpa":
        raise CourseError(
            "A model that caps attention's scores (Gemma 2) needs attention that can cap them.",
            "attention='sdpa'",
            "Use attention='eager', or 'flash_attention_2' where it is installed.",
        )


def check_dtype(config: FinetuneConfig, card: Card) -> None:
    """Refuse float16 on a CPU, where the gradients cannot be scaled."""
    if config.dtype == "float16" and card.device == "cpu":
        do = "Use dtype='float32' or 'bfloat16' here, or keep 'auto'."
        raise CourseError("Training in float16 needs a GPU.", f"dtype='float16' on {card.name}", do)


def check_training(config: FinetuneConfig, card: Card) -> None:
    """Refuse a 16-bit adapter in a float16 run, after what check_run refuses."""
    check_run(config, card)
    narrow = config.method != "full" and config.adapter_dtype != "float32"
    if narrow and config.dtype_on(card) == "float16":
        must = "A run in float16 trains an adapter in float32: torch unscales no other gradients."
        raise CourseError(must, f"adapter_dtype={config.adapter_dtype!r}", "Leave it out.")
