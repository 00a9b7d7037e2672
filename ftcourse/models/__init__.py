"""Loads models: the only room that uses the loading API of transformers and peft."""

from ftcourse.models.adapter import (
    attach_adapter,
    forget_overrides,
    linear_modules,
    linear_sides,
    load_finetuned,
)
from ftcourse.models.base import (
    architecture,
    build_empty,
    load_base,
    needs_random_weights,
    quantization,
    save_random_model,
    weights_dtype,
)
from ftcourse.models.folder import locate, weights_fingerprint
from ftcourse.models.merge import load_adapters, merge_adapter
from ftcourse.models.quiet import libraries_quiet
from ftcourse.models.tokenizer import load_tokenizer

__all__ = [
    "architecture",
    "attach_adapter",
    "build_empty",
    "forget_overrides",
    "libraries_quiet",
    "linear_modules",
    "linear_sides",
    "load_adapters",
    "load_base",
    "load_finetuned",
    "load_tokenizer",
    "locate",
    "merge_adapter",
    "needs_random_weights",
    "quantization",
    "save_random_model",
    "weights_dtype",
    "weights_fingerprint",
]
