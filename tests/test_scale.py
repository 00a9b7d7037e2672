"""What several cards cost: operations, seconds, and what would do instead."""

import inspect
from dataclasses import replace

import pytest

from ftcourse.config import FinetuneConfig
from ftcourse.errors import CourseError
from ftcourse.hardware import CARDS, Card
from ftcourse.memory import predict_memory
from ftcourse.memory.fit import judge_fit
from ftcourse.memory.sharding import LINKS
from ftcourse.memory.two_cards import two_cards
from ftcourse.scale import PEAK, cheapest_way, operations, step_seconds, used_share, ways
from ftcourse.shape import load_shape, parameter_count

RUN = FinetuneConfig("llama-3.1-8b", "full", dtype="bfloat16", batch_size=1, max_length=1024)
CARD = CARDS["A100 40GB"]


def test_a_full_fine_tune_takes_six_operations_a_weight_and_token():
    """But for the embeddings, which are looked up, and attention's scores, which are few."""
    plain = replace(RUN, gradient_checkpointing=False, max_length=64)
    shape = load_shape(RUN.model)
    looked_up = shape.vocab_size * shape.hidden_size
    six = 6 * (parameter_count(shape) - looked_up) * 64
    assert operations(plain) == pytest.approx(six, rel=0.002)


def test_operations_are_those_that_pytorch_counts():
    """Real matrix products of the small model, counted by PyTorch; eager attention sees all."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from ftcourse.models import load_base

    run = FinetuneConfig("embedded", "full", dtype="float32", batch_size=2, max_length=32)
    run = replace(run, gradient_checkpointing=False, attention="eager")
    model = load_base(run).train()
    ids = torch.randint(1536, (2, 32), generator=torch.Generator().manual_seed(0))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, labels=ids).loss.backward()
    shape = load_shape("embedded")
    width = shape.num_attention_heads * shape.head_dim
    unseen = 6 * shape.num_hidden_layers * width * 32 * 2 * 32  # what causal attention skips
    assert counter.get_total_flops() == pytest.approx(operations(run) + unseen, rel=0.001)


@pytest.mark.parametrize(
    ("change", "share"),
    [
        ({"batch_size": 3}, 3),
        ({"gradient_accumulation_steps": 3}, 3),
        ({"gradient_checkpointing": False}, 0.75),
        ({"method": "lora"}, 0.75),
    ],
)
def test_operations_follow_texts_passes_and_what_is_trained(change, share):
    assert operations(replace(RUN, **change)) == pytest.approx(share * operations(RUN), rel=0.02)


def test_a_step_lies_between_all_sent_meanwhile_and_nothing():
    found = step_seconds(RUN, CARD, 2, "ddp", LINKS["ethernet 10G"])
    assert found.least == found.sending > found.computing
    assert found.most == found.sending + found.computing
    assert "predicted" in repr(found)


def test_one_card_sends_nothing_and_a_faster_card_computes_faster():
    slow, fast = (step_seconds(RUN, CARDS[name]) for name in ("A100 80GB", "H100 80GB"))
    assert slow.sending == fast.sending == 0
    assert slow.computing / fast.computing == pytest.approx(989.4 / 312)


def test_every_card_of_the_course_has_its_peak_and_another_is_refused():
    assert {card.name for card in CARDS.values()} <= {*PEAK}
    with pytest.raises(CourseError, match="PEAK\\['another'\\] = 71"):
        step_seconds(RUN, Card("another", 2**34, (8, 0)))


def test_ways_are_the_run_its_changes_on_one_card_and_more_cards():
    found = ways(RUN, CARD)
    assert [each.what for each in found][:1] == ["as it is"]
    assert {each.cards for each in found if each.what != "FSDP"} == {1}
    assert [each.cards for each in found if each.what == "FSDP"] == [2, 4, 8]
    for each in found:
        step = predict_memory(each.config, CARD, each.cards, each.sharding)
        assert each.fit == judge_fit(step, CARD)
    assert max(map(len, repr(found).splitlines())) <= 80


def test_the_cheapest_way_is_the_run_itself_where_it_fits():
    found = cheapest_way(RUN, CARDS["A100 80GB"])
    assert (found.what, found.cards, found.config) == ("as it is", 1, RUN)


def test_what_costs_only_time_comes_before_more_cards_and_those_before_another_method():
    long = replace(RUN, method="lora", max_length=4096)
    assert cheapest_way(long, CARDS["RTX 4090"]).what == "loss in chunks"
    assert cheapest_way(RUN, CARD).what == "FSDP on 4 GPUs"
    assert cheapest_way(RUN, CARD, 8, "ddp").what == "FSDP on 8 GPUs"
    assert "QLoRA" in cheapest_way(RUN, CARDS["RTX 3060"], 2, "fsdp").what


def test_where_nothing_fits_there_is_no_way():
    assert cheapest_way(replace(RUN, model="llama-3.1-70b"), CARDS["T4"]) is None


def test_a_recorded_run_used_the_operations_over_what_its_cards_could_do():
    run = next(r for r in two_cards() if (r.card, r.cards, r.batch_size) == ("A100 40GB", 4, 4))
    llama = operations(replace(run.config, model="llama-3.1-70b", batch_size=1))
    assert used_share(run) == pytest.approx(1024 * llama / (4 * run.seconds * 312e12), rel=0.03)


def test_a_quantized_run_of_8_bits_has_no_sharded_ways():
    assert {each.cards for each in ways(replace(RUN, method="qlora", bits=8), CARD)} == {1}


def test_what_the_lesson_shows_fits_a_narrow_page():
    assert max(map(len, inspect.getsource(operations).splitlines())) <= 64
