import pytest
import torch

from ftcourse.config import FinetuneConfig
from ftcourse.data import encode, load_dialogues
from ftcourse.loop import draw_batches, train_on
from ftcourse.models import attach_adapter, load_base
from ftcourse.train import finetune

RECORDS = load_dialogues("train")[:8]


def test_the_loop_has_the_losses_of_the_trainer(tokenizer):
    """All records are in every batch, so both see the same data in every step."""
    config = FinetuneConfig(method="full", batch_size=8, learning_rate=1e-3, max_steps=12)
    theirs = [entry["loss"] for entry in finetune(config, RECORDS).history]
    batches = draw_batches(encode(RECORDS, tokenizer, 512), 8, 12)
    ours = train_on(load_base(config), batches, 1e-3)
    assert ours == pytest.approx(theirs, abs=2e-4)  # the Trainer rounds to four digits


def test_only_what_is_not_frozen_is_trained(tokenizer):
    model = attach_adapter(load_base(config := FinetuneConfig(rank=2)), config)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    train_on(model, draw_batches(encode(RECORDS, tokenizer, 512), 4, 2), 1e-3)
    moved = {name for name, value in model.state_dict().items() if not value.equal(before[name])}
    assert moved
    assert all("lora_" in name for name in moved)


def test_each_example_is_drawn_once_before_any_is_drawn_again(tokenizer):
    examples = encode(RECORDS, tokenizer, 512)
    rows = [row.tolist() for b in draw_batches(examples, 2, 6) for row in b["input_ids"]]
    texts = [tuple(t for t in row if t) for row in rows]
    assert len(texts) == 12
    assert len(set(texts[:8])) == 8


def test_another_seed_gives_another_order(tokenizer):
    examples = encode(RECORDS, tokenizer, 512)
    first, again, other = (draw_batches(examples, 8, 1, seed)[0]["labels"] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
