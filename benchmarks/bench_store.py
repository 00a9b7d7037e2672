"""Measure the store: what it takes to build, to ask and to keep, at 1e3, 1e4 and 1e5 pages.

    python benchmarks/bench_store.py [--engines sqlite qdrant] [--pages 1000 10000 100000]

Run it from the repository's root. Pages about invented things come from ``data.making.world``; two
of a hundred are for the staff. Each size is built in a process of its own, asked in another, and
appended as one line to data/measured/store.jsonl; sizes that are there are skipped, so a killed run
goes on where it stopped. Times are CPU times of one thread, those of questions medians over 60.
"""

import argparse
import json
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import psutil
import torch

from data.making.world.corpus import any_kind, ask, invented_subject, new_passage
from ftcourse.files import course_path
from ftcourse.retrieval import Page, load_encoder, open_store

QUESTIONS = 60
STAFF = 50  # each so-many-th page
SEARCHES = {
    "lexical": {"how": "lexical"},
    "dense": {"how": "dense"},
    "hybrid": {"how": "hybrid"},
    "dense, the 2 % of the staff": {"how": "dense", "allowed": {"staff"}},
    "lexical, the 2 % of the staff": {"how": "lexical", "allowed": {"staff"}},
}


def make_pages(count: int) -> Iterator[tuple[Page, str]]:
    """Yield pages about invented things, each with a question that it answers."""
    rng = random.Random(0)
    for number in range(count):
        kind = any_kind(rng)
        passage = new_passage(rng, kind, invented_subject(rng, kind))
        access = "public" if number % STAFF else "staff"
        text = f"# {passage.title}\n\n{passage.text}"
        page = Page(f"page-{number:06d}", passage.title, text, access, 1)
        yield page, ask(rng, kind, passage.subject, rng.choice(list(passage.values)))


def timed(action) -> float:
    """Return the CPU seconds that an action takes: other work on the machine does not count."""
    start = time.process_time()
    action()
    return time.process_time() - start


def build(engine: str, count: int, path: Path) -> dict:
    """Return the seconds that it takes to build a store of so many pages."""
    pages = [page for page, _ in make_pages(count)]
    with open_store(path, load_encoder("embedded"), engine=engine) as store:
        seconds = timed(lambda: store.add(pages))
    files = sum(file.stat().st_size for file in path.parent.rglob("*") if file.is_file())
    return {"seconds to build": seconds, "MiB of files": files / 2**20}


def search(engine: str, count: int, path: Path) -> dict:
    """Return what it takes to open a store, to ask it and to change a page."""
    questions = [question for _, question in make_pages(min(count, 10_000))][::-1][:QUESTIONS]
    embed = load_encoder("embedded")
    embed(questions)
    before = psutil.Process().memory_info().rss
    start = time.process_time()
    with open_store(path, embed, engine=engine) as store:
        found = {"seconds to open": time.process_time() - start}
        for name, choices in SEARCHES.items():
            store.search(questions[0], 3, **choices)  # the first one reads the vectors
            seconds = [timed(lambda q=q, c=choices: store.search(q, 3, **c)) for q in questions]
            found[f"ms, {name}"] = 1e3 * statistics.median(seconds)
        found["MiB in memory"] = (psutil.Process().memory_info().rss - before) / 2**20
        changed = [Page("page-000001", "new", f"New text {n}.", "public", 1) for n in range(9)]
        seconds = [timed(lambda page=page: store.update(page)) for page in changed]
        found["ms to update a page"] = 1e3 * statistics.median(seconds)
    return found


def main(engines: list[str], sizes: list[int], output: Path) -> None:
    """Measure what is not measured yet, each step in a process of its own."""
    lines = output.read_text(encoding="utf-8").splitlines() if output.exists() else []
    done = {(line["engine"], line["pages"]) for line in map(json.loads, lines)}
    for engine in engines:
        for count in sizes:
            if (engine, count) in done:
                continue
            row = {"engine": engine, "pages": count, "date": date.today().isoformat()}
            row |= {"machine": platform.machine(), "python": platform.python_version()}
            with tempfile.TemporaryDirectory() as folder:
                for what in ("build", "search"):
                    command = [sys.executable, __file__, "--one", what, engine, str(count), folder]
                    said = subprocess.run(command, capture_output=True, text=True, check=True)
                    row |= json.loads(said.stdout.splitlines()[-1])
            with output.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(row, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engines", nargs="+", default=["sqlite", "qdrant"])
    parser.add_argument("--pages", nargs="+", type=int, default=[1_000, 10_000, 100_000])
    parser.add_argument("--one", nargs=4, help="used by the script itself")
    asked = parser.parse_args()
    if asked.one:
        torch.set_num_threads(1)
        what, engine, count, folder = asked.one
        step = {"build": build, "search": search}[what]
        print(json.dumps(step(engine, int(count), Path(folder) / "index")))
    else:
        main(asked.engines, asked.pages, course_path("data/measured") / "store.jsonl")
