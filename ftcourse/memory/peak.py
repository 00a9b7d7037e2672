"""The peak of a training step by arithmetic: the fullest moment of a step that a tape ran."""

from functools import lru_cache
from importlib.metadata import version

from ftcourse.config import FinetuneConfig, check_run
from ftcourse.hardware import Card, detect
from ftcourse.memory import parameters
from ftcourse.memory.breakdown import MemoryBreakdown
from ftcourse.memory.ledger import Ledger, Row
from ftcourse.memory.model import Model
from ftcourse.memory.sharding import ShardedModel
from ftcourse.memory.step import Step
from ftcourse.memory.tape import Tape
from ftcourse.memory.units import Ranks, as_ranks, own_rows, shards_of
from ftcourse.shape import load_shape

_version = lru_cache(version)  # to read it takes as long as the arithmetic


def predict_memory(
    config: FinetuneConfig,
    card: Card | None = None,
    world_size: int = 1,
    sharding: str = "ddp",
    gpus_per_node: int = 8,
) -> MemoryBreakdown:
    """Return the bytes of a training step by arithmetic, at the moment that needs the most.

    Without a card, for the device that is there. Takes milliseconds and loads no model. Of several
    ranks, which train together on a card each, it is the first one's step.
    """
    check_run(config, card)
    ranks = as_ranks(config, world_size, sharding, gpus_per_node)
    return predict_step(Step(config, load_shape(config.model), card or detect()), ranks)


@lru_cache(256)  # panels and searches ask for the same step again and again
def predict_step(step: Step, ranks: Ranks = Ranks()) -> MemoryBreakdown:  # noqa: B008
    """Return the bytes of a step that may differ from the Trainer's, as a ``Step`` describes it."""
    history, facts = _take_step(step, ranks=ranks).history, {}
    moment, event = history.fullest()
    rows = resident_rows(step)
    if ranks.world_size > 1:
        rows = own_rows(rows, step, ranks)
        facts = {"world_size": ranks.world_size, "sharding": ranks.sharding}
    ledger = Ledger.of([*rows, *history.ledger(event)])
    facts |= {"source": "predicted", "moment": moment, "device": step.card.name}
    return MemoryBreakdown.of(ledger, **facts)


def predict_timeline(config: FinetuneConfig, card: Card | None = None) -> list[dict[str, int]]:
    """Return the live bytes of each part after each event of a step, with every layer run.

    An event is a tensor that comes or goes. The fullest moment has ``predict_memory``'s bytes.
    """
    check_run(config, card)
    step = Step(config, load_shape(config.model), card or detect())
    tape, residents = _take_step(step, all_layers=True), resident_rows(step)
    tape.history.died(len(tape.history.rows) - 1)  # the optimizer's scratch memory came last
    tape.gradients.clear()  # as zero_grad does
    return [Ledger.of(residents).parts, *tape.history.timeline(residents)]


def _take_step(step: Step, all_layers: bool = False, ranks: Ranks | None = None) -> Tape:
    """Run a step up to where the optimizer has all that it needs; return the tape."""
    sharded = ranks and ranks.shards > 1
    model = ShardedModel(step, ranks) if sharded else Model(step)
    tape = model.run(all_layers)
    tape.history.mark("the optimizer's step")
    weights = [w for w in shards_of(step, ranks) if w.trained] if sharded else None
    scratch = parameters.optimizer_scratch_bytes(step, weights)
    tape.history.born(Row.of("step", (scratch,), "uint8", "overhead"))
    return tape


def resident_rows(step: Step) -> list[Row]:
    """Return what lives through the whole step."""
    tokens = (step.config.batch_size, step.config.max_length)
    batches = 2 * step.config.gradient_accumulation_steps  # token ids and labels
    batch = Row.of("batch", tokens, "int64", "overhead", batches)
    rows = [*parameters.weight_rows(step), *parameters.optimizer_rows(step), batch, *around(step)]
    rows += parameters.gradient_rows(step) if step.config.gradient_accumulation_steps > 1 else []
    family = step.shape.family
    if family.scaled_embedding == "inside":
        buffer = step.dtype if step.bits else step.weights_dtype  # which peft does not cast
        rows.append(Row.of(f"{family.tables[0]}.embed_scale", (), buffer, "overhead"))
    if not step.shape.learned_positions:
        half = (step.shape.rotary_width // 2,)
        for kind in step.shape.rotary_types:
            for name in (f"{kind}inv_freq", f"{kind}original_inv_freq"):
                rows.append(Row.of(f"{family.rotary}.{name}", half, "float32", "overhead"))
    return rows


def around(step: Step) -> list[Row]:
    """Return what neither the model nor its data is: the Trainer's two sums, and cuBLAS's scratch.

    PyTorch chooses the scratch memory (``getChosenWorkspaceSize``); each thread that multiplies has
    its own, the forward pass's and autograd's, and Hopper's are larger.
    """
    sums = [Row.of("step", (), "float32", "activations")]
    # The count of supervised tokens is an integer; since transformers 5.23 it is divided.
    divided = [int(number) for number in _version("transformers").split(".")[:2]] >= [5, 23]
    sums += [Row.of("batch", (), "float32" if divided else "int64", "overhead")]
    if step.config.gradient_accumulation_steps > 1:  # the loss and the count of the batch before
        sums += [Row.of("loss", (), "float32", "activations"), sums[1]]
    size = 32 * 2**20 if step.card.capability == (9, 0) else 8_519_680
    scratch = Row.of("cuBLAS workspace", (size,), "uint8", "overhead", 2)
    return sums * step.autocast + [scratch] * (step.card.device == "cuda")
