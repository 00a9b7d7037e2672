"""The folder classroom/: what it says is what lessons, checks and measurements say today."""

import json
import re
import shutil
import subprocess
import sys
from hashlib import sha256
from importlib import import_module
from pathlib import Path

import nbformat
import pytest

from ftcourse import check

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "classroom"


@pytest.fixture
def module(monkeypatch):
    """Return a function that imports a script of classroom/ or a benchmark."""
    for name in ("classroom", "benchmarks"):
        monkeypatch.syspath_prepend(str(ROOT / name))
    yield import_module
    for name in [path.stem for path in FOLDER.glob("*.py")] + ["classroom"]:
        sys.modules.pop(name, None)


# --- the instructor's page -----------------------------------------------------------------------


def test_the_pages_are_what_their_script_makes_of_the_lessons_today(module):
    for path, text in module("make_page").pages().items():
        assert path.read_text(encoding="utf-8") == text, "run: python classroom/make_page.py"


def test_a_lessons_sections_share_its_minutes_and_none_is_shorter_than_its_exercises(module):
    for lesson in module("course_times").all_lessons().values():
        assert sum(each.minutes for each in lesson.sections) == pytest.approx(lesson.minutes)
        assert all(each.minutes > each.exercises for each in lesson.sections)


def test_a_plan_leaves_a_tenth_of_the_class_and_fills_the_rest(module):
    times = module("course_times")
    lessons = times.all_lessons()
    for minutes, plan in times.PLANS.items():
        parts = [part for name, heads in plan.items() for part in times.taken(lessons[name], heads)]
        assert 0.75 * minutes < sum(part.minutes for part in parts) <= 0.9 * minutes


def test_a_machine_for_a_class_holds_every_learners_server_and_kernel(module):
    page = module("make_page")

    def run(lesson, kernels, threads, marks):
        where = {"cores": 2, "memory_gib": 8, "system": "x", "python": "3", "versions": {}}
        where |= {"busy_cores": 0, "date": "2026-01-01"}
        return {"lesson": lesson, "kernels": kernels, "threads": threads, "marks": marks} | where

    def mark(seconds, own):
        return {"seconds": [seconds] * 3, "own_mib": [own] * 3, "share_mib": [own + 24] * 3}

    runs = [
        run("00_start_here", 1, 1, {"start-train": mark(50, 924)}),
        run("00_start_here", 4, 1, {"start-train": mark(110, 900)}),
        run("no lesson", 1, 0, {"server": mark(5, 100)}),
    ]
    text = page.machines_part(runs)
    assert "| 10 | 12 | 22 |" in text  # 10 times 1 GiB, or 1.9, and 2 for the system
    assert "4 kernels at once on 2 cores took 2.2 times as long" in text
    assert "| `00_start_here`, `start-train` | 4 | 1 | 110 | 900 | 3.6 |" in text
    assert "had other work" not in text
    runs[0]["busy_cores"] = 1.5
    assert "Up to 1.5 of its cores had other work" in page.machines_part(runs)


def test_of_a_setting_measured_twice_the_quietest_line_counts(module, monkeypatch, tmp_path):
    page, folder = module("make_page"), tmp_path / "measured"
    folder.mkdir()
    lines = [
        {"lesson": "a", "kernels": 1, "threads": 1, "busy_cores": busy, "n": n}
        for n, busy in enumerate([1.5, 0.1, 0.9])
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "classroom.jsonl").write_text(text, encoding="utf-8")
    monkeypatch.setattr(page, "course_path", lambda name: tmp_path)
    assert [line["n"] for line in page.measured()] == [1]


def test_every_measured_mark_is_a_cell_of_its_lesson(module):
    benchmark = module("classroom")
    for lesson, marks in benchmark.MARKS.items():
        parts = dict(benchmark._parts(lesson))
        assert list(parts) == list(marks)
        assert all(parts.values())
    cells = [cell for part in dict(benchmark._parts("00_start_here")).values() for cell in part]
    (choices,) = [cell for cell in cells if "max_steps=" in cell]
    assert "max_steps=40" in choices


