"""The tape against PyTorch's autograd: checkpoints, shared parameters, gradients that add up."""

from itertools import accumulate

import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ftcourse.live import LiveBytes
from ftcourse.memory.graph import Leaf, Tensor
from ftcourse.memory.operations import Operations

X, W = (64, 32), (32, 32)


def sums(history):
    return list(accumulate(change for _, change in history.events))


def on_tape(program):
    """Return the tape after a program has run forward and backward, and the bytes in between."""
    tape = Operations(None, "cpu")
    x = Tensor(X, "float32", None, Leaf("x", 1))
    weight = Tensor(W, "float32", None, Leaf("weight", 1))
    out = program(tape, x, weight)
    kept = sums(tape.history)[-1]
    tape.backward(out)
    return tape, kept


def in_torch(program):
    """Return the most bytes of the same in PyTorch, beside its inputs, and those in between."""
    x, weight = torch.zeros(X, requires_grad=True), torch.zeros(W, requires_grad=True)
    live = LiveBytes()
    for name, tensor in {"x": x, "weight": weight}.items():
        live.note(tensor, "weights", name)
    given = x.nbytes + weight.nbytes
    with live:
        out = program(x, weight)
        kept = sums(live.history)[-1] - given
        out.backward(torch.ones_like(out))
    return max(sums(live.history)) - given, kept


def half_layer(tape, x, weight):
    return tape.scale(tape.product(tape.function(tape.product(tape.scale(x), weight)), weight))


def real_half_layer(x, weight):
    return 0.5 * F.linear(F.silu(F.linear(0.5 * x, weight)), weight)


def assert_equal(program, real):
    tape, kept = on_tape(program)
    peak, real_kept = in_torch(real)
    assert kept == real_kept
    assert max(sums(tape.history)) == peak
    return tape


def test_what_is_saved_lives_until_the_backward_pass_has_used_it():
    assert_equal(half_layer, real_half_layer)


def test_a_checkpointed_function_keeps_its_input_alone_and_runs_again():
    def program(tape, x, weight):
        first = tape.scale(x)
        return tape.checkpoint(lambda: half_layer(tape, first, weight))

    def real(x, weight):
        return checkpoint(real_half_layer, 0.5 * x, weight, use_reentrant=False)

    tape = assert_equal(program, real)
    assert max(sums(tape.history)) > on_tape(program)[1]


def test_checkpoints_one_after_another_run_again_one_at_a_time():
    def program(tape, x, weight):
        for _ in range(3):
            x = tape.checkpoint(lambda x=x: half_layer(tape, x, weight))
        return x

    def real(x, weight):
        for _ in range(3):
            x = checkpoint(real_half_layer, x, weight, use_reentrant=False)
        return x

    assert_equal(program, real)


def test_gradients_that_meet_are_added():
    def program(tape, x, weight):
        x = tape.scale(x)
        return tape.scale(tape.add(x, half_layer(tape, x, weight)))

    def real(x, weight):
        x = 0.5 * x
        return 0.5 * (x + real_half_layer(x, weight))

    assert_equal(program, real)


def test_a_parameter_that_is_used_twice_gets_one_gradient():
    tape, _ = on_tape(half_layer)
    rows = [tape.history.rows[gradient.storage.number] for gradient in tape.gradients]
    assert [(row.name, row.part, row.bytes) for row in rows if row.name == "weight"] == [
        ("weight", "gradients", 4 * 32 * 32)
    ]


def test_at_the_end_only_gradients_live():
    tape, _ = on_tape(half_layer)
    last = tape.history.ledger(len(tape.history.events) - 1)
    assert {row.part for row in last} == {"gradients"}
    assert sum(last.parts.values()) == 4 * (64 * 32 + 32 * 32)


def test_operations_without_a_gradient_keep_nothing():
    tape = Operations(None, "cpu")
    half_layer(tape, Tensor(X, "float32"), Tensor(W, "float32"))
    assert sums(tape.history)[-1] == 0


def test_autocast_copies_a_trained_weight_once_and_an_activation_each_time():
    tape = Operations("bfloat16", "cpu")
    weight = Tensor(W, "float32", None, Leaf("weight", 1))
    x = tape.new(X, "float32")
    held = [tape.product(x, weight) for _ in range(2)]
    copies = [row for row in tape.history.rows if row.dtype == "bfloat16"]
    assert [row.shape for row in copies].count(W) == 1
    assert [row.shape for row in copies].count(X) == 2 + len(held)
