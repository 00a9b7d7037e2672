import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ftcourse import check
from ftcourse.check.exercise import Exercise
from ftcourse.check.start_here import TOO_LARGE
from ftcourse.config import FinetuneConfig
from ftcourse.errors import CourseError
from ftcourse.hardware import CARDS, Card
from ftcourse.memory import predict_memory, show_bytes

EXERCISES = [name for name in dir(check) if isinstance(getattr(check, name), Exercise)]


@pytest.fixture(autouse=True)
def progress_file(tmp_path, monkeypatch):
    path = tmp_path / "progress.json"
    monkeypatch.setenv("FTCOURSE_PROGRESS", str(path))
    return path


@pytest.mark.parametrize("name", EXERCISES)
def test_the_solution_passes(name):
    scope = {"FinetuneConfig": FinetuneConfig}
    verdict = getattr(check, name)(eval(check.solution(name), scope))
    assert verdict
    assert repr(verdict).startswith("Right. ")


COUNT, GIB = 8.03e9, 2**30


@pytest.mark.parametrize(
    "right", [COUNT * 2 / GIB, 8e9 * 2 / GIB, 15, 14.9, np.float32(14.957), np.float64(14.96)]
)
def test_weight_gib_leaves_room_for_rounding(right):
    assert check.weight_gib(right).passed


@pytest.mark.parametrize(
    ("mutant", "question"),
    [
        (COUNT * 2 / 10**9, "Did you divide by 10**9?"),
        (16, "Did you divide by 10**9?"),
        (COUNT * 16 / GIB, "Did you multiply by 16?"),
        (COUNT * 16 / 10**9, "Did you multiply by 16?"),
        (COUNT * 4 / GIB, "four bytes a weight?"),
        (COUNT * 4 / 10**9, "four bytes a weight?"),
        (COUNT / GIB, "one byte a weight?"),
        (COUNT / 2 / GIB, "half a byte a weight?"),
        (COUNT * 2, "Is that in bytes?"),
        (COUNT * 2 / 2**20, "Is that in MiB?"),
        (8, "the number of weights, in billions?"),
        (8_030_261_248, "the number of weights?"),
        (20, "too much"),
        (-1, "too little"),
        (float("nan"), "A finite number"),
        (True, "Is yours a bool?"),
        ("14.96", "Is yours a str?"),
    ],
)
def test_weight_gib_names_the_bug(mutant, question):
    verdict = check.weight_gib(mutant)
    assert not verdict
    assert question in verdict.says


@pytest.mark.parametrize(
    "change",
    [
        {"method": "qlora"},
        {"method": "qlora", "batch_size": 1, "gradient_accumulation_steps": 4},
        {"method": "qlora", "rank": 64, "optimizer": "paged_adamw_8bit"},
        {"method": "qlora", "bits": 8, "batch_size": 1, "gradient_accumulation_steps": 4},
    ],
)
def test_fits_t4_takes_every_run_that_fits_and_learns_from_the_same_tokens(change):
    assert check.fits_t4(replace(TOO_LARGE, **change)).passed


@pytest.mark.parametrize(
    ("change", "question"),
    [
        ({}, "The weights alone take 15.11 GiB: what would make them smaller?"),
        ({"rank": 1}, "The weights alone take"),
        ({"method": "full"}, "The weights alone take"),
        ({"batch_size": 1, "gradient_accumulation_steps": 4}, "The weights alone take"),
        ({"method": "qlora", "gradient_checkpointing": False}, "The largest part: activations."),
        ({"method": "qlora", "bits": 8}, "The largest part: activations."),
        ({"method": "qlora", "batch_size": 1}, "still learn from 4 sequences?"),
        ({"method": "qlora", "max_length": 512}, "still see 1024 tokens"),
        ({"model": "qwen2.5-0.5b"}, "Is qwen2.5-0.5b the model that was asked for?"),
    ],
)
def test_fits_t4_names_the_bug(change, question):
    verdict = check.fits_t4(replace(TOO_LARGE, **change))
    assert not verdict
    assert question in verdict.says


