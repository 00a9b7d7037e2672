"""VRAM golf: train the embedded model to a loss in few bytes, judged by measurement."""

import json
import tempfile
import time
from collections import defaultdict
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from weakref import WeakKeyDictionary

from ftcourse.config import FinetuneConfig
from ftcourse.data import load_dialogues
from ftcourse.errors import CourseError
from ftcourse.evaluate import held_out_loss
from ftcourse.hardware import detect
from ftcourse.measure import MemoryMeter
from ftcourse.memory import MemoryBreakdown, predict_memory
from ftcourse.memory.breakdown import show_bytes
from ftcourse.scorecard import Round, Scorecard, keep_round, read_rounds
from ftcourse.sweeps import load_sweep
from ftcourse.train import FinetuneResult, finetune


@dataclass(frozen=True)
class Course:
    """A task: the loss to reach on letters that were not trained on, and what is allowed."""

    name: str
    target: float
    """Mean loss of an answer token to reach, in nats."""
    budget: int
    """Live bytes allowed at the fullest moment of the run."""
    letters: int = 160
    """Letters to train on, at most."""
    method: str = ""
    """The method that has to be used; empty where any may."""

    @property
    def par(self) -> int:
        """The lowest peak in bytes of the configs that we tried."""
        return min(run["peak"] for run in designers(self))

    def __repr__(self) -> str:
        """Return the task in one line."""
        method = f"method={self.method!r}" if self.method else "any method"
        task = f"the {self.name}: {method}, {self.letters} letters"
        return f"{task}, loss {self.target:.2f} within {show_bytes(self.budget)}"


COURSES = {
    "green": Course("green", target=0.6, budget=10 * 2**20, method="lora"),
    "lake": Course("lake", target=0.6, budget=8 * 2**20, method="full"),
    "cliff": Course("cliff", target=0.4, budget=3 * 2**20),
}


def designers(course: Course) -> list[Round]:
    """Return the recorded configs that reach a course's loss with three seeds.

    Peak and loss are those of the worst seed. They were chosen on the validation letters.
    """
    found = defaultdict(list)
    for run in load_sweep("golf"):
        if run["course"] == course.name:
            found[json.dumps(run["config"])].append(run)
    return [
        {"config": json.loads(config)} | {name: max(r[name] for r in runs) for name in _WORST}
        for config, runs in found.items()
        if len(runs) == 3 and all(r[s] <= course.target for r in runs for s in _WORST[1:])
    ]


_WORST = ("peak", "validation_loss", "test_loss")


@dataclass(frozen=True, eq=False)
class Score:
    """The result of one round; only ``play`` makes scores that count."""

    course: Course
    config: FinetuneConfig
    breakdown: MemoryBreakdown
    """What lived at the fullest moment of the run."""
    loss: float
    seconds: float
    split: str = "test"
    """The letters that judged it; a round on ``validation`` is practice."""

    @property
    def peak(self) -> int:
        """Live bytes at the fullest moment."""
        return self.breakdown.allocated

    @property
    def passed(self) -> bool:
        """Whether the loss was reached within the budget; a loss of nan never is."""
        return self.loss <= self.course.target and self.peak <= self.course.budget

    def __repr__(self) -> str:
        """Return the report: the task, and what was measured."""
        par = show_bytes(self.course.par) if self.course in COURSES.values() else "none"
        parts = [f"  {name:<12}{show_bytes(n):>10}\n" for name, n in self.breakdown.parts.items()]
        return (
            f"{self.course}; par {par}\n"
            f"peak {show_bytes(self.peak)} at {self.breakdown.moment}\n{''.join(parts)}"
            f"{self.split} loss {self.loss:.3f}, {self.seconds:.0f} s\n"
            f"{'reached' if self.passed else 'not reached'}"
        )


