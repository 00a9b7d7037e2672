"""The operations that layers are made of: each says what autograd saves of it.

Names and rules are PyTorch's own (``tools/autograd/derivatives.yaml`` and "Autocast Op Reference").
"""

from collections.abc import Sequence
from math import prod

from ftcourse.memory.graph import Leaf, Tensor
from ftcourse.memory.ledger import BYTES, Shape
from ftcourse.memory.tape import Tape


def wider(*dtypes: str) -> str:
    """Return the format of a result whose inputs have these formats."""
    return max(dtypes, key=BYTES.__getitem__)


def larger(x: Tensor, y: Tensor) -> Shape:
    """Return the shape of a result where one of the two is spread out over the other."""
    return max(x.shape, y.shape, key=lambda sides: (prod(sides), len(sides)))


class Operations(Tape):
    """A tape with the models' operations: number by number, views, products, norms, attention."""

    def cast(self, x: Tensor, dtype: str) -> Tensor:
        """Return x in another format; saves nothing."""
        return x if x.dtype == dtype else self.op(x.shape, dtype, [x], rule="cast")

    def wide(self, x: Tensor) -> Tensor:
        """Return x as a GPU's autocast gives it to operations that it runs in float32."""
        return self.cast(x, "float32") if self.autocast and self.device == "cuda" else x

    def scale(self, x: Tensor) -> Tensor:
        """Return x times or plus a number; saves nothing."""
        return self.op(x.shape, x.dtype, [x])

    def clone(self, x: Tensor) -> Tensor:
        """Return a copy, whose gradient is the input's own."""
        return self.op(x.shape, x.dtype, [x], rule="same")

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """Return x + y; saves nothing: both get the sum's gradient."""
        dtype = wider(x.dtype, y.dtype)
        return self.op(x.shape, dtype, [x, y], rule="same")

    def mul(self, x: Tensor, y: Tensor) -> Tensor:
        """Return x * y; each is saved for the other's gradient.

        That is, if the other one needs a gradient.
        """
        saves = [a for a, b in ((x, y), (y, x)) if b.node]
        dtype = wider(x.dtype, y.dtype)
        return self.op(larger(x, y), dtype, [x, y], saves)

    def square(self, x: Tensor) -> Tensor:
        """Return x ** 2; its backward pass makes the first power and twice of it."""
        scratch = 2 * [(x.shape, x.dtype, "activations")]
        return self.op(x.shape, x.dtype, [x], [x], scratch=scratch)

    def mean(self, x: Tensor) -> Tensor:
        """Return the means of the rows; saves nothing."""
        return self.op((*x.shape[:-1], 1), x.dtype, [x])

    def function(self, x: Tensor, *, saves_result: bool = False) -> Tensor:
        """Return a function that saves its input, such as silu, or its result, such as tanh."""
        saves = () if saves_result else [x]
        return self.op(x.shape, x.dtype, [x], saves, saves_result=saves_result)

    def dropout(self, x: Tensor, rate: float) -> Tensor:
        """Return x with some numbers zeroed; saves which, in a byte each, on a CPU in a number."""
        if not rate:
            return x
        mask = self.new(x.shape, "bool" if self.device == "cuda" else x.dtype)
        return self.op(x.shape, x.dtype, [x], [mask])

    def view(self, x: Tensor, *shape: int) -> Tensor:
        """Return the same memory in another shape."""
        return self.op(shape, x.dtype, [x], rule="view")

    def part(self, x: Tensor, *shape: int) -> Tensor:
        """Return a part of x in the same memory; its gradient is as large as x."""
        return self.op(shape, x.dtype, [x], rule="part")

    def split(self, x: Tensor, count: int, *shape: int) -> list[Tensor]:
        """Return parts of x in the same memory; their gradients wait and are joined."""
        whole = self.part(x, *x.shape)
        return [self.op(shape, x.dtype, [whole], rule="chunk") for _ in range(count)]

    def copy(self, x: Tensor, *shape: int) -> Tensor:
        """Return the numbers of x in another order, or repeated; gradients are then summed up."""
        return self.op(shape, x.dtype, [x], rule="same")

    def concat(self, xs: Sequence[Tensor]) -> Tensor:
        """Return tensors joined along their last side; their gradients are parts of one."""
        shape = (*xs[0].shape[:-1], sum(x.shape[-1] for x in xs))
        return self.op(shape, xs[0].dtype, xs, rule="join")

    def product(self, x: Tensor, weight: Tensor, bias: Sequence[Tensor] = ()) -> Tensor:
        """Return x @ weight.T + bias; saves x for a trained weight, and the weight for x."""
        weight, x = self.cast_to_product(weight), self.cast_to_product(x)
        saves = [x] * bool(weight.node) + [weight] * bool(x.node)
        shape = (*x.shape[:-1], prod(weight.shape) // x.shape[-1])
        return self.op(shape, x.dtype, [x, weight, *bias], saves, rule="matrix")

    def grouped_product(self, x: Tensor, weight: Tensor, offsets: Sequence[Tensor]) -> Tensor:
        """Return the product of each row with its expert's matrix, (experts, outputs, inputs)."""
        x = self.cast(x, weight.dtype)
        saves = [x] * bool(weight.node) + [weight] * bool(x.node) + [*offsets]
        return self.op((x.shape[0], weight.shape[1]), x.dtype, [x, weight], saves, rule="matrix")

    def matmul(self, x: Tensor, y: Tensor, *shape: int) -> Tensor:
        """Return the product of two activations; each is saved for the gradient of the other."""
        x, y = self.cast_to_product(x), self.cast_to_product(y)
        saves = [a for a, b in ((x, y), (y, x)) if b.node]
        return self.op(shape, x.dtype, [x, y], saves, rule="matrix")

    def cast_to_product(self, x: Tensor) -> Tensor:
        """Return x in autocast's format. The copy of a leaf in float32 is kept until it ends."""
        if not self.autocast or x.dtype == self.autocast:
            return x
        if x.dtype != "float32" or not isinstance(x.node, Leaf):
            return self.cast(x, self.autocast)
        if x.node not in self.casts:
            self.casts[x.node] = self.cast(x, self.autocast)
        return self.casts[x.node]

    def layer_norm(self, x: Tensor, parameters: Sequence[Tensor] = ()) -> Tensor:
        """Return LayerNorm's result; saves its input, parameters, means and factors."""
        x, *parameters = (self.wide(t) for t in (x, *parameters))
        statistics = [self.new((*x.shape[:-1], 1), x.dtype) for _ in range(2)]
        saves = [x, *parameters, *statistics]
        return self.op(x.shape, x.dtype, [x, *parameters], saves, rule="matrix")

    def divide_by_rms(self, x: Tensor) -> Tensor:
        """Return rows divided by their root mean squares."""
        factor = self.function(
            self.scale(self.mean(self.square(x))),
            saves_result=True,
        )
        return self.mul(x, factor)

    def normalize(self, kind: str, x: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """Return a norm of one of the kinds that ``Family.norm`` names."""
        if kind == "layer":
            return self.layer_norm(x, parameters)
        if kind == "bare":
            return self.cast(self.layer_norm(self.cast(x, "float32")), x.dtype)
        (weight,), quotient = parameters, self.divide_by_rms(self.cast(x, "float32"))
        if kind == "rms":
            return self.mul(weight, self.cast(quotient, x.dtype))
        if kind == "rms_plus_one":
            weight = self.scale(self.cast(weight, "float32"))
        return self.cast(self.mul(quotient, weight), x.dtype)

    def attention(self, q: Tensor, k: Tensor, v: Tensor, saves: Sequence[Tensor] = ()) -> Tensor:
        """Return the flash kernel's result; saves what goes in and out, and a sum a row.

        The backward kernel makes all three gradients, also those that nobody needs.
        """
        q, k, v = (self.cast_to_product(x) for x in (q, k, v))
        sums = self.new(q.shape[:-1], "float32")
        scratch = [(x.shape, x.dtype, "activations") for x in (q, k, v) if not x.node]
        inputs, saves = [q, k, v], [q, k, v, sums, *saves]
        rules = {"saves_result": True, "rule": "matrix", "scratch": scratch}
        return self.op(q.shape, q.dtype, inputs, saves, **rules)

    def divide_by_sum(self, x: Tensor) -> Tensor:
        """Return x divided in place by the sum of its rows; saves the sum, and x as it was."""
        total = self.op((*x.shape[:-1], 1), x.dtype, [x])
        return self.op(x.shape, x.dtype, [x, total], [self.new(x.shape, x.dtype), total])

    def softmax(self, x: Tensor, dtype: str = "float32") -> Tensor:
        """Return the softmax in this format; saves its result.

        CUDA's backward kernel first multiplies result and gradient (PyTorch's SoftMax.cu).
        """
        on_gpu = self.device == "cuda"
        if not (on_gpu and x.dtype == "float16"):  # which that kernel reads as it is
            x = self.cast(x, dtype)
        scratch = [(x.shape, dtype, "activations")] * on_gpu
        return self.op(x.shape, dtype, [x], saves_result=True, rule="cast", scratch=scratch)

    def cross_entropy(self, logits: Tensor) -> Tensor:
        """Return the loss; log-softmax saves its result, and nothing else is as large."""
        chances = self.op(logits.shape, "float32", [logits], saves_result=True)
        return self.op((), "float32", [chances], [chances])
