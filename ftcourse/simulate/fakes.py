"""A model of fake tensors: every shape is right, and there is nothing in it.

It is built on the meta device, where numbers take no memory, adapted and quantized there, and then
given fake tensors that count as the CPU's.
"""

from collections.abc import Callable
from dataclasses import replace
from math import ceil

import bitsandbytes
import torch
from bitsandbytes.functional import QuantState
from torch import Tensor, nn
from transformers import Conv1D, PreTrainedModel

from ftcourse.config import FinetuneConfig
from ftcourse.loss import use_chunked_loss
from ftcourse.memory.step import Step
from ftcourse.models import attach_adapter, build_empty, linear_sides


def build_model(step: Step, layers: int) -> PreTrainedModel:
    """Return the model with its adapter on the meta device, to be given fake tensors later."""
    config, dtype = as_traced(step.config), product_dtype(step)
    weights = torch.float32 if step.full and step.weights_dtype == "float32" else dtype
    model = build_empty(config, layers, weights)
    if config.method == "qlora":
        _quantize(model, config, dtype)
    model = attach_adapter(model, config, low_cpu_mem_usage=True)
    if config.loss == "chunked":
        use_chunked_loss(model if step.full else model.get_base_model())
    model.config.use_cache = False
    return model.train()


def as_traced(config: FinetuneConfig) -> FinetuneConfig:
    """Return a config with PyTorch's own flash kernel for flash attention: it keeps the same."""
    flash = config.attention == "flash_attention_2"
    return replace(config, attention="sdpa") if flash else config


def product_dtype(step: Step) -> torch.dtype:
    """Return the format of the products; bfloat16 stands for float16, which has as many bytes."""
    return torch.float32 if step.dtype == "float32" else torch.bfloat16


def _quantize(model: PreTrainedModel, config: FinetuneConfig, dtype: torch.dtype) -> None:
    """Replace the linear modules, but for the head, by bitsandbytes' own."""
    head = model.get_output_embeddings()
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear | Conv1D) and module is not head:
            eight = config.bits == 8
            new = _empty_linear8bit(module) if eight else _empty_linear4bit(module, config, dtype)
            new.bias = module.bias  # in the model's format
            model.set_submodule(name, new)
    setattr(model, f"is_loaded_in_{config.bits}bit", True)  # by this peft knows


def _empty_linear8bit(old: nn.Linear | Conv1D) -> bitsandbytes.nn.Linear8bitLt:
    """Return an 8-bit module with the storage that bitsandbytes would give it, and no content.

    It has no threshold for outliers, because how many inputs pass it depends on their content; they
    are few (LLM.int8 paper, section 3.2).
    """
    inputs, outputs = linear_sides(old)
    with torch.device("meta"):
        bias = old.bias is not None
        new = bitsandbytes.nn.Linear8bitLt(inputs, outputs, bias, has_fp16_weights=False)
        new.weight = nn.Parameter(torch.empty((outputs, inputs), dtype=torch.int8), False)
        new.weight.CB, new.state.SCB = None, torch.empty(outputs)
    return new


def _empty_linear4bit(
    old: nn.Linear | Conv1D, config: FinetuneConfig, dtype: torch.dtype
) -> bitsandbytes.nn.Linear4bit:
    """Return a 4-bit module with the storage that bitsandbytes would give it, and no content."""
    inputs, outputs = linear_sides(old)
    blocks = ceil(inputs * outputs / 64)
    with torch.device("meta"):
        kind = {"compress_statistics": config.double_quant, "quant_type": config.quant_type}
        new = bitsandbytes.nn.Linear4bit(inputs, outputs, old.bias is not None, dtype, **kind)
        facts = {"shape": torch.Size((outputs, inputs)), "code": torch.empty(16), "blocksize": 64}
        facts |= {"quant_type": config.quant_type, "dtype": dtype, "absmax": torch.empty(blocks)}
        if config.double_quant:
            inner = {"absmax": torch.empty(ceil(blocks / 256)), "code": torch.empty(256)}
            facts["state2"] = QuantState(**inner, blocksize=256, dtype=torch.float32)
            facts |= {"offset": torch.empty(()), "absmax": torch.empty(blocks, dtype=torch.uint8)}
        packed = torch.empty((ceil(inputs * outputs / 2), 1), dtype=torch.uint8)
    new.weight, new.quant_state = nn.Parameter(packed, False), QuantState(**facts)
    vars(new.weight).update(kind, quant_state=new.quant_state)
    new.compute_type_is_set = True
    return new


def materialize(model: nn.Module) -> None:
    """Give each empty parameter and buffer a tensor on the CPU; tied ones share it.

    Call it under a FakeTensorMode, or it takes all the memory that it stands for.
    """
    known: dict[int, Tensor] = {}

    def fake(old: Tensor) -> Tensor:
        if id(old) not in known:
            new = torch.empty(old.shape, dtype=old.dtype)
            if isinstance(old, nn.Parameter):
                new = nn.Parameter(new, old.requires_grad)
                vars(new).update(vars(old))
                _fill_constants(getattr(old, "quant_state", None), fake)
            known[id(old)] = new
        return known[id(old)]

    for module in model.modules():
        for held in (module._parameters, module._buffers):
            held.update({name: fake(old) for name, old in held.items() if old is not None})
        if isinstance(module, bitsandbytes.nn.Linear8bitLt):
            module.state.CB, module.state.SCB = module.weight.data, fake(module.state.SCB)


def _fill_constants(state: QuantState | None, fake: Callable[[Tensor], Tensor]) -> None:
    for constants in (state, getattr(state, "state2", None)):
        for name, value in list(vars(constants).items()) if constants else []:
            if torch.is_tensor(value):
                setattr(constants, name, fake(value))


def build_optimizer(model: nn.Module, config: FinetuneConfig, device: str) -> torch.optim.Optimizer:
    """Return the optimizer of a run, made as the Trainer makes it on a device of that type."""
    trained = [p for p in model.parameters() if p.requires_grad]
    if config.optimizer == "adafactor":
        from transformers.optimization import Adafactor

        return Adafactor(trained, lr=1e-3, scale_parameter=False, relative_step=False)
    if config.optimizer == "sgd":
        return torch.optim.SGD(trained, lr=1e-3)
    if config.optimizer in ("adamw_8bit", "paged_adamw_8bit", "paged_adamw_32bit"):
        bits = 32 if "32" in config.optimizer else 8
        optimizer = bitsandbytes.optim.AdamW(trained, optim_bits=bits)
        optimizer.mng.initialize()  # it is one for all optimizers, and knows parameters by their id
        tables = [each.weight for each in model.modules() if isinstance(each, nn.Embedding)]
        optimizer.mng.override_config(tables, "optim_bits", 32)  # as the Trainer does
        return optimizer
    fused = config.optimizer == "adamw_torch_fused"
    foreach = device == "cuda" and not fused  # as torch chooses for a GPU
    return torch.optim.AdamW(trained, fused=fused, foreach=foreach)
