"""What .ci/release.py asks before a tag."""

import importlib.util
import subprocess
from datetime import date
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TODAY = date(2026, 12, 1)
CHANGELOG = """# Changelog

## [Unreleased]

## [0.2.0] - 2026-11-30

- Something.

## [0.1.0] - 2026-01-02

- All of it.
"""


@pytest.fixture(scope="module")
def release():
    spec = importlib.util.spec_from_file_location("release", ROOT / ".ci" / "release.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("", "", ""),
        ("## [Unreleased]\n", "", "does not begin with ## [Unreleased]"),
        ("## [Unreleased]\n", "## [Unreleased]\n\n- New.\n", "lines under [Unreleased]"),
        ("[0.2.0] -", "0.2.0,", "## 0.2.0, 2026-11-30 is not of the form"),
        ("## [0.2.0]", "## [0.3.0]", "newest section is not [0.2.0]"),
        ("2026-11-30", "2026-11-02", "dates [0.2.0] 2026-11-02, and today is 2026-12-01"),
        ("2026-11-30", "2026-12-02", "dates [0.2.0] 2026-12-02"),
        ("- Something.\n", "", "says nothing under [0.2.0]"),
        ("[0.1.0]", "[0.2.1]", "from the newest to the oldest"),
    ],
)
def test_the_changelog_has_the_version_with_todays_date_and_nothing_unreleased(
    release, old, new, said
):
    problems = list(release.changelog_problems(CHANGELOG.replace(old, new, 1), "0.2.0", TODAY))
    assert bool(problems) == bool(said)
    assert said in "".join(problems)


def test_the_tag_is_the_packages_version(release):
    from ftcourse import __version__

    assert list(release.version_problems(ROOT, f"v{__version__}")) == []
    assert list(release.version_problems(ROOT, __version__)) == [
        f"The tag is {__version__}, and ftcourse/__init__.py says {__version__}."
    ]


def test_colabs_list_says_its_date_and_grows_old(release):
    text = (ROOT / "tests" / "colab.txt").read_text(encoding="utf-8")
    assert list(release.colab_problems(text, date(2026, 8, 20))) == []
    (problem,) = release.colab_problems(text, date(2030, 1, 1))
    assert "take the newest list" in problem


def test_every_recorded_run_of_ours_has_a_date_and_grows_old(release):
    folder = ROOT / "data" / "measured"
    own = [path.name for path in folder.glob("*.jsonl") if not path.name.startswith("published")]
    assert list(release.recorded_problems(folder, date(2026, 11, 22))) == []
    assert len(list(release.recorded_problems(folder, date(2030, 1, 1)))) == len(own) > 5


def test_a_run_without_a_date_is_found(release, tmp_path):
    (tmp_path / "sweep_new.jsonl").write_text('{"loss": 1}\n', encoding="utf-8")
    (problem,) = release.recorded_problems(tmp_path, TODAY)
    assert problem == "sweep_new.jsonl holds a run without a date."


def test_what_is_not_committed_and_a_tag_elsewhere_are_problems(release, tmp_path):
    def git(*command):
        own = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *own, *command], cwd=tmp_path, check=True, capture_output=True)

    git("init", "-q")
    (tmp_path / "a").write_text("1", encoding="utf-8")
    (problem,) = release.git_problems(tmp_path, "v1")
    assert problem == "Not committed:\n?? a"
    git("add", "a")
    git("commit", "-qm", "one")
    git("tag", "v1")
    assert list(release.git_problems(tmp_path, "v1")) == []
    git("commit", "-qm", "two", "--allow-empty")
    assert list(release.git_problems(tmp_path, "v1")) == ["v1 is there already, at another commit."]
    assert list(release.git_problems(tmp_path, "v2")) == []


def test_each_command_of_the_release_page_is_one_that_is_there():
    text = (ROOT / "RELEASING.md").read_text(encoding="utf-8")
    for name in ("release.py", "run", "columns", "package"):
        assert f".ci/{name}" in text
        assert (ROOT / ".ci" / name).is_file()
