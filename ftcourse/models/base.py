"""The base model of a run: loaded whole, with random weights, or without any."""

import os
from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.utils import is_flash_attn_2_available

from ftcourse.config import FinetuneConfig, check_attention, check_dtype, check_run
from ftcourse.errors import CourseError
from ftcourse.files import user_path
from ftcourse.hardware import Card, detect
from ftcourse.models.folder import check_config, check_weights, locate
from ftcourse.models.quiet import explained, libraries_quiet, show_bars
from ftcourse.shape.hub import download, named_shapes

_NAMED = 3  # of the tensors that do not fit, so many are named


@libraries_quiet()
def load_base(config: FinetuneConfig, card: Card | None = None) -> PreTrainedModel:
    """Return the base model on the card, quantized if the method is ``qlora``.

    Raises CourseError if the model cannot be found, if a weight is missing or too many, or if its
    number format cannot train there.
    """
    check_run(config, card)
    card = card or detect()
    dtype = getattr(torch, weights_dtype(config, card))
    method, folder = quantization(config, dtype), user_path(config.model)
    if folder.is_dir():
        check_config(folder, quantizes=method is not None)
    shape = architecture(config.model)
    check_attention(config, bool(getattr(shape, "attn_logit_softcapping", None)))
    if config.attention == "flash_attention_2" and not is_flash_attn_2_available():
        raise CourseError(
            "Flash attention 2 needs a GPU and the package flash-attn.",
            f"attention='flash_attention_2' on {card.name}, where it is not installed",
            "Use attention='sdpa', which keeps as few bytes.",
        )
    place = locate(config.model)
    if Path(place).is_dir():
        check_weights(Path(place))
    else:
        download(place, "config.json")  # says in seconds if the Hub is out of reach
    must = "A model's weights fit each other, its config.json, and the attention of the run."
    with explained(must, config.model, "Copy the model again from where it came from."):
        if getattr(shape, "quantization_config", None) is None:
            _rehearse(place, config.attention)
        show_bars(config.model != "embedded")
        return AutoModelForCausalLM.from_pretrained(
            place,
            dtype=dtype,
            device_map={"": card.device},
            attn_implementation=config.attention,
            quantization_config=method,
            use_safetensors=True,
            trust_remote_code=False,
        )


@libraries_quiet()
def _rehearse(place: str, attention: str) -> None:
    """Refuse weights that are not exactly those of the model, before any of them is read.

    transformers would draw the missing ones at random, with a warning, and train on them. On the
    meta device, which holds no numbers, it only compares names and shapes.
    """
    _, report = AutoModelForCausalLM.from_pretrained(
        place,
        device_map={"": "meta"},
        attn_implementation=attention,
        use_safetensors=True,
        trust_remote_code=False,
        ignore_mismatched_sizes=True,  # so that they are in the report
        output_loading_info=True,
    )
    mismatched = [
        f"{name} {_sides(stored)} instead of {_sides(asked)}"
        for name, stored, asked in report["mismatched_keys"]
    ]
    kinds = {
        "missing": report["missing_keys"],
        "not the model's": report["unexpected_keys"],
        "of another shape": mismatched,
    }
    found = [f"{len(n)} {kind}: {_few(n)}" for kind, n in kinds.items() if n]
    if found:
        raise CourseError(
            "A model's files hold exactly the weights that its config.json asks for.",
            f"{place}: {'; '.join(found)}",
            "Copy the model again, with the config.json that belongs to it.",
        )


def _sides(shape: torch.Size) -> str:
    return " x ".join(map(str, shape))


def _few(names: set[str] | list[str]) -> str:
    shown = sorted(names)[:_NAMED]
    return ", ".join(shown) + ", ..." * (len(names) > len(shown))


def weights_dtype(config: FinetuneConfig, card: Card) -> str:
    """Return the number format in which the unquantized weights are stored.

    It is the format of the arithmetic, with one exception: a full fine-tune in float16 keeps
    float32 weights, because the gradients of float16 weights cannot be unscaled.
    """
    check_dtype(config, card)
    dtype = config.dtype_on(card)
    return "float32" if dtype == "float16" and config.method == "full" else dtype


def quantization(config: FinetuneConfig, dtype: torch.dtype) -> BitsAndBytesConfig | None:
    """Return how the base weights are quantized, or None if they are not.

    Every choice is explicit: bare ``load_in_4bit`` is FP4, 32-bit constants, float32 arithmetic.
    """
    if config.method != "qlora":
        return None
    if config.bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    sharded = os.environ.get("ACCELERATE_USE_FSDP") == "true"
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=config.quant_type,
        bnb_4bit_use_double_quant=config.double_quant,
        bnb_4bit_compute_dtype=dtype,
        **({"bnb_4bit_quant_storage": dtype} if sharded else {}),  # FSDP shards no integers
    )


def needs_random_weights(model: str) -> bool:
    """Whether a model has no weights here: it is a shape's name, or a folder with a config.json."""
    folder = user_path(model)
    return model in named_shapes() or (folder.is_dir() and not list(folder.glob("*.safetensors")))


@libraries_quiet()
def save_random_model(model: str, folder: str | Path) -> None:
    """Write a model with another one's shape and random weights, which take the same bytes."""
    config = architecture(model)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)


def architecture(model: str) -> PretrainedConfig:
    """Return transformers' config of a model; its weights may be missing."""
    if model in named_shapes():
        facts = dict(named_shapes()[model])
        return AutoConfig.for_model(facts.pop("model_type"), **facts)
    place = locate(model) if model == "embedded" else str(user_path(model))
    if not Path(place).is_dir():
        download(place, "config.json")
    must = "transformers can read a model's config.json."
    with explained(must, model, "Copy the file again from where the model came from."):
        return AutoConfig.from_pretrained(place, trust_remote_code=False)


def build_empty(config: FinetuneConfig, layers: int, dtype: torch.dtype) -> PreTrainedModel:
    """Return the model with this number of layers on the meta device, where it takes no memory."""
    shape = architecture(config.model)
    for name, value in list(vars(shape).items()):  # lists with one value per layer
        if isinstance(value, list) and len(value) == shape.num_hidden_layers:
            setattr(shape, name, (value * layers)[:layers])
    shape.num_hidden_layers = layers
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(
            shape, dtype=dtype, attn_implementation=config.attention
        )
