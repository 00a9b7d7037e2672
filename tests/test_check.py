import json
import math
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
from ftcourse.memory import predict_memory
from ftcourse.memory.fit import judge_fit
from ftcourse.widgets.great import great_panel
from ftcourse.widgets.memory import memory_panel

EXERCISES = [name for name in dir(check) if isinstance(getattr(check, name), Exercise)]
GOLF = ("green", "lake", "cliff")  # whole rounds; test_golf plays one of them


@pytest.fixture(autouse=True)
def progress_file(tmp_path, monkeypatch):
    path = tmp_path / "progress.json"
    monkeypatch.setenv("FTCOURSE_PROGRESS", str(path))
    return path


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.extra if n in GOLF else ()) for n in EXERCISES],
)
def test_the_solution_passes(name):
    scope = {"replace": replace, "too_large": TOO_LARGE, "panel": great_panel(), "torch": torch}
    exec(check.solution(name), scope)
    verdict = getattr(check, name)(scope["mine"])
    assert verdict
    assert repr(verdict).startswith("✓ Right. ")


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
        (15.11, "Did you count the adapter too?"),
        (20, "too large"),
        (-1, "too small"),
        (float("nan"), "a finite one"),
        (True, "Is yours a bool?"),
        ("14.96", "Is yours a str?"),
    ],
)
def test_weight_gib_names_the_bug(mutant, question):
    verdict = check.weight_gib(mutant)
    assert not verdict
    assert question in verdict.says


@pytest.mark.parametrize("method", ["qlora"])
def test_fits_t4_takes_a_run_that_fits_after_one_change(method):
    assert check.fits_t4(replace(TOO_LARGE, method=method)).passed


@pytest.mark.parametrize(
    ("change", "question"),
    [
        ({}, "The weights alone take 15.11 GiB: what would make them smaller?"),
        ({"rank": 1}, "The weights alone take"),
        ({"method": "full"}, "The weights alone take"),
        ({"batch_size": 1, "gradient_accumulation_steps": 2}, "The weights alone take"),
        ({"bits": 8}, "Which method reads the field bits? Yours is lora."),
        ({"method": "qlora", "gradient_checkpointing": False}, "make the activations smaller?"),
        ({"method": "qlora", "bits": 8}, "make the weights smaller?"),
        ({"method": "qlora", "batch_size": 1}, "still learn from 2 texts?"),
        ({"method": "qlora", "max_length": 512}, "still see 1024 tokens"),
        ({"model": "qwen2.5-0.5b"}, "Is qwen2.5-0.5b the model that was asked for?"),
        ({"method": "qlora", "rank": 64}, "you changed method and rank. Which one is enough?"),
    ],
)
def test_fits_t4_names_the_bug(change, question):
    verdict = check.fits_t4(replace(TOO_LARGE, **change))
    assert not verdict
    assert question in verdict.says


def test_fits_t4_says_how_far_over_a_run_is():
    assert repr(judge_fit(predict_memory(TOO_LARGE, CARDS["T4"]), CARDS["T4"])) in (
        check.fits_t4(TOO_LARGE).says
    )


def moved(**values):
    panel = memory_panel()
    for name, value in values.items():
        panel.controls[name].value = value
    return panel


ENOUGH = {"max_length": 8192, "batch_size": 1, "loss": "chunked"}


@pytest.mark.parametrize(
    ("change", "question"),
    [
        ({"max_length": 512}, "max length is 512. What must give way"),
        ({"max_length": 4096}, "max length is 4096. What must give way"),
        ({"batch_size": 4}, "How many texts are read at once?"),
        ({"batch_size": 2}, "narrowly and may fail"),
        ({"loss": "full"}, "Must the scores of all words be in memory at once?"),
        ({"gradient_checkpointing": False}, "Which other choice keeps more than it must?"),
        ({"card": "A100 80GB"}, "Does it also work with T4?"),
        ({"model": "qwen2.5-0.5b"}, "Does it also work with llama-3.1-8b?"),
        ({"method": "lora"}, "Does it also work with qlora?"),
    ],
)
def test_reach_8192_names_the_bug(change, question):
    verdict = check.reach_8192(moved(**ENOUGH | change))
    assert not verdict
    assert question in verdict.says


def test_reach_8192_wants_the_panel_itself():
    assert "The panel itself" in check.reach_8192(memory_panel().text).says


def by_hand(scores, labels):
    """Return a right answer written in another way: one word after another, as lists."""
    count = sum(label != -100 for label in labels.tolist())
    rows = []
    for row, label in zip(scores.tolist(), labels.tolist(), strict=True):
        exps = [math.exp(score) for score in row]
        slope = [e / sum(exps) - (n == label) for n, e in enumerate(exps)]
        rows.append([s / count * (label != -100) for s in slope])
    return rows


def theirs(scores, labels):
    scores = scores.clone().requires_grad_()
    return torch.autograd.grad(torch.nn.functional.cross_entropy(scores, labels), scores)[0]


@pytest.mark.parametrize("right", [by_hand, theirs])
def test_loss_gradient_takes_every_right_function_and_its_truth_is_torchs(right):
    assert check.loss_gradient(right).passed


def counts_the_ignored(scores, labels):
    found = scores.softmax(1)
    found[labels != -100, labels[labels != -100]] -= 1
    return found / len(labels)


