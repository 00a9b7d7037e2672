"""Each operation of the tape against PyTorch's own: what it keeps, and its fullest moment."""

from itertools import accumulate

import pytest
import torch
from torch.nn import functional as F

from ftcourse.live import LiveBytes
from ftcourse.memory.graph import Leaf, Tensor
from ftcourse.memory.operations import Operations

ROWS = (2, 4, 8, 16)  # batch, heads, length, width
# Shapes of the inputs, the operation on the tape, the operation of PyTorch.
CASES = {
    "add": ([ROWS, ROWS], lambda t, x, y: t.add(x, y), torch.add),
    "mul": ([ROWS, ROWS], lambda t, x, y: t.mul(x, y), torch.mul),
    "mul by a column": (
        [(64, 16), (64, 1)],
        lambda t, x, y: t.mul(x, y),
        torch.mul,
    ),
    "mul by a weight": ([(64, 16), (16,)], lambda t, x, y: t.mul(x, y), torch.mul),
    "scale": ([ROWS], lambda t, x: t.scale(x), lambda x: x * 0.5),
    "clone": ([ROWS], lambda t, x: t.clone(x), torch.clone),
    "square": ([ROWS], lambda t, x: t.square(x), lambda x: x.pow(2)),
    "mean": ([ROWS], lambda t, x: t.mean(x), lambda x: x.mean(-1, keepdim=True)),
    "silu": ([ROWS], lambda t, x: t.function(x), F.silu),
    "gelu": ([ROWS], lambda t, x: t.function(x), F.gelu),
    "tanh": ([ROWS], lambda t, x: t.function(x, saves_result=True), torch.tanh),
    "cast": ([ROWS], lambda t, x: t.cast(x, "bfloat16"), lambda x: x.bfloat16()),
    "dropout": ([ROWS], lambda t, x: t.dropout(x, 0.5), lambda x: F.dropout(x, 0.5)),
    "view": ([ROWS], lambda t, x: t.view(x, 16, 64), lambda x: x.view(16, 64)),
    "part": ([ROWS], lambda t, x: t.part(x, 2, 4, 8, 4), lambda x: x[..., :4]),
    "copy": (
        [(2, 1, 8, 16)],
        lambda t, x: t.copy(x, *ROWS),
        lambda x: x.expand(ROWS).contiguous(),
    ),
    "concat": ([ROWS, ROWS], lambda t, x, y: t.concat([x, y]), lambda x, y: torch.cat((x, y), -1)),
    "product": ([(64, 16), (48, 16)], lambda t, x, w: t.product(x, w), F.linear),
    "product and bias": (
        [(64, 16), (48, 16), (48,)],
        lambda t, x, w, b: t.product(x, w, [b]),
        F.linear,
    ),
    "matmul": (
        [(8, 32, 16), (8, 16, 32)],
        lambda t, x, y: t.matmul(x, y, 8, 32, 32),
        torch.matmul,
    ),
    "layer_norm": (
        [(64, 16), (16,), (16,)],
        lambda t, x, w, b: t.layer_norm(x, [w, b]),
        lambda x, w, b: F.layer_norm(x, (16,), w, b),
    ),
    "softmax": ([ROWS], lambda t, x: t.softmax(x), lambda x: F.softmax(x, -1)),
    "attention": (
        [ROWS, ROWS, ROWS],
        lambda t, q, k, v: t.attention(q, k, v),
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
    ),
    "cross_entropy": (
        [(64, 100)],
        lambda t, x: t.cross_entropy(x),
        lambda x: F.cross_entropy(x, torch.zeros(64, dtype=torch.long)),
    ),
    "chunks": (
        [(64, 16)],
        lambda t, x: t.concat([t.op((16, 16), "float32", [x], rule="chunk") for _ in range(4)]),
        lambda x: torch.cat(x.split(16), -1),
    ),
}


def on_tape(shapes, run):
    """Return the bytes that live after the forward pass, and the most in the backward pass."""
    tape = Operations(None, "cpu")
    inputs = [Tensor(s, "float32", None, Leaf(f"input {n}", 1)) for n, s in enumerate(shapes)]
    out = tape.scale(run(tape, *map(tape.scale, inputs)))
    after = len(tape.history.events)
    tape.backward(out)
    sums = list(accumulate(change for _, change in tape.history.events))
    return (sums[after - 1] if after else 0), max(sums[after:])


def in_torch(shapes, run):
    """Return the same, but for the inputs, of PyTorch."""
    inputs = [torch.zeros(shape, requires_grad=True) for shape in shapes]
    live = LiveBytes()
    for number, tensor in enumerate(inputs):
        live.note(tensor, "weights", f"input {number}")
    given = sum(tensor.nbytes for tensor in inputs)
    with live:
        out = 0.5 * run(*(0.5 * x for x in inputs))  # so that no gradient is given or a leaf's
        after = len(live.history.events)
        out.backward(torch.ones_like(out))
    sums = list(accumulate(change for _, change in live.history.events))
    return sums[after - 1] - given, max(sums[after:]) - given


@pytest.mark.parametrize("name", CASES)
def test_an_operation_keeps_and_needs_what_pytorch_keeps_and_needs(name):
    shapes, ours, theirs = CASES[name]
    kept, peak = on_tape(shapes, ours)
    real_kept, real_peak = in_torch(shapes, theirs)
    small = 8 * 64 + 8  # class numbers and sums of the loss, the sign of a view
    assert kept == pytest.approx(real_kept, abs=small if name == "cross_entropy" else 0)
    assert peak == pytest.approx(real_peak, abs=small if name == "cross_entropy" else 0)
