"""Which of the six ways of answering to use: computed from what was measured and is needed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import inf, log2
from statistics import fmean
from textwrap import wrap

from ftcourse.config import FinetuneConfig
from ftcourse.errors import check_choice
from ftcourse.hardware import CARDS, Card, choose_dtype, detect
from ftcourse.memory import MemoryBreakdown, predict_memory, show_bytes
from ftcourse.memory.fit import Fit, judge_fit
from ftcourse.memory.ledger import BYTES
from ftcourse.needs import RIGHT, Needs, needed
from ftcourse.shape import load_shape, parameter_count
from ftcourse.which_one import COLUMNS, Cell, Table

USES = {"RAG": ("pages",)} | dict.fromkeys(("LoRA", "QLoRA", "RAG + LoRA"), ("pages", "letters"))
"""What an arm is made of. Facts are learned from questions, and those were made from pages."""
METHODS = {"LoRA": "lora", "QLoRA": "qlora", "RAG + LoRA": "lora"}
UNTRIED = ("RAG", "RAG + LoRA")  # on a base in 4 bits
KEPT = {"facts", "secrecy", "strangers"}  # needs that are given up last
NEAR = 0.05  # of a mean share: a difference that counts as none
ALIKE = 1.2  # and a factor, between two quantities that were measured once
TOKENS = 512  # of a question and its answer, for the memory to answer
Reason = tuple[str, str, bool]
"""Which need drops an arm, the row in words, and whether the limit is within its interval."""


@dataclass(frozen=True)
class Decision:
    """Which arm, and why. The repr is the report."""

    arm: str  # empty if none passes
    runner_up: str
    rows: tuple[tuple[str, ...], ...]  # column, arm, runner-up; the one that decided is first
    dropped: dict[str, str]  # each dropped arm, with the rows that dropped it
    close: tuple[str, ...]  # where another answer is within the intervals
    thin: tuple[str, ...]  # where the evidence does not reach

    @property
    def notes(self) -> list[str]:
        """What was dropped, what is close, what is thin: a sentence each."""
        dropped = [f"{arm}: {words}" for arm, words in self.dropped.items()]
        kinds = {"dropped": dropped, "close": self.close, "thin": self.thin}
        return [f"{kind}: {words}" for kind, notes in kinds.items() for words in notes]

    @property
    def lead(self) -> str:
        """The recommendation in one line."""
        by = f", before {self.runner_up}: by {self.rows[0][0]}" if self.runner_up else ""
        return (self.arm or "No arm passes") + by

    def __repr__(self) -> str:
        """Return the recommendation, the rows, and the notes."""
        rows = [f"  {name:<28}" + "".join(f"{x:>12}" for x in both) for name, *both in self.rows]
        notes = [line for note in self.notes for line in wrap(note, 80, subsequent_indent="  ")]
        return "\n".join([self.lead, *rows, *notes])


def good(cell: Cell) -> float:
    """Return how good a cell is, 1 at best for a share."""
    value = cell.value or 0
    return value if cell.column.better == "more" else (cell.column.unit == "%") - value


def unknown(cell: Cell) -> bool:
    """Return whether no number says how bad an arm is: none of it is no zero."""
    return cell.value is None and (cell.column.unit, cell.column.better) == ("%", "less")


def compared(arms: Iterable[str], needs: Needs, table: Table) -> list[str]:
    """Return the needed shares that say something of all these arms."""
    shares = [c for c in needed(needs) if COLUMNS[c].unit == "%"]
    return [c for c in shares if not any(unknown(table[arm][c]) for arm in arms)]


def points(arm: str, columns: Sequence[str], table: Table) -> float:
    """Return the mean of these shares, each turned so that more is better."""
    return fmean(good(table[arm][c]) for c in columns) if columns else 0


def prices(arm: str, needs: Needs, table: Table) -> list[float]:
    """Return the needed quantities, as steps of about a factor of two.

    >>> round(log2(60)) == round(log2(75)) < round(log2(150))
    True
    """
    spent = [-good(table[arm][c]) for c in needed(needs) if COLUMNS[c].unit != "%"]
    return [round(log2(price)) if price else -inf for price in spent] + spent


def pick(
    arms: Iterable[str],
    needs: Needs,
    table: Table,
) -> str:
    """Return the cheapest of the arms that are near the best.

    An arm that is nowhere better than another, and worse in one
    needed column, is never picked: the other one has as many
    points or more, so it is near the best, and no dearer.
    """
    columns = compared(arms := [*arms], needs, table)
    mean = {arm: points(arm, columns, table) for arm in arms}
    enough = max(mean.values(), default=0) - NEAR
    near = [arm for arm in mean if mean[arm] >= enough]

    def order(arm: str) -> tuple[list[float], float]:
        return prices(arm, needs, table), -mean[arm]

    return min(near, key=order, default="")


def reasons(arm: str, needs: Needs, table: Table, card: Card) -> list[Reason]:
    """Return every need that an arm does not meet."""
    idle = {"pages": needs.facts == "none", "letters": needs.voice == "any"}
    lacks = {use for use in idle if getattr(needs, use) in ("no", "none") and not idle[use]}
    missing = [use for use in USES.get(arm, ()) if use in lacks]
    found: list[Reason] = [(use, f"needs {use}, and there are none", False) for use in missing]
    for column, (need, limit) in needed(needs).items():
        cell, more = table[arm][column], COLUMNS[column].better == "more"
        value, timed = cell.value or 0, needs.model == table.model or COLUMNS[column].unit == "%"
        limit = limit if timed or not limit else None
        if limit is not None and (value < limit if more else value > limit):
            count = f" of {cell.count}" * (value > 0 and cell.count > 0)
            words = cell.text + count if cell.values else f"none, {cell.why}"
            rule = f"{'needed' if more else 'allowed'} {cell.say(limit)}"
            found.append((need, f"{column}: {words}, {rule}", within(cell, limit)))
    fit = fits(METHODS.get(arm, ""), needs.model, card)
    words = f"{fit.summary}: {fit.reason.split(';')[0]}"
    return found + [("card", words, False)] * (fit.answer == "no")


def within(cell: Cell, limit: float | None) -> bool:
    """Return whether a limit is within a cell's interval."""
    return None not in (limit, cell.low) and cell.low <= limit <= cell.high