class FullestStep(MemoryMeter):
    """Measures the steps with the longest letters, and keeps the fullest.

    The bytes of a step grow with the longest letter of a batch. To
    measure makes a step slower, so shorter ones are left out.
    """

    def __init__(self, steps: int = 5) -> None:
        """Choose how many steps to measure."""
        super().__init__()
        self.fullest, self.longest = None, 0
        self._chosen, self._count = set(), steps

    def on_train_begin(self, args, state, control, train_dataloader, **_):
        """Find the steps that get the longest letters."""
        letters = train_dataloader.dataset
        # A copy, because drawing would change the order of the run.
        drawn = deepcopy(train_dataloader.batch_sampler, {id(letters): letters})
        lengths = [max(len(letters[i]["input_ids"]) for i in b) for b in drawn]
        size = args.gradient_accumulation_steps
        used = range(min(len(lengths), size * args.max_steps))
        order = sorted(used, key=lambda n: -lengths[n])
        later = [n for n in order if n % size]  # there, gradients live already
        chosen = [*order[: self._count], *later[: self._count]]
        self.longest = lengths[order[0]]
        self._chosen = {n // size + 1 for n in chosen}

    def on_step_begin(self, args, state, control, **others):
        """Measure the step if it was chosen."""
        step = state.global_step + 1
        self.step = step if step in self._chosen else 0
        super().on_step_begin(args, state, control, **others)

    def on_step_end(self, args, state, control, model, optimizer, **_):
        """Keep the step if it is the fullest so far."""
        if state.global_step != self.step:
            return
        # The first step made the optimizer's states only at its end.
        self._live.note_residents(model, optimizer)
        super().on_step_end(args, state, control, model=model)
        # Without the scratch memory of kernels: no two cards agree on it.
        history = self._live.history
        ledger = history.ledger(history.fullest()[1])
        measured = replace(self.breakdown, **ledger.parts, ledger=ledger)
        if not self.fullest or measured.allocated > self.fullest.allocated:
            self.fullest = measured


def play(config: FinetuneConfig, course: Course, split: str = "test") -> Score:
    """Train, measure that very run, judge it, and keep the round.

    It takes half a minute or less. A round on ``validation`` is
    practice, and is not kept. Raises CourseError for a config that
    the rules forbid.
    """
    config = replace(config, dtype=config.dtype_on(detect()))
    _check_rules(config, course)
    letters, begin = load_dialogues(split), time.perf_counter()
    run, fullest = train_measured(config)
    loss = held_out_loss(run.model, run.tokenizer, letters)
    seconds = time.perf_counter() - begin
    score = Score(course, config, fullest, loss, seconds, split)
    _PLAYED[score] = list(vars(score).values())
    if split == "test" and course in COURSES.values():
        keep_round(_as_round(score))
    return score


def _as_round(score: Score) -> Round:
    usual, chosen = asdict(FinetuneConfig()), asdict(score.config)
    chosen = {name: value for name, value in chosen.items() if value != usual[name]}
    facts = {"peak": score.peak, "loss": score.loss, "passed": score.passed}
    return {"course": score.course.name, **facts, "config": chosen}


_PLAYED: WeakKeyDictionary[Score, list] = WeakKeyDictionary()


def was_played(score: Score) -> bool:
    """Return whether ``play`` made a score, and nobody changed it since."""
    return _PLAYED.get(score) == list(vars(score).values())


def train_measured(config: FinetuneConfig) -> tuple[FinetuneResult, MemoryBreakdown]:
    """Return a run on the support desk's letters, and what lived at its fullest moment."""
    meter = FullestStep()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        run = finetune(config, load_dialogues("train"), folder, callbacks=[meter])
    if meter.length != meter.longest:
        got = f"{meter.longest} tokens expected, {meter.length} measured"
        do = "Report this: the Trainer draws letters in another order than golf.py expects."
        raise CourseError("A round is measured at its longest letters.", got, do)
    return run, meter.fullest


def _check_rules(config: FinetuneConfig, course: Course) -> None:
    if not isinstance(course, Course):
        do = f"Use {', '.join(f'COURSES[{name!r}]' for name in COURSES)}."
        raise CourseError("A round is played on a course.", repr(course), do)
    if config.model != "embedded":  # it alone has learned, and par was reached with it
        got = f"model={config.model!r}"
        raise CourseError("Golf is played with the embedded model.", got, "Leave model out.")
    if course.method not in ("", config.method):
        must = f"The {course.name} is played with method={course.method!r}."
        raise CourseError(must, f"method={config.method!r}", "Or take another course.")
    letters = config.max_steps * config.gradient_accumulation_steps * config.batch_size
    if letters > course.letters:
        must = f"A round on the {course.name} trains on at most {course.letters} letters."
        got = f"max_steps * gradient_accumulation_steps * batch_size = {letters}"
        raise CourseError(must, got, "Make one of the three smaller.")
    weights = predict_memory(config).weights
    if weights >= course.budget:
        got = f"weights of {show_bytes(weights)}, a budget of {show_bytes(course.budget)}"
        do = "Store fewer bytes a weight, or take another course."
        raise CourseError("A budget holds the weights, and more to train them.", got, do)


def scores() -> Scorecard:
    """Return the table of one's own rounds; ``ftcourse/scorecard.py`` says where it is."""
    return Scorecard(read_rounds(), COURSES)