def test_every_lesson_has_questions_for_discussion():
    text = (FOLDER / "README.md").read_text(encoding="utf-8").partition("## Questions for")[2]
    lessons = {path.stem[:2] for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert lessons <= set(re.findall(r"(?m)^- \*\*(\d\d)\*\*: .+\?$", text))


def test_every_file_that_the_page_links_to_exists_and_so_does_every_script():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    links = [each for each in re.findall(r"\]\(([^)#]+)\)", text) if ":" not in each]
    scripts = re.findall(r"python (\w+/\w+\.py)", text)
    assert len(links) > 1 and len(scripts) > 2  # noqa: PT018
    assert [each for each in links if not (FOLDER / each).exists()] == []
    assert [each for each in scripts if not (ROOT / each).exists()] == []


# --- mistakes ------------------------------------------------------------------------------------


def test_every_exercise_has_its_mistakes(module):
    found = module("mistakes").all_mistakes()
    assert {name: len(asked) for name, asked in found.items() if len(asked) < 2} == {}
    assert all(
        question.endswith(("?", ".", "!")) for asked in found.values() for _, question in asked
    )


def test_a_check_that_is_read_for_its_mistakes_judges_as_before(module):
    before = repr(check.weight_gib(3))
    module("mistakes").mistakes(check.weight_gib)
    assert repr(check.weight_gib(3)) == before


@pytest.mark.parametrize("name", ["weight_gib", "adapter_numbers", "stored_layer", "logits_gib"])
def test_the_question_on_the_page_is_the_one_that_the_learner_gets(
    name, module, tmp_path, monkeypatch
):
    monkeypatch.setenv("FTCOURSE_PROGRESS", str(tmp_path / "progress.json"))
    exercise = getattr(check, name)
    handed = module("mistakes")._bugs(exercise)
    assert len(handed) >= 4
    for wrong, question in handed.items():
        assert exercise(wrong).says == question


# --- answers -------------------------------------------------------------------------------------


def cells(notebook):
    return {cell.id: cell.source for cell in notebook.cells}


def test_each_exercise_of_a_lesson_is_answered_once_and_nothing_else_is_changed(module):
    answers = module("make_answers")
    names = []
    for path in answers.lessons():
        lesson, filled = nbformat.read(path, 4), answers.answered(path)
        found = {cell.id: answers.asked(cell) for cell in lesson.cells if answers.asked(cell)}
        names += found.values()
        new = cells(filled)
        for key, source in cells(lesson).items():
            if key not in found:
                assert new[key] == source
                continue
            assert str(check.solution(found[key])) in new[key]
            assert not re.search(r"(?m)^\s*(\w+ = |return )?\.\.\.", new[key])
            assert new[key].endswith(f"check.{found[key]}(mine)")
        added = set(new) - set(cells(lesson))
        assert added == {"for-instructors", *(f"hints-{name}" for name in found.values())}
        nbformat.validate(filled)
    in_prose = {"lake", "cliff"}  # two more courses of golf, which no cell asks for
    assert sorted(names) == sorted({each.name for each in check._exercises()} - in_prose)


def test_what_prepares_an_answer_stays_in_its_cell(module):
    answers = module("make_answers")
    source = "setting = 3  # change it\n...  # look\nmine = ...\ncheck.weight_gib(mine)"
    assert answers.answer(source, "weight_gib").splitlines()[0] == "setting = 3"
    source = "def f(x):\n    return ...\n\n\ncheck.loss_gradient(f)"
    assert "def f" not in answers.answer(source, "loss_gradient")


def test_learners_never_get_the_answers():
    config = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'only-include = ["ftcourse", "notebooks", "data"]' in config


@pytest.mark.extra
@pytest.mark.parametrize("lesson", ["01_quantize", "08_which_one"])
def test_an_answered_lesson_runs_and_every_solution_passes(lesson, tmp_path):
    command = [sys.executable, str(FOLDER / "make_answers.py"), str(tmp_path), lesson, "--run"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / f"{lesson}.answers.ipynb").exists()


def test_a_lesson_that_is_not_there_is_refused(module, tmp_path, capsys):
    assert module("make_answers").main([str(tmp_path), "99_none"]) == 2
    assert "no lesson: 99_none" in capsys.readouterr().err


# --- the bundle ----------------------------------------------------------------------------------


@pytest.fixture
def bundle(tmp_path, module):
    """A bundle whose only wheel is no wheel: enough for what is checked before installing."""
    out = tmp_path / "bundle"
    (out / "wheels").mkdir(parents=True)
    (out / "wheels" / "ftcourse-0-py3-none-any.whl").write_bytes(b"a wheel" * 1000)
    module("make_bundle").finish(out, sys.executable, 0.0)
    return out


@pytest.fixture
def problems(bundle, module, monkeypatch):
    install = module("install")
    monkeypatch.setattr(install, "HERE", bundle)
    return install.problems


def test_a_bundle_lists_the_sha256_of_all_that_it_holds(bundle):
    lines = (bundle / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    listed = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    files = {p.relative_to(bundle).as_posix(): p for p in bundle.rglob("*") if p.is_file()}
    assert set(listed) == set(files) - {"SHA256SUMS"}
    assert {"README.md", "install.py", "bundle.json"} < set(listed)
    for name, digest in listed.items():
        assert sha256(files[name].read_bytes()).hexdigest() == digest


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum")
def test_the_list_is_one_that_sha256sum_reads(bundle):
    command = ["sha256sum", "--check", "--quiet", "SHA256SUMS"]
    subprocess.run(command, cwd=bundle, check=True)


def test_a_whole_bundle_for_this_python_has_no_problem(problems):
    assert problems() == []


def test_a_damaged_wheel_and_a_missing_one_are_named_before_anything_is_installed(bundle, problems):
    (wheel,) = (bundle / "wheels").iterdir()
    wheel.write_bytes(b"x")
    assert problems() == [f"wheels/{wheel.name} is damaged. Copy it again."]
    wheel.unlink()
    assert problems() == [f"wheels/{wheel.name} is missing. Copy the folder again."]


@pytest.mark.parametrize(
    ("fact", "other", "said"),
    [
        ("python", "3.2", "The wheels are for Python 3.2, and this is"),
        ("platform", "plan9-mips", "The wheels are for plan9-mips, and this is"),
    ],
)
def test_a_bundle_for_another_python_or_machine_is_refused(fact, other, said, bundle, problems):
    facts = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))
    (bundle / "bundle.json").write_text(json.dumps(facts | {fact: other}), encoding="utf-8")
    assert problems()[0].startswith(said)