@cache
def fits(method: str, model: str, card: Card) -> Fit:
    """Return whether an arm fits a card: its training or, if nothing is trained, its answers.

    Training has FinetuneConfig's defaults. An answer needs the weights, and what attention keeps.
    """
    if method:
        config = FinetuneConfig(model=model, method=method)
        return judge_fit(predict_memory(config, card), card)
    shape, size = load_shape(model), BYTES[choose_dtype(card).dtype]
    kept = 2 * shape.num_hidden_layers * shape.num_key_value_heads * shape.head_dim * TOKENS
    sizes = size * parameter_count(shape), 0, 0, size * kept, 0
    return judge_fit(MemoryBreakdown(*sizes, source="predicted"), card)


def four_bits(arm: str, needs: Needs, card: Card) -> str:
    """Return what an arm would take on a 4-bit base; nothing if it fits no better there."""
    step = predict_memory(FinetuneConfig(model=needs.model, method="qlora"), card)
    answers = MemoryBreakdown(step.weights, 0, 0, 0, 0, source="predicted")
    whole, does = (step, "train") if arm in METHODS else (answers, "answer")
    words = f"{show_bytes(whole.allocated)} to {does}: it fits"
    fit = judge_fit(whole, card).answer != "no"
    return f"{arm} on a 4-bit base was not measured; by arithmetic it takes {words}" * fit


