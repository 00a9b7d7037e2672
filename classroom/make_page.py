"""Writes what the instructor's page has from the lessons, the checks and the measurements.

Run ``python classroom/make_page.py`` after a change of a lesson, of a check or of
``data/measured/classroom.jsonl``. It writes ``classroom/mistakes.md``, and the parts of
``classroom/README.md`` between a line ``<!-- made: NAME -->`` and a line ``<!-- end -->``.
"""

import json
import re
from itertools import groupby
from math import ceil
from pathlib import Path
from typing import Any

from course_times import PLANS, Lesson, all_lessons, taken
from mistakes import all_mistakes

from ftcourse import check
from ftcourse.files import course_path

HERE = Path(__file__).parent
PART = re.compile(r"(<!-- made: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
FOLD = re.compile(r"<summary>If it goes wrong</summary>(.*?)</details>", re.DOTALL)
CLASSES = (10, 20, 30)
SYSTEM_GIB = 2  # what we leave to the system
Run = dict[str, Any]


# --- times ---------------------------------------------------------------------------------------


def lessons_part(lessons: dict[str, Lesson]) -> str:
    """Return a table of all lessons: minutes, exercises, waiting, where a break is good."""
    rows = [
        f"| `{each.name}` | {each.minutes} | {sum(s.exercises for s in each.sections)} | "
        f"{sum(s.seconds for s in each.sections)} | {each.pause} |"
        for each in lessons.values()
    ]
    head = "| lesson | minutes | of them exercises | seconds of long cells | break |"
    return "\n".join([head, "| --- | --- | --- | --- | --- |", *rows])


def plans_part(lessons: dict[str, Lesson]) -> str:
    """Return what a class takes and skips, for each length of a class."""
    return "\n\n".join(_plan(minutes, plan, lessons) for minutes, plan in PLANS.items())


def _plan(minutes: int, plan: dict[str, tuple[str, ...]], lessons: dict[str, Lesson]) -> str:
    parts, total = [], 0.0
    for name, headings in plan.items():
        chosen = taken(lessons[name], headings)
        total += sum(section.minutes for section in chosen)
        said = ", ".join(f"*{s.heading}* {s.minutes:.0f}" for s in chosen)
        skipped = [s for s in lessons[name].sections if s not in chosen]
        wait = sum(s.seconds for s in skipped)
        parts.append(f"- `{name}`: {said}.")
        if skipped:
            names = ", ".join(f"*{s.heading}*" for s in skipped)
            parts.append(
                f"  Run the cells of {names} without reading them ({wait} s of long cells)."
            )
    head = f"**{minutes} minutes**: {total:.0f} of work, {minutes - total:.0f} for the beginning,"
    return "\n".join([f"{head} breaks and discussion.", "", *parts])


def traps_part() -> str:
    """Return the lessons' own folds "If it goes wrong": each trap once, and where it is met."""
    met: dict[str, list[str]] = {}
    told: dict[str, str] = {}
    for path in sorted(course_path("notebooks").glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            for fold in FOLD.findall("".join(cell["source"])):
                for title, text in re.findall(r"(?m)^- \*(.+?)\*,?:? ?(.*)$", fold):
                    told.setdefault(title, text)
                    met.setdefault(title, []).append(path.stem[:2])
    numbers = {title: ", ".join(sorted(set(where))) for title, where in met.items()}
    return "\n".join(f"- *{title}* ({numbers[title]}): {told[title]}" for title in told)


# --- machines ------------------------------------------------------------------------------------


def measured() -> list[Run]:
    """Return for each setting the line that was measured on the quietest machine, the last one."""
    file = course_path("data") / "measured" / "classroom.jsonl"
    runs = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    runs.sort(key=_setting)
    groups = (list(group) for _, group in groupby(runs, _setting))
    return [min(reversed(group), key=lambda run: run["busy_cores"]) for group in groups]


def _setting(run: Run) -> tuple[str, int, int]:
    return run["lesson"], run["kernels"], run["threads"]


def machines_part(runs: list[Run]) -> str:
    """Return the measured table, and the sizes of a machine that follow from it."""
    head = "| cells up to | kernels | threads each | seconds | own MiB each | all together, GiB |"
    rows = [row for run in runs if run["lesson"] != "no lesson" for row in _rows(run)]
    return "\n".join([_where(runs), "", head, "| --- " * 6 + "|", *rows, "", *_sizes(runs)])


def _where(runs: list[Run]) -> str:
    first = runs[0]
    busy = max(run["busy_cores"] for run in runs)
    versions = ", ".join(f"{name} {number}" for name, number in first["versions"].items())
    said = f"Measured on {first['cores']} cores with {first['memory_gib']} GiB ({first['system']}, "
    said += f"Python {first['python']}, {versions}), {first['date']}."
    if busy > 0.3:
        said += f" **Up to {busy} of its cores had other work: the seconds are too high.**"
    return said


def _rows(run: Run) -> list[str]:
    threads = run["threads"] or "as torch has them"
    rows = []
    for name, mark in run["marks"].items():
        together = mark["share_mib"][1] * run["kernels"] / 1024
        cells = f"`{run['lesson']}`, `{name}`", run["kernels"], threads
        numbers = f"{mark['seconds'][1]:.0f} | {mark['own_mib'][1]:.0f} | {together:.1f}"
        rows.append(f"| {' | '.join(map(str, cells))} | {numbers} |")
    return rows


def learner_mib(runs: list[Run]) -> tuple[float, float]:
    """Return the MiB of one learner's server, and of one kernel in the hungriest state measured."""
    (server,) = (run["marks"]["server"]["own_mib"][1] for run in runs if "server" in run["marks"])
    kernels = (run for run in runs if run["lesson"] != "no lesson")
    return server, max(mark["own_mib"][1] for run in kernels for mark in run["marks"].values())


def _sizes(runs: list[Run]) -> list[str]:
    server, kernel = learner_mib(runs)
    yours = f"A learner's server takes {server:.0f} MiB and a kernel up to {kernel:.0f} MiB of its "
    yours += "own. Learners leave lessons open, so the table counts two kernels each, and "
    yours += f"{SYSTEM_GIB} GiB for the system:"
    rows = [
        f"| {count} | {count * (server + kernel) / 1024 + SYSTEM_GIB:.0f} | "
        f"{ceil(count * (server + 2 * kernel) / 1024 + SYSTEM_GIB)} |"
        for count in CLASSES
    ]
    head = "| learners | GiB, one lesson open each | GiB, two lessons open each |"
    return [yours, "", head, "| --- | --- | --- |", *rows, *_slower(runs)]


def _slower(runs: list[Run]) -> list[str]:
    """Return in a sentence what sharing the cores costs in seconds."""
    train = {
        (run["kernels"], run["threads"]): run["marks"]["start-train"]["seconds"][1]
        for run in runs
        if "start-train" in run["marks"]
    }
    cores = runs[0]["cores"]
    said = [
        f"{count} kernels at once on {cores} cores took {train[count, 1] / train[1, 1]:.1f} times "
        "as long"
        for count in sorted(count for count, threads in train if threads == 1 and count > 1)
        if (1, 1) in train
    ]
    lines = ["", "From opening to the end of lesson 00's first training, one thread each: "]
    lines[-1] += "; ".join(said) + "." if said else "not measured so far."
    many = [(threads, train[4, threads]) for threads in (1, 0, 16) if (4, threads) in train]
    if len(many) > 1:
        names = {0: "as many as cores", 1: "one", 16: "sixteen"}
        words = ", ".join(f"{names[threads]}: {seconds:.0f} s" for threads, seconds in many)
        lines.append(f"Four kernels with so many threads each: {words}.")
    return lines


# --- mistakes ------------------------------------------------------------------------------------


def mistakes_page() -> str:
    """Return the page of typical mistakes, by lesson and exercise."""
    text = {p.stem: p.read_text(encoding="utf-8") for p in course_path("notebooks").glob("*.ipynb")}
    known, found = {e.name: e for e in check._exercises()}, all_mistakes()
    lines = ["# Typical mistakes, and the question that each one gets", "", *MISTAKES_HEAD, ""]
    for lesson in sorted(text):
        names = re.findall(r"\bcheck\.(\w+)\(", text[lesson])
        lines += [f"## {lesson}", ""]
        for name in dict.fromkeys(name for name in names if name in known):
            lines += [f"### `check.{name}`", "", known[name].judge.__doc__.splitlines()[0], ""]
            lines += [f"- {f'`{a}`: ' if a else ''}{question}" for a, question in found[name]]
            lines.append("")
    return "\n".join(lines)


MISTAKES_HEAD = (
    "Made by `make_page.py` from the tables of the checks; do not edit. A number is a wrong answer",
    "that the check knows, beside the question that it asks then. Other questions are for wrong",
    "functions, settings or words; three dots stand for what the check fills in. Use them to see",
    "where a class is stuck: the question that comes up on many screens is the one to discuss.",
)


# --- the page ------------------------------------------------------------------------------------


def filled(text: str, parts: dict[str, str]) -> str:
    """Return a page with each of its made parts made again."""
    return PART.sub(lambda found: f"{found[1]}\n{parts[found[2]]}\n\n{found[3]}", text)


def pages() -> dict[Path, str]:
    """Return each page that this script writes, with its text."""
    lessons, page = all_lessons(), HERE / "README.md"
    parts = {"lessons": lessons_part(lessons), "plans": plans_part(lessons)}
    parts |= {"machines": machines_part(measured()), "traps": traps_part()}
    made = filled(page.read_text(encoding="utf-8"), parts)
    return {page: made, HERE / "mistakes.md": mistakes_page()}


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
        print(path)