def test_the_installer_stops_with_2_and_makes_nothing_if_a_file_is_damaged(bundle, tmp_path):
    (bundle / "README.md").write_text("other", encoding="utf-8")
    command = [sys.executable, str(bundle / "install.py"), str(tmp_path / "venv")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, (tmp_path / "venv").exists()) == (2, False)
    assert "README.md is damaged" in done.stderr


def test_the_installer_needs_nothing_but_python(bundle):
    imported = re.findall(
        r"(?m)^(?:from|import) (\w+)", (bundle / "install.py").read_text(encoding="utf-8")
    )
    assert set(imported) <= set(sys.stdlib_module_names)


def test_the_bundles_page_has_the_commands_that_the_installer_runs(bundle):
    page = (bundle / "README.md").read_text(encoding="utf-8")
    code = (bundle / "install.py").read_text(encoding="utf-8")
    for word in ("--no-index", "--find-links", "venv"):
        assert word in page
        assert word in code
    assert "ftcourse[lab]" in page


def test_a_bundle_begins_in_an_empty_folder(bundle, module, capsys):
    assert module("make_bundle").main([str(bundle)]) == 2
    assert "not empty" in capsys.readouterr().err


def test_torch_for_the_cpu_comes_from_where_the_readme_has_it(module):
    assert module("make_bundle").CPU_TORCH in (ROOT / "README.md").read_text(encoding="utf-8")
