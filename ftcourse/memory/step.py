"""One training step: what decides its bytes, in one object that the arithmetic passes around."""

from dataclasses import dataclass
from functools import cached_property

from ftcourse.config import FinetuneConfig, adapted_modules, check_attention
from ftcourse.errors import CourseError
from ftcourse.hardware import Card
from ftcourse.shape import ModelShape


@dataclass(frozen=True)
class Step:
    """A run's choices, a model's shape and a card, with the number formats that follow."""

    config: FinetuneConfig
    shape: ModelShape
    card: Card
    autocast: bool = True
    """Whether 16-bit products come from autocast, as the Trainer has it; a plain loop has none."""
    holds_logits: bool = False
    """Whether the loop keeps the model's output, logits and all, through the backward pass."""

    def __post_init__(self) -> None:
        """Refuse attention that cannot run, and a mixture on a card without the product for it."""
        check_attention(self.config, self.shape.attn_logit_softcapping > 0)
        capability = self.card.capability
        if self.shape.num_experts and capability and capability < (8, 0):
            raise CourseError(
                "A mixture's experts are multiplied at once on compute capability 8.0 or higher.",
                f"{self.shape.model_type} on {self.card.name}, {capability[0]}.{capability[1]}",
                "Choose a newer card, or a model without experts.",
            )

    @property
    def full(self) -> bool:
        """Whether all weights are trained."""
        return self.config.method == "full"

    @cached_property
    def bits(self) -> int:
        """The bits of a quantized base weight, 0 where the base is not quantized."""
        return self.config.bits if self.config.method == "qlora" else 0

    @cached_property
    def dtype(self) -> str:
        """The format of matrix products."""
        return self.config.dtype_on(self.card)

    @cached_property
    def weights_dtype(self) -> str:
        """The format of the weights that are not quantized.

        It is float32 after peft's casts, and in a full fine-tune in float16, because the gradients
        of float16 weights cannot be unscaled.
        """
        keeps_fp32 = self.config.upcast or (self.full and self.dtype == "float16")
        return "float32" if keeps_fp32 else self.dtype

    @cached_property
    def products(self) -> str | None:
        """The format to which autocast turns the inputs of products; None where there is none."""
        return self.dtype if self.autocast and self.dtype != "float32" else None

    @cached_property
    def adapted(self) -> list[str]:
        """Names of the linear modules that get an adapter."""
        return adapted_modules(self.config, self.shape.linears)
