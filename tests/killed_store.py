"""Stores that are killed while they write: a program for test_store.

It forks, which only a process with a single thread may do; pytest's workers have several. Prints
one JSON object: how many writers were killed, how many of them midway, and which pages were half or
lost afterwards.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from ftcourse.retrieval import Chunker, Page, open_store

COUNT, CHUNKS = 40, 6


def page(number, version):
    text = " ".join([f"page{number} version{version} place{place}" for place in range(CHUNKS)])
    return Page(f"p{number:02}", f"p{number}", text, "public", 1)


def opened(path, engine):
    return open_store(path, chunker=Chunker("words", 3, 0), engine=engine)


def write(path, engine, told, version):
    """Add all pages, then update each; tell what is done, a byte a page."""
    with opened(path, engine) as store:
        for number in range(COUNT):
            if (f"p{number:02}", 1) not in store.pages:
                store.add([page(number, version)])
            else:
                store.update(page(number, version))
            os.write(told, bytes([number]))


def state(path, engine):
    """Return the versions and the number of chunks of each page, as a reader finds them."""
    found = {}
    with opened(path, engine) as store:
        for id_, _ in store.pages:
            hits = store.search(f"page{int(id_[1:])}", min(len(store), 2 * CHUNKS))
            own = [hit.text.split() for hit in hits if hit.page == id_]
            found[id_] = sorted({words[1] for words in own}), len(own)
    return found


def kill_one(path, engine, version, pages, seconds):
    """Start a writer, kill it soon after so many pages, return those that it said were written."""
    read, told = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        try:
            write(path, engine, told, version)
        finally:
            os._exit(0)
    os.close(told)
    done = {os.read(read, 1)[0] for _ in range(pages)}
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while rest := os.read(read, 1_000):
        done |= set(rest)
    os.close(read)
    return done


def main(asked):
    path, rng = Path(asked["scratch"]) / "index", random.Random(0)
    half, lost, midway = [], [], 0
    for version in range(asked["kills"]):
        done = kill_one(
            path, asked["engine"], version, rng.randrange(1, COUNT - 5), rng.uniform(0, 0.002)
        )
        midway += len(done) < COUNT
        found = state(path, asked["engine"])
        half += [
            id_ for id_, (versions, count) in found.items() if len(versions) > 1 or count != CHUNKS
        ]
        lost += [n for n in done if found.get(f"p{n:02}", [[]])[0] != [f"version{version}"]]
    with opened(path, asked["engine"]) as store:
        store.add([page(n, 99) for n in range(COUNT) if (f"p{n:02}", 1) not in store.pages])
        pages = len(store.pages)
    return {"kills": asked["kills"], "midway": midway, "half": half, "lost": lost, "pages": pages}


if __name__ == "__main__":
    print(json.dumps(main(json.load(sys.stdin))))
