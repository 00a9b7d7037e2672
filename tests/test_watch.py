from dataclasses import replace

import pytest
from bitsandbytes.nn import Linear4bit

from ftcourse.config import FinetuneConfig
from ftcourse.data import encode, load_dialogues
from ftcourse.errors import CourseError
from ftcourse.loop import draw_batches
from ftcourse.models import attach_adapter, load_base
from ftcourse.qlora import inject_qlora
from ftcourse.watch import trace_step

FOUR = FinetuneConfig(
    method="qlora", dtype="float32", rank=8, alpha=16, gradient_checkpointing=False
)
LAST = "layers.0.self_attn."  # below these modules nothing is trained


@pytest.fixture(scope="module")
def batch(tokenizer):
    return draw_batches(encode(load_dialogues("train")[:50], tokenizer, 512), 2, 1)[0]


def real(**choices):
    config = replace(FOUR, **choices)
    return attach_adapter(load_base(config), config).train()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_trace_says_formats_gradients_and_where_the_way_back_ends(dtype, batch):
    trace = trace_step(real(dtype=dtype), batch)
    assert len(trace.visits) == 35
    for name, visit in trace.visits.items():
        assert visit.multiplies == dtype
        assert visit.passes_on != (name[len(LAST) :] in ("q_proj", "k_proj", "v_proj")) or (
            not name.startswith(LAST)
        )
        assert visit.trained == ("lora_A: float32", "lora_B: float32")


def test_one_weight_is_restored_at_a_time_and_the_constants_before_it(batch):
    model = real()
    trace = trace_step(model, batch)
    largest = max(m.in_features * m.out_features for m in model.modules() if is_4bit(m))
    assert max(trace.restored) == 4 * largest
    assert trace.restored[0] == trace.restored[-1] == 0
    assert len(trace.restored) == 1 + 2 * (35 - 3)
    ran = trace.visits["layers.1.mlp.up_proj"].operations
    assert ran[0].startswith("forward product with the codes: float32 x uint8")
    assert [text.split(":")[0] for text in ran[-3:]] == [
        "backward constants restored",
        "backward weight restored",
        "backward product",
    ]


def is_4bit(module):
    return isinstance(module, Linear4bit)


def test_our_own_model_can_be_traced(batch):
    config = FinetuneConfig(method="full", dtype="float32")
    visits = trace_step(inject_qlora(load_base(config), rank=4, alpha=8).train(), batch).visits
    assert sum(visit.passes_on for visit in visits.values()) == 32
    assert {visit.multiplies for visit in visits.values()} == {"float32"}


def test_a_trace_leaves_no_hook_behind(batch):
    model = real()
    trace_step(model, batch)
    assert not any(m._forward_hooks or m._backward_hooks for m in model.modules())


def test_a_model_without_an_adapter_is_refused(batch):
    with pytest.raises(CourseError, match="has an adapter"):
        trace_step(load_base(FOUR), batch)