def wrong_axis(scores, labels):
    found = scores.softmax(0) * (labels != -100)[:, None]
    found[labels != -100, labels[labels != -100]] -= 1
    return found / (labels != -100).sum()


def in_place(scores, labels):
    scores.copy_(theirs(scores, labels))
    return scores


def test_loss_gradient_is_not_misled_by_a_function_that_changes_what_it_is_given():
    assert check.loss_gradient(in_place).passed


@pytest.mark.parametrize(
    ("mutant", "question"),
    [
        (lambda s, y: theirs(s, y) * (y != -100).sum(), "Yours is their sum"),
        (
            lambda s, y: theirs(s, y) * (y != -100).sum() / len(y),
            "By how many places do you divide",
        ),
        (counts_the_ignored, "does it count in the mean?"),
        (lambda s, y: -theirs(s, y), "Which sign"),
        (lambda s, y: s.softmax(1) * (y != -100)[:, None] / (y != -100).sum(), "minus one"),
        (
            lambda s, y: theirs(s, y) + s.softmax(1) * (y == -100)[:, None] / (y != -100).sum(),
            "Do places with the label -100 move",
        ),
        (wrong_axis, "Do the probabilities of one place"),
        (lambda s, y: None, "Does it end with a return?"),
        (lambda s, y: theirs(s, y) * 3, "Where do they part?"),
        (lambda s, y: s[0], "A result of shape (3, 5) is asked for where yours has (5,)."),
        (lambda s, y: 0.5, "where yours has ()"),
        (lambda s, y: s[y], "Is -100 a column of scores? Which rows may you index?"),
        (lambda s: s, "Your function stopped with TypeError"),
        (3, "A function is asked for. Is yours an int?"),
    ],
)
def test_loss_gradient_names_the_bug(mutant, question):
    verdict = check.loss_gradient(mutant)
    assert not verdict
    assert question in verdict.says


@pytest.mark.parametrize(
    ("mutant", "question"),
    [
        ("weights", "how much of the longer bar are they?"),
        ("gradients", "Can you find them in the picture?"),
        ("optimizer", "For how many numbers does it keep its states"),
        ("overhead", "Can you find it in the picture at all?"),
        ("activation", "Do you mean activations?"),
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


@pytest.mark.parametrize("mine", [" Activations ", "the activations", "Activations."])
def test_unshrunk_part_ignores_capitals_spaces_and_an_article(mine):
    assert check.unshrunk_part(mine).passed


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


RIGHT_IS_ZERO = ("voice_on_passages", "secrets_behind_a_label")


@pytest.mark.parametrize("name", EXERCISES)
def test_no_answer_makes_a_check_raise(name):
    for nasty in NASTY:  # here, since as many tests would take longer than they try
        given = type(nasty).__name__
        verdict = getattr(check, name)(nasty)
        assert isinstance(verdict, check.Verdict), given
        assert verdict.says.strip(), given
        right = name in RIGHT_IS_ZERO and type(nasty) is int and nasty == 0
        assert verdict.passed == right, given


@pytest.mark.parametrize("answer", [(), (None,), (...,)])
@pytest.mark.parametrize("name", EXERCISES)
def test_an_exercise_without_an_answer_says_where_help_is(name, answer, progress_file):
    verdict = getattr(check, name)(*answer)
    assert not verdict
    assert f'check.hint("{name}", 1)' in verdict.says
    assert not progress_file.exists()


def test_a_function_that_is_not_written_yet_is_no_answer(progress_file):
    assert "No answer so far" in check.loss_gradient(lambda scores, labels: ...).says
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
        "@exercise(hints=('a', 'b', 'c'), solution='mine = 2')\n"
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
    assert (check.hint("two", 3), check.solution("two")) == ("c", "mine = 2")
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


def test_a_verdict_has_a_mark_that_needs_no_colour_and_is_shown_as_a_sentence():
    right, wrong = check.unshrunk_part("activations"), check.unshrunk_part("<weights>")
    assert "<b>✓ Right.</b> They grow" in right._repr_html_()
    assert "<b>✗ Not yet.</b> One of five" in wrong._repr_html_()
    assert max(map(len, repr(wrong).splitlines())) <= 80


def test_hints_and_solutions_are_shown_without_quotes():
    assert repr(check.hint("unshrunk_part", 2)).startswith("LoRA trains fewer")
    assert repr(check.solution("unshrunk_part")) == "mine = 'activations'"
    assert "```python" in check.solution("unshrunk_part")._repr_markdown_()


def test_a_guess_that_is_no_number_is_asked_for_again():
    assert repr(check.noted(voice=..., times="60")).startswith("No guess yet for voice and times.")
    assert (
        repr(check.noted(voice=50, times=2.5)) == "Noted: voice 50, times 2.5. We come back to it."
    )


def test_guesses_stand_beside_the_measurements_and_one_that_was_not_made_is_no_error():
    shown = check.revisit({"times & more": (2, 23), "voice": (..., 100), "steps": (None, 3)})
    assert repr(shown).splitlines() == [
        "              your guess  measured",
        "times & more  2           23",
        "voice         none        100",
        "steps         none        3",
    ]
    assert "<td>times &amp; more</td><td>2</td><td>23</td>" in shown._repr_html_()
    assert "measured" not in repr(check.revisit({"GiB": (60, 61)}, came="predicted"))
