"""Run lessons from top to bottom and store their outputs, as a reader without a kernel sees them.

Run ``python tests/store_notebooks.py [LESSON ...]`` from the root; without a name it stores all.
"""

import runpy
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
VIEW = "application/vnd.jupyter.widget-view+json"


def store(path: Path) -> None:
    """Execute one lesson in its folder and write it back, unless a cell fails."""
    notebook = nbformat.read(path, as_version=4)
    folder = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, kernel_name="python3", resources=folder, timeout=600).execute()
    nbformat.write(clean(notebook), path)


def clean(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Take out what differs from run to run: times, and the ids of widgets that are gone."""
    python = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = nbformat.from_dict({"kernelspec": python})
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(VIEW, None)
    return notebook


if __name__ == "__main__":
    quiet = runpy.run_path(str(ROOT / "conftest.py"))  # its folder lives as long as this name
    lessons = [Path(name) for name in sys.argv[1:]] or sorted(ROOT.glob("notebooks/*.ipynb"))
    for lesson in lessons:
        print(lesson)
        store(lesson)
