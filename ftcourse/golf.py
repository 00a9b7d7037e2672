"""VRAM golf: train the embedded model to a loss in few bytes, judged by measurement."""

import json
import os
import tempfile
import time
import warnings
from collections import defaultdict
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from ftcourse.config import FinetuneConfig
from ftcourse.data import load_dialogues
from ftcourse.errors import CourseError
from ftcourse.evaluate import held_out_loss
from ftcourse.files import write_whole
from ftcourse.hardware import detect
from ftcourse.measure import MemoryMeter
from ftcourse.memory import MemoryBreakdown, predict_memory
from ftcourse.memory.breakdown import show_bytes
from ftcourse.sweeps import load_sweep
from ftcourse.train import FinetuneResult, finetune

EDITION = 1  # rises when courses or letters change: older rounds then compare with nothing
Round = dict[str, Any]


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
        """The designers' best: the lowest peak in bytes."""
        return min(run["peak"] for run in designers(self))

    def __repr__(self) -> str:
        """Return the task in one line."""
        method = f"method={self.method!r}" if self.method else "any method"
        task = f"the {self.name}: {method}, {self.letters} letters"
        return f"{task}, loss {self.target:.2f} within {show_bytes(self.budget)}"


COURSES = {
    "green": Course("green", target=0.5, budget=10 * 2**20, method="lora"),
    "lake": Course("lake", target=0.4, budget=12 * 2**20, method="full"),
    "cliff": Course("cliff", target=0.3, budget=13 * 2**18),
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
        par = f"par {show_bytes(self.course.par)}" if self.course in COURSES.values() else "no par"
        parts = [f"  {name:<12}{show_bytes(n):>10}" for name, n in self.breakdown.parts.items()]
        return "\n".join(
            [
                f"{self.course} ({par})",
                f"peak {show_bytes(self.peak)} at {self.breakdown.moment}",
                *parts,
                f"{self.split} loss {self.loss:.3f}, {self.seconds:.0f} s",
                "reached" if self.passed else "not reached",
            ]
        )


class FullestStep(MemoryMeter):
    """Measures the steps that get the longest letters, and keeps the fullest of them.

    The bytes of a step grow with the longest letter of a batch. To measure makes a step slower, so
    the steps with shorter letters are left out.
    """

    def __init__(self, steps: int = 5) -> None:
        """Choose how many steps to measure."""
        super().__init__()
        self.fullest, self.longest, self._count = None, 0, steps

    def on_train_begin(self, args, state, control, train_dataloader, **_):
        """Find the steps that get the longest letters."""
        letters, drawn = train_dataloader.dataset, train_dataloader.batch_sampler
        size = args.gradient_accumulation_steps
        lengths = [  # from a copy, because drawing would change the order of the run
            max(len(letters[i]["input_ids"]) for i in batch)
            for batch in deepcopy(drawn, {id(letters): letters})
        ][: size * args.max_steps]
        order = sorted(range(len(lengths)), key=lambda n: -lengths[n])
        self.longest = lengths[order[0]]
        self._chosen = list(dict.fromkeys(n // size + 1 for n in order))[: self._count]

    def on_step_begin(self, args, state, control, **others):
        """Measure the step if it was chosen."""
        self.step = state.global_step + 1 if state.global_step + 1 in self._chosen else 0
        super().on_step_begin(args, state, control, **others)

    def on_step_end(self, args, state, control, model, optimizer, **_):
        """Keep the step if it is the fullest so far."""
        if state.global_step != self.step:
            return
        self._live.note_residents(model, optimizer)  # the first step made the optimizer's states
        super().on_step_end(args, state, control, model=model)
        # Without the scratch memory of kernels, which differs from card to card.
        ledger = self._live.history.ledger(self._live.history.fullest()[1])
        if self.fullest is None or sum(ledger.parts.values()) > self.fullest.allocated:
            self.fullest = replace(self.breakdown, **ledger.parts, ledger=ledger)


def play(config: FinetuneConfig, course: Course, split: str = "test") -> Score:
    """Train, measure the run itself, judge it, and keep the round in the table.

    It takes half a minute or less. A round on ``validation`` is practice, and is not kept. Raises
    CourseError for a config that the rules forbid.
    """
    config, begin = replace(config, dtype=config.dtype_on(detect())), time.perf_counter()
    _check_rules(config, course)
    run, fullest = train_measured(config)
    loss = held_out_loss(run.model, run.tokenizer, load_dialogues(split))
    score = Score(course, config, fullest, loss, time.perf_counter() - begin, split)
    _PLAYED[score] = list(vars(score).values())
    if split == "test" and course in COURSES.values():
        _keep(score)
    return score


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
    letters = config.max_steps * config.gradient_accumulation_steps * config.batch_size
    weights = predict_memory(config).weights if config.model == "embedded" else 0
    size, budget = show_bytes(weights), show_bytes(course.budget)
    for broken, must, got, do in (
        (
            config.model != "embedded",
            "Golf is played with the embedded model.",
            f"model={config.model!r}",
            "Leave model out.",
        ),
        (
            course.method not in ("", config.method),
            f"The {course.name} is played with method={course.method!r}.",
            f"method={config.method!r}",
            "Change the method, or take another course.",
        ),
        (
            letters > course.letters,
            f"On the {course.name}, a round trains on at most {course.letters} letters.",
            f"max_steps * gradient_accumulation_steps * batch_size = {letters}",
            "Make one of the three smaller.",
        ),
        (
            weights >= course.budget,
            "A budget holds the weights, and something to train them with.",
            f"weights of {size}, a budget of {budget}",
            "Store fewer bytes a weight, or take another course.",
        ),
    ):
        if broken:
            raise CourseError(must, got, do)


@dataclass(frozen=True)
class Scorecard:
    """The table of one's own rounds."""

    rounds: list[Round]

    def __repr__(self) -> str:
        """Return a line for each course: what it asks for, par, and one's best."""
        lines = [_LINE.format("course", "loss", "budget", "par", "your best", "loss", "rounds")]
        for name, course in COURSES.items():
            mine = [r for r in self.rounds if r["course"] == name]
            best = min((r for r in mine if r["passed"]), key=lambda r: r["peak"], default=None)
            yours = (show_bytes(best["peak"]), f"{best['loss']:.2f}") if best else ("-", "-")
            sizes = show_bytes(course.budget), show_bytes(course.par)
            lines.append(_LINE.format(name, f"{course.target:.2f}", *sizes, *yours, len(mine)))
        return "\n".join(lines)


_LINE = "{:<8}{:>6}{:>12}{:>12}{:>12}{:>7}{:>8}"


def scores() -> Scorecard:
    """Return the table, which is ``ftcourse-golf.json`` beside the progress file.

    FTCOURSE_GOLF names another file. A damaged file, or one of another edition, is renamed and
    kept, with a warning.
    """
    return Scorecard(_read(_path()))


def _path() -> Path:
    beside = Path(os.environ.get("FTCOURSE_PROGRESS") or "ftcourse-progress.json")
    return Path(os.environ.get("FTCOURSE_GOLF") or beside.with_name("ftcourse-golf.json"))


def _read(path: Path) -> list[Round]:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        if table["edition"] != EDITION:
            raise ValueError(f"edition {table['edition']!r}")
        numbers = [{name: float(r[name]) for name in ("loss", "peak")} for r in table["rounds"]]
        return [{**r, **each} for r, each in zip(table["rounds"], numbers, strict=True)]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError, KeyError) as error:
        names = (path.with_name(f"{path.stem}.aside-{n}.json") for n in count(1))
        aside = path.rename(next(name for name in names if not name.exists()))
        must = f"The table of golf is a whole file of edition {EDITION}."
        do = f"Nothing is lost: it is now {aside.name}, and a new table begins."
        warnings.warn(str(CourseError(must, f"{path}: {error}", do)), stacklevel=3)
        return []


def _keep(score: Score) -> None:
    usual = asdict(FinetuneConfig())
    chosen = {name: v for name, v in asdict(score.config).items() if v != usual[name]}
    facts = {"peak": score.peak, "loss": score.loss, "passed": score.passed, "config": chosen}
    try:
        with _alone(_path()) as path:
            rounds = [*_read(path), {"course": score.course.name, **facts}]
            write_whole(path, json.dumps({"edition": EDITION, "rounds": rounds}, indent=1) + "\n")
    except OSError as error:
        warnings.warn(f"This round could not be kept: {error.strerror}", stacklevel=3)


@contextmanager
def _alone(path: Path):
    """Wait while another round writes the file; a lock that was left behind holds for 5 s."""
    lock = path.with_suffix(".lock")
    for _ in range(100):
        with suppress(FileExistsError):
            lock.touch(exist_ok=False)
            break
        time.sleep(0.05)
    try:
        yield path
    finally:
        lock.unlink(missing_ok=True)