def test_fits_t4_says_how_far_over_a_run_is():
    over = predict_memory(TOO_LARGE, CARDS["T4"]).allocated - CARDS["T4"].memory
    assert over > 2**30
    assert f"It is {show_bytes(over)} over." in check.fits_t4(TOO_LARGE).says


@pytest.mark.parametrize(
    ("mutant", "question"),
    [
        ("weights", "how much of the longer bar are they?"),
        ("gradients", "Has a frozen weight a gradient?"),
        ("optimizer", "For how many numbers does it keep its states"),
        ("overhead", "Can you find it in the picture at all?"),
        ("logits", "One of five words"),
        (3, "One of five words"),
        (["activations"], "One of five words"),
    ],
)
def test_unshrunk_part_names_the_bug(mutant, question):
    verdict = check.unshrunk_part(mutant)
    assert not verdict
    assert question in verdict.says


def test_activations_are_the_part_that_lora_does_not_shrink():
    small = FinetuneConfig(batch_size=16, max_length=160, gradient_checkpointing=False)
    desk = Card("CPU", 16 * GIB)
    full, lora = (predict_memory(replace(small, method=m), desk) for m in ("full", "lora"))
    assert lora.largest_part == "activations"
    assert lora.activations > 0.9 * full.activations
    assert lora.weights < 0.1 * lora.allocated
    assert lora.overhead < 0.01 * lora.allocated
    assert lora.optimizer < 0.3 * full.optimizer


def test_unshrunk_part_ignores_capitals_and_spaces():
    assert check.unshrunk_part(" Activations ").passed


class Nasty:
    """Raises whatever is done with it."""

    def __getattr__(self, name):
        raise RuntimeError(name)

    def __repr__(self):
        raise RuntimeError("repr")

    def __eq__(self, other):
        raise RuntimeError("eq")

    def __bool__(self):
        raise RuntimeError("bool")

    __hash__ = None


class NastyText(str):
    def strip(self, *args):
        raise RuntimeError("strip")


def raises():
    raise RuntimeError("called")


NASTY = [
    *(
        0,
        -1,
        10**400,
        1e308,
        float("inf"),
        float("nan"),
        1j,
        True,
        b"bytes",
        "",
        "text",
        NastyText(),
    ),
    *([], {}, set(), (1, 2), object(), Nasty(), Nasty, raises, ValueError("an error"), ValueError),
    *(np.zeros(3), np.array(14.96), np.array(["a"]), torch.zeros(2, 2), torch.tensor(14.96)),
    *(TOO_LARGE, replace(TOO_LARGE, model="no/such model"), FinetuneConfig, check.Verdict),
]


@pytest.mark.parametrize("nasty", NASTY, ids=lambda nasty: type(nasty).__name__)
@pytest.mark.parametrize("name", EXERCISES)
def test_no_answer_makes_a_check_raise(name, nasty):
    verdict = getattr(check, name)(nasty)
    assert isinstance(verdict, check.Verdict)
    assert verdict.says.strip()
    assert not verdict.passed


@pytest.mark.parametrize("answer", [(), (None,), (...,)])
@pytest.mark.parametrize("name", EXERCISES)
def test_an_exercise_without_an_answer_says_where_help_is(name, answer, progress_file):
    verdict = getattr(check, name)(*answer)
    assert not verdict
    assert f'check.hint("{name}", 1)' in verdict.says
    assert not progress_file.exists()


@pytest.mark.parametrize("name", EXERCISES)
def test_there_are_three_different_hints(name):
    assert check.hint(name) == check.hint(name, 1)
    assert len({check.hint(name, number) for number in (1, 2, 3)}) == 3


def test_hints_refuse_what_does_not_exist():
    with pytest.raises(CourseError, match="fits_t4"):
        check.hint("weight")
    with pytest.raises(CourseError, match="three hints"):
        check.hint("weight_gib", 4)


