"""What must be true before a tag, as far as no test can know it: ``python .ci/release.py v0.2.0``.

A test knows no date and no tag, and must pass between two releases. RELEASING.md says when to run
this; the workflow ``publish`` runs it again for the tag itself. It needs Python and git alone.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

ROOT = Path(__file__).parent.parent
COLAB_DAYS = 90  # Colab gets a new image every few weeks, a new torch every few months
RECORDED_DAYS = 365  # then libraries and cards have moved too far to call a number today's
CHANGED_DAYS = 7  # the date of the section is the day of the release, or nearly


def changelog_problems(text: str, version: str, today: date) -> Iterator[str]:
    """Say what is wrong with the changelog for this version."""
    parts = re.split(r"(?m)^## ", text)[1:]
    sections = {part.splitlines()[0]: part.partition("\n")[2].strip() for part in parts}
    if not sections or next(iter(sections)) != "[Unreleased]":
        yield "CHANGELOG.md does not begin with ## [Unreleased]."
    elif sections["[Unreleased]"]:
        yield f"CHANGELOG.md has lines under [Unreleased]: move them under [{version}]."
    dates = {}
    for title in sections:
        if found := re.fullmatch(r"\[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)", title):
            dates[found[1]] = date.fromisoformat(found[2])
        elif title != "[Unreleased]":
            yield f"CHANGELOG.md: ## {title} is not of the form [1.2.3] - 2026-12-31."
    if next(iter(dates), None) != version:
        yield f"CHANGELOG.md's newest section is not [{version}]."
    elif not timedelta(0) <= today - dates[version] <= timedelta(days=CHANGED_DAYS):
        yield f"CHANGELOG.md dates [{version}] {dates[version]}, and today is {today}."
    elif not sections[f"[{version}] - {dates[version]}"]:
        yield f"CHANGELOG.md says nothing under [{version}]."
    numbers = [tuple(map(int, name.split("."))) for name in dates]
    if numbers != sorted(set(numbers), reverse=True):
        yield "CHANGELOG.md's sections do not go from the newest to the oldest."


def version_problems(root: Path, tag: str) -> Iterator[str]:
    """Say whether the tag is another version than the package's."""
    source = (root / "ftcourse" / "__init__.py").read_text(encoding="utf-8")
    version = re.search(r'(?m)^__version__ = "(.+)"$', source)[1]
    if tag != f"v{version}":
        yield f"The tag is {tag}, and ftcourse/__init__.py says {version}."


def colab_problems(text: str, today: date) -> Iterator[str]:
    """Say whether the list of Colab's versions is old."""
    found = re.search(r"at commit \w+ \((\d+ \w+ \d{4})\)", " ".join(text.split()))
    months = "January February March April May June July August September October November December"
    day, month, year = found[1].split()
    taken = date(int(year), months.split().index(month) + 1, int(day))
    if today - taken > timedelta(days=COLAB_DAYS):
        yield (
            f"tests/colab.txt is of {taken}: take the newest list, then check the floors of "
            "pyproject.toml and run .ci/columns."
        )


def recorded_problems(folder: Path, today: date) -> Iterator[str]:
    """Say which of our own recorded results are older than they may be."""
    for path in sorted(folder.glob("*.jsonl")):
        if path.name.startswith("published"):
            continue  # somebody else's, with their own date
        lines = path.read_text(encoding="utf-8").splitlines()
        runs = [json.loads(line) for line in lines]
        dates = [run.get("date") or run.get("measured", {}).get("date") for run in runs]
        if not runs or not all(dates):
            yield f"{path.name} holds a run without a date."
        elif today - date.fromisoformat(min(dates)[:10]) > timedelta(days=RECORDED_DAYS):
            yield f"{path.name} holds runs of {min(dates)[:10]}: measure them again."


def git_problems(root: Path, tag: str) -> Iterator[str]:
    """Say whether something is not committed, or the tag is at another commit."""

    def git(*command: str) -> str:
        done = subprocess.run(["git", *command], cwd=root, capture_output=True, text=True)
        return done.stdout.rstrip() if done.returncode == 0 else ""

    if changed := git("status", "--porcelain"):
        yield f"Not committed:\n{changed}"
    tagged = git("rev-parse", "--verify", "--quiet", f"refs/tags/{tag}^{{commit}}")
    if tagged and tagged != git("rev-parse", "HEAD"):
        yield f"{tag} is there already, at another commit."


def find_problems(root: Path, tag: str, today: date) -> list[str]:
    """Return all of them as sentences."""
    read = lambda *names: root.joinpath(*names).read_text(encoding="utf-8")  # noqa: E731
    return [
        *version_problems(root, tag),
        *changelog_problems(read("CHANGELOG.md"), tag.removeprefix("v"), today),
        *colab_problems(read("tests", "colab.txt"), today),
        *recorded_problems(root / "data" / "measured", today),
        *git_problems(root, tag),
    ]


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Give the tag: python .ci/release.py v0.2.0")
    problems = find_problems(ROOT, sys.argv[1], date.today())
    print(*problems or [f"{sys.argv[1]} can be tagged."], sep="\n")
    sys.exit(bool(problems))
