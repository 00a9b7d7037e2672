"""Make the readable edition: every lesson, the glossary and the claims as HTML, with a search.

Run ``python edition/build.py [FOLDER]`` and open ``index.html`` in ``build/edition`` or the folder.
It needs what ``ftcourse[edition]`` names, and neither a network nor the course itself: lessons are
read as they are stored and do not run. A link that leads nowhere is an error.
"""

import re
import sys
from html import escape
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory

import nbformat
from nbformat import NotebookNode
from sphinx.cmd.build import build_main

ROOT = Path(__file__).parent.parent
HERE = ROOT / "edition"
LESSONS = sorted(ROOT.glob("notebooks/*.ipynb"))
PANEL = re.compile(r"<Panel: (.+) Run this cell to move its controls\.>")
ALL_CLAIMS = "all_claims("
"""Stands in the cell whose stored output lists every claim."""


def build(out: Path) -> int:
    """Write the edition into a folder; return Sphinx's exit status, 0 if nothing is wrong."""
    with TemporaryDirectory() as folder:
        sources, html = Path(folder, "sources"), Path(folder, "html")
        sources.mkdir()
        write_sources(sources)
        places = [str(sources), str(html), "-d", str(Path(folder, "doctrees"))]
        status = build_main(["-q", "-E", "-W", "--keep-going", "-c", str(HERE), *places])
        copytree(html, out, dirs_exist_ok=True)  # MyST-NB also writes beside ``html``
    return status


def write_sources(folder: Path) -> None:
    """Write what Sphinx reads: prepared lessons, the glossary, the claims and the contents."""
    lessons = {path.stem: nbformat.read(path, as_version=4) for path in LESSONS}
    pages = {
        "index": fill_page("index", lessons=list_lessons(lessons), names="\n".join(lessons)),
        "claims": fill_page("claims", claims=find_claims(lessons)),
        "glossary": (ROOT / "notebooks/glossary.md").read_text(encoding="utf-8"),
    }
    for name, text in pages.items():
        (folder / f"{name}.md").write_text(text, encoding="utf-8")
    for name, lesson in lessons.items():
        nbformat.write(prepare(lesson), folder / f"{name}.ipynb")


def fill_page(name: str, **texts: str) -> str:
    """Return a page of this folder with texts at its braces."""
    return (HERE / f"{name}.md").read_text(encoding="utf-8").format(**texts)


def list_lessons(lessons: dict[str, NotebookNode]) -> str:
    """Return each lesson's title and question as an item of a list."""
    found = re.compile(r"# (?P<title>.+)\s+\*\*(?P<question>.+?)\*\*")
    heads = {name: found.match(lesson.cells[0].source) for name, lesson in lessons.items()}
    return "\n".join(
        f"- [{h['title']}]({name}.ipynb): {h['question']}" for name, h in heads.items()
    )


def find_claims(lessons: dict[str, NotebookNode]) -> str:
    """Return all claims, each below a heading, as the lesson that lists them has stored them."""
    (html,) = (
        output.data["text/html"]
        for lesson in lessons.values()
        for cell in lesson.cells
        if cell.cell_type == "code" and ALL_CLAIMS in cell.source
        for output in cell.outputs
        if "text/html" in output.get("data", {})
    )
    heading = re.compile(r"<details><summary>(.+?) <b>.+?</b></summary>")
    return to_pages(heading.sub(r"\n\n## \1\n\n", html).replace("</details>", ""))


def to_pages(html: str) -> str:
    """Return HTML whose links to lessons lead to their pages."""
    return re.sub(r'(href="\w+)\.ipynb', r"\1.html", html)


def prepare(lesson: NotebookNode) -> NotebookNode:
    """Return a lesson whose cells know their ids and whose panels are replaced by words.

    The first picture after a panel stands for it; pictures get their text alternatives.
    """
    waiting = []  # panels, until their picture comes
    for cell in [cell for cell in lesson.cells if cell.cell_type == "code"]:
        cell.metadata["id"] = cell.id
        for output in cell.outputs:
            data = output.get("data", {})
            if PANEL.match(data.get("text/plain", "")):
                waiting.append(data)
            elif "image/png" in data:
                words = output.metadata.get("image/png", {}).get("alt", "")
                cell.metadata["mystnb"] = {"image": {"alt": words}}
                while waiting:
                    say_panel(waiting.pop(), cell.id)
            elif "text/html" in data:
                data["text/html"] = to_pages(data["text/html"])
    assert not waiting, "a picture stands below each panel"
    return lesson


def say_panel(data: NotebookNode, cell: str) -> None:
    """Let a panel's output say in words where it moves, and which cell's picture stands for it."""
    title = escape(PANEL.match(data["text/plain"])[1])
    data["text/html"] = (
        f'<p class="panel"><b>{title}</b> This panel moves in JupyterLab. '
        f'<a href="#cell-id={cell}">A picture below</a> shows what it draws.</p>'
    )


if __name__ == "__main__":
    out = Path(sys.argv[1]) if sys.argv[1:] else ROOT / "build/edition"
    status = build(out)
    print("There are errors, see above." if status else out / "index.html")
    sys.exit(status)