def test_progress_is_kept_and_a_pass_stays_a_pass():
    for answer in (16, 15, 16):
        check.weight_gib(answer)
    check.unshrunk_part("weights")
    assert check.progress() == {
        "weight_gib": {"tries": 3, "passed": True},
        "unshrunk_part": {"tries": 1, "passed": False},
    }


def test_progress_is_in_the_working_folder_by_default(tmp_path, monkeypatch):
    monkeypatch.delenv("FTCOURSE_PROGRESS")
    monkeypatch.chdir(tmp_path)
    check.weight_gib(15)
    assert json.loads(Path("ftcourse-progress.json").read_text(encoding="utf-8"))["weight_gib"][
        "passed"
    ]


@pytest.mark.parametrize(
    "damage", ["{", "[]", "3", '{"weight_gib": 1}', '{"a": {"tries": "x"}}', ""]
)
def test_a_damaged_file_is_renamed_and_kept(damage, progress_file):
    for n in (1, 2):
        progress_file.write_text(damage, encoding="utf-8")
        assert check.weight_gib(15).passed
        kept = progress_file.with_name(f"progress.damaged-{n}.json")
        assert kept.read_text(encoding="utf-8") == damage
    assert check.progress() == {"weight_gib": {"tries": 1, "passed": True}}


def test_a_file_of_other_bytes_is_renamed_too(progress_file):
    progress_file.write_bytes(b"\xff\xfe\x00")
    assert check.weight_gib(15).passed
    assert progress_file.with_name("progress.damaged-1.json").exists()


def test_a_missing_folder_does_not_break_a_check(tmp_path, monkeypatch):
    monkeypatch.setenv("FTCOURSE_PROGRESS", str(tmp_path / "missing" / "progress.json"))
    verdict = check.weight_gib(15)
    assert verdict.passed
    assert "(your progress could not be saved: No such file or directory)" in verdict.says


def run(code):
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_lessons_file_is_loaded_only_when_it_is_asked_for():
    run(
        "import sys\nfrom ftcourse import check\n"
        "assert not hasattr(check, '_repr_html_')\n"
        "assert 'ftcourse.check.start_here' not in sys.modules\n"
        "assert check.weight_gib.name == 'weight_gib'\n"
        "assert 'torch' not in sys.modules"
    )


@pytest.fixture
def new_lesson(tmp_path, monkeypatch):
    """A lesson that only adds its file, and that a test can see was imported."""
    (tmp_path / "new_lesson.py").write_text(
        "from ftcourse.check.exercise import Verdict, exercise\n"
        "@exercise(hints=('a', 'b', 'c'), solution='2')\n"
        "def two(mine):\n    'Judge two.'\n    return Verdict(mine == 2, 'Two is asked for.')\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(check, "__path__", [*check.__path__, str(tmp_path)])
    yield "ftcourse.check.new_lesson"
    sys.modules.pop("ftcourse.check.new_lesson", None)
    vars(check).pop("new_lesson", None)


def test_a_new_lesson_only_adds_its_file(new_lesson):
    assert check.two(2)
    assert not check.two(3)
    assert (check.hint("two", 3), check.solution("two")) == ("c", "2")
    assert {"two", "weight_gib", "hint"} <= set(dir(check))


def test_one_lessons_file_is_imported_without_the_others(new_lesson):
    run(
        f"import sys\nfrom ftcourse import check\ncheck.__path__.append({check.__path__[-1]!r})\n"
        "from ftcourse.check import start_here\n"
        "assert start_here.weight_gib is check.start_here.weight_gib\n"
        f"assert {new_lesson!r} not in sys.modules"
    )


def test_no_exercise_has_the_name_of_another_or_of_a_lesson():
    names = [exercise.name for exercise in check._exercises()]
    assert len({*names, *check._lessons()}) == len(names) + len(check._lessons())


def test_a_name_that_no_lesson_has_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'weight'"):
        _ = check.weight
