"""An adapter beside the base model, and how a tuned model is loaded again."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from transformers import Conv1D, PreTrainedModel

from ftcourse.config import FinetuneConfig, adapted_modules
from ftcourse.models.base import load_base
from ftcourse.models.quiet import explained, libraries_quiet


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
    base = load_base(config)
    must = "A finished run's folder holds the adapter that it trained."
    with explained(must, str(folder), "Train again in another folder; the files are damaged."):
        return PeftModel.from_pretrained(base, str(folder))


def forget_overrides() -> None:
    """Clear bitsandbytes' settings for earlier parameters, which it finds by their address."""
    from bitsandbytes.optim import GlobalOptimManager

    GlobalOptimManager.get_instance().initialize()
