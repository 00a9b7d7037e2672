"""Make HTML of each stored lesson, the glossary and the claims, for readers without a kernel.

Run ``python tests/make_pages.py`` from the root, after storing a lesson. A page needs nothing but
itself: no script, no font and no picture from elsewhere. It holds the SHA-256 of its source, and
tests/test_pages.py says when a page is older than its lesson.
"""

import hashlib
import re
from html import escape, unescape
from pathlib import Path
from textwrap import shorten

import nbformat
from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

from ftcourse.claims import all_claims

ROOT = Path(__file__).parent.parent
PARTS = Path(__file__).parent / "page"
PAGES = ROOT / "pages"
NOTE = {
    ".ipynb": "This is the lesson as it ran on a CPU, offline. Panels and exercises answer in "
    "JupyterLab: README.md says how to begin.",
    ".md": "Each term is measured in the lesson that its link names.",
    ".json": "All of it comes from the stored lessons; no verdict is written by hand.",
}


class Renderer(IPythonRenderer):
    """Markdown as nbconvert reads it, with MathML for formulas and ids as JupyterLab makes them."""

    def heading(self, text: str, level: int, **_: object) -> str:
        """Return a heading that a link such as #For-real finds."""
        return f'<h{level} id="{identifier(text)}">{text}</h{level}>\n'

    def block_math(self, body: str) -> str:
        """Return a formula on a line of its own."""
        return convert(body, display="block")

    def inline_math(self, body: str) -> str:
        """Return a formula in a line."""
        return convert(body, display="inline")


def plain(html: str) -> str:
    """Return the text of a piece of HTML."""
    return unescape(re.sub(r"<[^>]+>", "", html))


def identifier(heading: str) -> str:
    """Return the id of a heading."""
    return plain(heading).replace(" ", "-").replace('"', "")


def markdown(text: str) -> str:
    """Return Markdown as HTML."""
    return MarkdownWithMath(renderer=Renderer(escape=False)).render(text)


def sources() -> list[Path]:
    """Return the lessons in their order, then the glossary if it is there, then the claims."""
    folder = ROOT / "notebooks"
    texts = sorted(folder.glob("*.md"))
    return [*sorted(folder.glob("*.ipynb")), *texts, ROOT / "data/claims.json"]


def page_of(source: Path) -> Path:
    """Return where the page of a lesson is."""
    return PAGES / f"{source.stem}.html"


def digest(source: Path) -> str:
    """Return the SHA-256 of a file, with the line ends that the repository keeps."""
    return hashlib.sha256(source.read_bytes().replace(b"\r\n", b"\n")).hexdigest()


def read(source: Path) -> nbformat.NotebookNode:
    """Return a lesson, or a text as a lesson of one cell."""
    if source.suffix == ".ipynb":
        return nbformat.read(source, as_version=4)
    text = list_claims() if source.suffix == ".json" else source.read_text(encoding="utf-8")
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)])


def list_claims() -> str:
    """Return all claims as a text, each under a heading of its own."""
    claims = all_claims()
    blocks = [
        f'<h2 id="{claim.name}">{claim.number}. {escape(claim.claim)}</h2>\n{claim.html()}'
        for claim in claims.claims
    ]
    intro = (PARTS / "claims.md").read_text(encoding="utf-8").format(summary=claims.summary)
    return "\n\n".join([intro, *blocks])


def title(notebook: nbformat.NotebookNode) -> str:
    """Return the first heading."""
    return re.search(r"(?m)^# (.+)$", notebook.cells[0].source)[1]


def render(source: Path) -> str:
    """Return the page of a lesson."""
    notebook = read(source)
    prose = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    headings = re.findall(r'<h2 id="(.+?)">(.+?)</h2>', markdown(prose))
    page = {
        "title": title(notebook),
        "sha256": digest(source),
        "style": (PARTS / "style.css").read_text(encoding="utf-8"),
        "note": NOTE[source.suffix],
        "pages": [{"title": title(read(s)), "href": page_of(s).name} for s in sources()],
        "contents": [
            {"id": found, "text": shorten(text, 60, placeholder=" …")} for found, text in headings
        ],
    }
    exporter = HTMLExporter(template_file="page.html.j2", extra_template_paths=[str(PARTS)])
    exporter.register_filter("page_markdown", markdown)
    html, _ = exporter.from_notebook_node(notebook, {"page": page})
    to_page = r'href="([\w-]+)\.(?:ipynb|md)((?:#[^"]*)?)"'
    return re.sub(to_page, r'href="\1.html\2"', html).rstrip() + "\n"


if __name__ == "__main__":
    PAGES.mkdir(exist_ok=True)
    for source in sources():
        page_of(source).write_text(render(source), encoding="utf-8", newline="\n")
        print(page_of(source).relative_to(ROOT))
