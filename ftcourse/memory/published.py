"""The predicted bytes of recorded runs, each in the loop of those who measured it.

litgpt's step holds some things in another way than the Trainer's. Source: litgpt of October 2023
(``finetune/lora.py``, ``lit_gpt/lora.py``), with torch 2.1.0, Lightning 2.1, bitsandbytes 0.41.1.
"""

import json
from dataclasses import dataclass, replace
from math import ceil

from ftcourse.config import FinetuneConfig
from ftcourse.errors import CourseError
from ftcourse.files import course_path
from ftcourse.hardware import CARDS, GIB
from ftcourse.memory import MemoryBreakdown, Step, predict_step
from ftcourse.memory.model import Model
from ftcourse.memory.parameters import weight_rows
from ftcourse.memory.peak import around
from ftcourse.memory.records import Record, is_card, recorded_runs
from ftcourse.shape import ModelShape

LOSS_CHUNK = 128
"""Tokens whose loss goes backward at a time."""


def predict_record(record: Record) -> MemoryBreakdown:
    """Return the predicted bytes of a recorded run, in the loop of those who measured it."""
    return (predict_litgpt if record.by == "litgpt" else predict_step)(step_of(record))


def step_of(record: Record) -> Step:
    """Return the step of a recorded run, as its loop takes it."""
    card = next((card for card in CARDS.values() if is_card(record.card, card)), None)
    if card is None:
        must = "The arithmetic needs the facts of the card that a run was recorded on."
        raise CourseError(must, record.card, "Add the card to hardware.CARDS.")
    return Step(record.config, ModelShape.from_config(record.shape), card, **record.loop)


@dataclass(frozen=True)
class Pair:
    """Two recorded runs that differ in the method alone. The repr is a line of shares."""

    lora: Record
    qlora: Record

    @property
    def recorded(self) -> float:
        """What QLoRA needed more than LoRA, as a share of LoRA's bytes."""
        return self.qlora.allocated / self.lora.allocated - 1

    @property
    def trainers(self) -> float:
        """The same, predicted for the Trainer's loop: with autocast, and without held logits."""
        runs, loop = (self.lora, self.qlora), {"autocast": True, "holds_logits": False}
        lora, qlora = (predict_step(replace(step_of(run), **loop)).allocated for run in runs)
        return qlora / lora - 1

    def __repr__(self) -> str:
        """Return both shares in percent, and the run."""
        run = self.lora.config
        what = f"{run.batch_size} x {run.max_length:4}  {run.attention:5}  {run.model}"
        return f"{self.recorded:+8.1%}  {self.trainers:+8.1%}  {what}"


def recorded_pairs() -> list[Pair]:
    """Return the pairs of fitcheck's runs, the one in which QLoRA needed most first."""
    found: dict[tuple, dict[str, Record]] = {}
    for run in (run for run in recorded_runs() if run.by == "fitcheck"):
        config = run.config
        key = config.model, config.batch_size, config.max_length, config.attention
        found.setdefault(key, {})[config.method] = run
    pairs = [Pair(**runs) for runs in found.values() if len(runs) == 2]
    return sorted(pairs, key=lambda pair: -pair.recorded)


@dataclass(frozen=True)
class Limit:
    """A run that nearly fills a T4, as fitcheck published it. The repr is a line of a table."""

    config: FinetuneConfig
    tensors: int
    """The bytes of live tensors that we predict in its loop."""
    process: int | None
    """The bytes that the process held; None if it failed."""

    def __repr__(self) -> str:
        """Return the tensors and the process in GiB, and the run."""
        held = f"{self.process / GIB:.2f}" if self.process else "failed"
        run = f"{self.config.batch_size:5}  {self.config.max_length:7}  {self.config.model}"
        return f"{self.tensors / GIB:8.2f}  {held:>7}  {run}"


def recorded_limits() -> list[Limit]:
    """Return the published runs near a T4's limit, those with the fewest tensors first."""
    lines = course_path("data/measured/published_t4_limits.jsonl").read_bytes().splitlines()
    found = []
    for line in map(json.loads, lines):
        config, shape = FinetuneConfig(**line["config"]), ModelShape.from_config(line["shape"])
        step = Step(config, shape, CARDS["T4"], **line["loop"])
        found.append(Limit(config, predict_step(step).allocated, line["process"]))
    return sorted(found, key=lambda limit: limit.tensors)


def predict_litgpt(step: Step) -> MemoryBreakdown:
    """Return the bytes of litgpt's first step, which gets the longest sequences.

    Where it differs from the Trainer's: it has its own layers (``litgpt_layer``); Lightning turns
    the logits to fp32, and they live beside their log-probabilities while the loss goes backward in
    pieces; bitsandbytes quantizes the head too, and dequantizes it in the fp16 of the
    checkpoint and again in bf16. There are no gradients and no optimizer states yet.
    """
    shape, tokens = step.shape, step.config.batch_size * step.config.max_length
    layers = shape.num_hidden_layers * (kept_by_a_layer(step) + tokens * litgpt_layer(step))
    words, head = shape.vocab_size, shape.vocab_size * shape.hidden_size
    activations = layers + 8 * words * tokens
    weights = sum(row.bytes * row.count for row in weight_rows(step))
    if step.config.method == "lora":
        return _breakdown(step, weights, activations + 8 * words * LOSS_CHUNK, 0)
    weights += quantized_bytes(head, step) - 2 * head
    return _breakdown(step, weights, activations, (2 + 2) * head)


def kept_by_a_layer(step: Step) -> int:
    """Return the bytes that one more layer of transformers keeps for its backward pass."""
    layers = step.shape.num_hidden_layers
    more = replace(step, shape=replace(step.shape, num_hidden_layers=layers + 1))
    peaks = [Model(each).run().history.peaks()["the loss"] for each in (step, more)]
    return peaks[1].parts["activations"] - peaks[0].parts["activations"]


def quantized_bytes(numbers: int, step: Step) -> int:
    """Return the bytes of a matrix in 4 bits, with its constants (QLoRA paper, section 3)."""
    blocks = ceil(numbers / 64)
    constants = blocks + 4 * ceil(blocks / 256) + 4 * 256 + 4
    return numbers // 2 + 4 * 16 + (constants if step.config.double_quant else 4 * blocks)


def litgpt_layer(step: Step) -> int:
    """Return the bytes for a token that a layer of litgpt keeps beside those of transformers.

    One module gives queries, keys and values, and the values keep all three, as they do in a family
    of transformers' with such a module; ``index_copy`` spreads the adapter's queries and values
    over them and keeps them; the adapter drops inputs at random and keeps which. bitsandbytes 0.41
    also kept the inputs of each quantized module: what each norm gives, and the MLP's last input.
    """
    shape, family = step.shape, step.shape.family
    queries_and_keys = 2 * (shape.widths["queries"] + shape.widths["keys"])
    spread = queries_and_keys * (1 if family.fused else 2)
    normed = shape.hidden_size * (1 if family.norms == "shared" else 2)
    inputs = 2 * (normed + shape.intermediate_size) * (step.config.method == "qlora")
    return spread + shape.hidden_size + inputs


def _breakdown(step: Step, weights: int, activations: int, overhead: int) -> MemoryBreakdown:
    overhead += sum(row.bytes * row.count for row in around(step))
    return MemoryBreakdown(weights, 0, 0, activations, overhead, "predicted", "the loss")
