"""One training step: what decides its bytes, in one object that the arithmetic passes around."""

from dataclasses import dataclass

from ftcourse.config import FinetuneConfig, adapted_modules, check_attention
from ftcourse.errors import CourseError
from ftcourse.hardware import Card
from ftcourse.shape import ModelShape

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class Step:
    """A run's choices, a model's shape and a card, with the widths in bytes that follow."""

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
    def tokens(self) -> int:
        """Tokens in one forward pass."""
        return self.config.batch_size * self.config.max_length

    @property
    def full(self) -> bool:
        """Whether all weights are trained."""
        return self.config.method == "full"

    @property
    def int8(self) -> bool:
        """Whether the base weights have 8 bits, and so LLM.int8's products."""
        return self.config.method == "qlora" and self.config.bits == 8

    @property
    def adapted(self) -> list[str]:
        """Names of the linear modules that get an adapter."""
        return adapted_modules(self.config, self.shape.linears)

    @property
    def width(self) -> int:
        """Bytes of a number in matrix products."""
        return BYTES[self.config.dtype_on(self.card)]

    @property
    def keeps_fp32(self) -> bool:
        """Whether weights outside the products are fp32 while the products have 16 bits.

        So it is after peft's casts, and in a full fine-tune in float16, whose weights stay fp32
        because the gradients of float16 weights cannot be unscaled.
        """
        fp16 = self.config.dtype_on(self.card) == "float16"
        return self.width == 2 and (self.config.upcast or (self.full and fp16))

    @property
    def weights_width(self) -> int:
        """Bytes of a number of the weights outside the products."""
        return 4 if self.keeps_fp32 else self.width

    @property
    def stream(self) -> int:
        """Bytes of a number of the hidden state on its way from layer to layer.

        A 4-bit layer gives its result in the format of its input; LayerNorm's may be fp32.
        """
        normed = self.widens and self.shape.family.norm == "layer"
        return 4 if normed and self.config.method == "qlora" else self.weights_width

    @property
    def linear_width(self) -> int:
        """Bytes of a number that a linear module gives.

        bitsandbytes' layers give their result in the format of their input, but on a CPU those of 8
        bits leave it to autocast.
        """
        autocast = self.config.method != "qlora" or (self.int8 and self.card.device == "cpu")
        return self.width if autocast else self.stream

    @property
    def widens(self) -> bool:
        """Whether autocast computes some operations in fp32 and leaves their results there.

        A GPU's does so for LayerNorm and for powers (torch, "Autocast Op Reference").
        """
        return self.autocast and self.width == 2 and self.card.device == "cuda"

    @property
    def attention_width(self) -> int:
        """Bytes of a number in attention: without autocast, as many as in the hidden state."""
        return self.width if self.autocast else self.stream

    @property
    def adapter_width(self) -> int:
        """Bytes of a number in the adapter's products."""
        return self.width if self.autocast else BYTES[self.config.adapter_dtype]

    @property
    def trained_width(self) -> int:
        """Bytes of one trained number, and so of its gradient."""
        return self.weights_width if self.full else BYTES[self.config.adapter_dtype]

    @property
    def drops_inputs(self) -> bool:
        """Whether each adapter zeroes some of its inputs at random, which needs a copy."""
        return self.config.lora_dropout > 0 and not self.full

    @property
    def copies_inputs(self) -> bool:
        """Whether each adapter, or each trained module, makes its own copy of its input."""
        return self.drops_inputs or self.casts_inputs

    @property
    def casts_inputs(self) -> bool:
        """Whether each adapter, or each trained module, casts its input to another format.

        peft casts the input to the adapter's format, and autocast casts it back. Its 4-bit layers
        skip the first cast under autocast, but see only the autocast of a GPU.
        """
        if not self.autocast:
            return not self.full and BYTES[self.config.adapter_dtype] != self.stream
        if self.keeps_fp32:
            return True
        same = self.config.adapter_dtype == self.config.dtype_on(self.card)
        if self.full or self.width == 4 or same:
            return False
        return self.config.method == "lora" or self.card.device == "cpu"