def decide(needs: Needs, table: Table, card: Card | str | None = None) -> Decision:
    """Return which arm to use: first arms are dropped, then the cheapest of the best is picked.

    Without a card, for the device that is there.
    """
    if isinstance(card, str):
        check_choice("card", card, tuple(CARDS))
    card = CARDS.get(card) or card or detect()
    found = {arm: reasons(arm, needs, table, card) for arm in table}
    left = [arm for arm in table if not found[arm]]
    first = pick(left, needs, table)
    second = pick([arm for arm in left if arm != first], needs, table)
    arms = [arm for arm in (first, second) if arm]
    columns = by_weight(arms, needs, table) if arms else []
    rows = tuple((c, *(table[arm][c].text for arm in arms)) for c in columns)
    dropped = {arm: "; ".join(row[1] for row in found[arm]) for arm in table if found[arm]}
    edge = [arm for arm in dropped if all(near for *_, near in found[arm])]
    close = [f"{arm} is dropped within the interval" for arm in edge]
    for column, (_, limit) in needed(needs).items():
        if first and within(table[first][column], limit):
            close.append(f"{first} passes within the interval of {column}")
    if second and alike(*(table[arm][columns[0]] for arm in arms)):
        close.insert(0, f"{second} may be as good: {' and '.join(rows[0][1:])}, {columns[0]}")
    notes = [] if first else [give_up(found, needs, table)]
    only = [arm for arm in UNTRIED if {need for need, *_ in found.get(arm, ())} == {"card"}]
    notes += [four_bits(arm, needs, card) for arm in only]
    notes += thin(needs, table, card, arms)
    return Decision(first, second, rows, dropped, (*close,), (*filter(None, notes),))


def give_up(found: Mapping[str, list[Reason]], needs: Needs, table: Table) -> str:
    """Return which arm is nearest, and what it lacks; facts and safety are given up last."""
    lost = {arm: list(dict.fromkeys(need for need, *_ in found[arm])) for arm in found}
    columns = compared(found, needs, table)

    def order(arm: str) -> tuple[int, int, float]:
        return len(KEPT & {*lost[arm]}), len(lost[arm]), -points(arm, columns, table)

    arm = min(lost, key=order)
    return f"the nearest is {arm}, which does not meet: {', '.join(lost[arm])}"


def by_weight(arms: Sequence[str], needs: Needs, table: Table) -> list[str]:
    """Return the needed columns; the first is the one that puts an arm before another."""
    first, second = arms[0], arms[-1]
    ahead = {c: good(table[first][c]) - good(table[second][c]) for c in needed(needs)}
    shares = compared(arms, needs, table)
    spent = [c for c in ahead if COLUMNS[c].unit != "%"]
    decided = max(shares, key=ahead.__getitem__, default=spent[0])
    if points(second, shares, table) >= points(first, shares, table) - NEAR:
        both = zip(*(prices(arm, needs, table) for arm in (first, second)), strict=True)
        cheaper = (c for c, (one, other) in zip(spent * 2, both, strict=True) if one < other)
        decided = next(cheaper, decided)
    return sorted(ahead, key=lambda column: column != decided)


def alike(one: Cell, other: Cell) -> bool:
    """Return whether two intervals overlap, or two quantities are within a fifth."""
    low, high = sorted([one.value or 0, other.value or 0])
    if None not in (one.low, other.low) and one.low <= other.high and other.low <= one.high:
        return True
    return one.column.unit != "%" and high <= ALIKE * low


def thin(needs: Needs, table: Table, card: Card, arms: Sequence[str]) -> list[str]:
    """Return where the evidence for these arms does not reach."""
    asked = max(table[arm][c].count for arm in table for c in RIGHT)
    alone = f"all but the memory is that of {table.model}; limits of time are not tested"
    label = "no arm had a label for strangers' pages; lesson 7's keeps them out"
    notes = {
        f"the table asks about {asked} facts, not thousands": needs.facts == "thousands",
        "tens of facts fit into a prompt; no arm has them there": needs.facts == "tens",
        alone: needs.model != table.model,
        label: needs.strangers == "yes",
    }
    for arm in arms:
        seeds = min(table[arm][c].seeds or 3 for c in needed(needs))
        notes[f"{arm} was trained with {seeds} of three seeds"] = arm in METHODS and seeds < 3
        fit = fits(METHODS.get(arm, ""), needs.model, card)
        notes[f"{arm}: {fit!r}"] = fit.answer == "narrowly"
    gaps = {c: [arm for arm in arms if unknown(table[arm][c])] for c in needed(needs)}
    none = [f"no number: {c}, {', '.join(a)}: {table[a[0]][c].why}" for c, a in gaps.items() if a]
    return none + [words for words, holds in notes.items() if holds]
