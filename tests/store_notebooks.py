"""Run lessons from top to bottom and store their outputs, as a reader without a kernel sees them.

Run ``python tests/store_notebooks.py [LESSON ...]`` from the root; without a name it stores all.
It also writes what no author writes by hand: the set-up cell, and the seconds of a long cell.
"""

import json
import runpy
import sys
from base64 import b64decode, b64encode
from datetime import datetime
from io import BytesIO
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL.Image import Quantize
from PIL.PngImagePlugin import PngImageFile
from setup_cell import repository, setup_cell
from trials import stored_trials

from ftcourse.handout import RECORDED, SECONDS, measure_pace, round_seconds

ROOT = Path(__file__).parent.parent
VIEW = "application/vnd.jupyter.widget-view+json"


def store(path: Path, *, again: bool = True) -> None:
    """Execute one lesson in its folder and write it back, unless a cell fails.

    A lesson that shows all claims runs again if its own trials have changed the list of claims.
    """
    notebook = nbformat.read(path, as_version=4)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert not first.source or 'find_spec("ftcourse")' in first.source, "leave the first cell empty"
    first.source = setup_cell(repository())
    first.metadata.tags = ["nbval-ignore-output"]
    folder = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, kernel_name="python3", resources=folder, timeout=600).execute()
    state_seconds(notebook, measure_pace())
    nbformat.write(clean(notebook), path)
    changed = collect_trials(notebook, path.stem)
    if again and changed and any("all_claims(" in cell.source for cell in notebook.cells):
        store(path, again=False)


def collect_trials(
    notebook: nbformat.NotebookNode, lesson: str, path: Path = ROOT / "data/claims.json"
) -> bool:
    """Write what a lesson measured for and against claims into their list; return if it changed.

    A claim that the lesson tries no more loses what the lesson measured before.
    """
    before = path.read_text(encoding="utf-8")
    claims, tried = json.loads(before), stored_trials(notebook)
    for name, claim in claims.items():
        others = {key: trial for key, trial in claim["trials"].items() if key != lesson}
        mine = {lesson: tried[name]} if name in tried else {}
        claim["trials"] = dict(sorted((others | mine).items()))
    after = json.dumps(claims, indent=1, ensure_ascii=False) + "\n"
    path.write_text(after, encoding="utf-8")
    return after != before


def state_seconds(notebook: nbformat.NotebookNode, pace: float) -> None:
    """Write into each long cell how long it takes where the pace is 1; the first one is left out.

    A line that is there is kept while it is right to a third, so that few lines change.
    """
    for cell in [cell for cell in notebook.cells if cell.cell_type == "code"][1:]:
        stated = SECONDS.match(cell.source)
        seconds = duration(cell) / pace
        if seconds < (8 if stated else 10):
            cell.source = SECONDS.sub("", cell.source)
        elif not stated or abs(seconds - int(stated[1])) > int(stated[1]) / 3:
            line = f"# about {round_seconds(seconds)} s {RECORDED}\n"
            cell.source = line + SECONDS.sub("", cell.source)


def duration(cell: nbformat.NotebookNode) -> float:
    """Return how many seconds a cell took in the run that has just ended."""
    times = cell.metadata["execution"]
    begin, end = times["iopub.execute_input"], times["shell.execute_reply"]
    return (datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds()


def clean(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Take out what differs from run to run, times and ids of widgets; make pictures smaller."""
    python = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = nbformat.from_dict({"kernelspec": python})
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            data.pop(VIEW, None)
            data |= {"image/png": shrink(data["image/png"])} if "image/png" in data else {}
    return notebook


def shrink(picture: str) -> str:
    """Return a PNG, in base64, with 128 colours: a third of the bytes, and it looks the same."""
    image = PngImageFile(BytesIO(b64decode(picture)))
    small = BytesIO()
    image.quantize(128, Quantize.FASTOCTREE).save(small, "png", optimize=True)
    return b64encode(small.getvalue()).decode()


if __name__ == "__main__":
    quiet = runpy.run_path(str(ROOT / "conftest.py"))  # its folder lives as long as this name
    lessons = [Path(name) for name in sys.argv[1:]] or sorted(ROOT.glob("notebooks/*.ipynb"))
    for lesson in lessons:
        print(lesson)
        store(lesson)
