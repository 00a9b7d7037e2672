"""Loads models: the only file that uses the loading API of transformers and peft."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    Conv1D,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from ftcourse.config import FinetuneConfig, adapted_modules, check_attention
from ftcourse.errors import CourseError
from ftcourse.files import course_path
from ftcourse.hardware import Card, detect
from ftcourse.shape.hub import model_not_found, named_shapes


@contextmanager
def libraries_quiet() -> Iterator[None]:
    """Hide the libraries' warnings about coming changes; a learner cannot act on them."""
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        try:
            yield
        finally:
            transformers_logging.set_verbosity(verbosity)
            if bars:
                transformers_logging.enable_progress_bar()


def locate(model: str) -> str:
    """Return the folder or the Hub id that ``from_pretrained`` needs for a model's name.

    Raises CourseError for a folder without safetensors weights: pickled weights can run code when
    they are loaded, so they are refused.
    """
    if model == "embedded":
        return str(course_path("data/model"))
    if model in named_shapes():
        return named_shapes()[model]["hub_id"]
    folder = Path(model).expanduser()
    if not folder.is_dir():
        if model.startswith((".", "/", "~")):
            raise model_not_found(model)
        return model
    if not list(folder.glob("*.safetensors")):
        found = ", ".join(sorted(p.name for p in folder.iterdir())) or "an empty folder"
        raise CourseError(
            "Weights come as safetensors files; a pickle could run code while it loads.",
            f"{folder}: {found}",
            "Save the model again with save_pretrained(folder), which writes safetensors.",
        )
    return str(folder)


@libraries_quiet()
def load_tokenizer(model: str) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a model. Raises CourseError if it has no chat template."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(locate(model))
    except OSError as error:
        raise model_not_found(model) from error
    if tokenizer.chat_template is None:
        raise CourseError(
            "Fine-tuning on dialogues needs a tokenizer with a chat template.",
            f"{model!r} has none; it is probably a base model",
            "Use the instruct edition of the model.",
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


@libraries_quiet()
def load_base(config: FinetuneConfig, card: Card | None = None) -> PreTrainedModel:
    """Return the base model on the card, quantized if the method is ``qlora``.

    Raises CourseError if the model cannot be found, or its number format cannot train there.
    """
    card = card or detect()
    dtype = getattr(torch, weights_dtype(config, card))
    if config.model == "embedded":  # it loads at once, and a bar would say nothing
        transformers_logging.disable_progress_bar()
    try:
        capped = getattr(architecture(config.model), "attn_logit_softcapping", None)
        check_attention(config, bool(capped))
        return AutoModelForCausalLM.from_pretrained(
            locate(config.model),
            dtype=dtype,
            device_map={"": card.device},
            attn_implementation=config.attention,
            quantization_config=quantization(config, dtype),
            use_safetensors=True,
        )
    except OSError as error:
        raise model_not_found(config.model) from error


def weights_dtype(config: FinetuneConfig, card: Card) -> str:
    """Return the number format in which the unquantized weights are stored.

    It is the format of the arithmetic, with one exception: a full fine-tune in float16 keeps
    float32 weights, because the gradients of float16 weights cannot be unscaled.
    """
    dtype = config.dtype_on(card)
    if dtype == "float16" and card.device == "cpu":
        raise CourseError(
            "Training in float16 needs a GPU.",
            f"dtype='float16' on {card.name}",
            "Use dtype='float32' or 'bfloat16' here, or keep 'auto'.",
        )
    return "float32" if dtype == "float16" and config.method == "full" else dtype


def quantization(config: FinetuneConfig, dtype: torch.dtype) -> BitsAndBytesConfig | None:
    """Return how the base weights are quantized, or None if they are not.

    Every choice is explicit: bare ``load_in_4bit`` is FP4, 32-bit constants, float32 arithmetic.
    """
    if config.method != "qlora":
        return None
    if config.bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=config.quant_type,
        bnb_4bit_use_double_quant=config.double_quant,
        bnb_4bit_compute_dtype=dtype,
    )


def linear_modules(model: torch.nn.Module) -> dict[str, tuple[int, int]]:
    """Return the linear modules inside the layers: last part of the name to (inputs, outputs).

    The output head is left out, as in peft's ``all-linear``. Two modules of a layer whose names end
    in the same part, as GPT-2's two ``c_proj``, also get the part before.
    """
    head = model.get_output_embeddings()
    paths = {
        tuple(name.split(".")[-2:]): linear_sides(module)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not head
    }
    ends = [end for _, end in paths]
    return {
        end if ends.count(end) == 1 else f"{parent}.{end}": sides
        for (parent, end), sides in paths.items()
    }


def linear_sides(module: torch.nn.Linear | Conv1D) -> tuple[int, int]:
    """Return a module's inputs and outputs; GPT-2's Conv1D is a transposed linear module."""
    if isinstance(module, Conv1D):
        return tuple(module.weight.shape)
    return module.in_features, module.out_features


@libraries_quiet()
def attach_adapter(
    model: PreTrainedModel, config: FinetuneConfig, **options: Any
) -> PreTrainedModel | PeftModel:
    """Return the model ready to train: with a LoRA adapter, or as it is for a full fine-tune.

    ``options`` go to peft's ``get_peft_model``.
    """
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if config.method == "full":
        return model
    names = adapted_modules(config, linear_modules(model))
    if config.upcast:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    lora = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.lora_dropout,
        target_modules=names,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(model, lora, **options)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(getattr(torch, config.adapter_dtype))
    return model


@libraries_quiet()
def load_finetuned(config: FinetuneConfig, folder: str | Path) -> PreTrainedModel | PeftModel:
    """Return the model that a run with this config saved in a folder."""
    if config.method == "full":
        return load_base(replace(config, model=str(folder)))
    return PeftModel.from_pretrained(load_base(config), str(folder))


def forget_overrides() -> None:
    """Clear bitsandbytes' settings for earlier parameters, which it finds by their address."""
    from bitsandbytes.optim import GlobalOptimManager

    GlobalOptimManager.get_instance().initialize()


def needs_random_weights(model: str) -> bool:
    """Whether a model has no weights here: it is a shape's name, or a folder with a config.json."""
    folder = Path(model).expanduser()
    return model in named_shapes() or (folder.is_dir() and not list(folder.glob("*.safetensors")))


def save_random_model(model: str, folder: str | Path) -> None:
    """Write a model with another one's shape and random weights, which take the same bytes."""
    config = architecture(model)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)


def architecture(model: str) -> PretrainedConfig:
    """Return transformers' config of a model; its weights may be missing."""
    if model in named_shapes():
        facts = dict(named_shapes()[model])
        return AutoConfig.for_model(facts.pop("model_type"), **facts)
    return AutoConfig.from_pretrained(locate(model) if model == "embedded" else model)


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
