"""The readable edition: built once from the stored lessons, its pages walked, read and searched."""

import os
import re
import subprocess
import sys
import tomllib
from functools import cache
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import browser
import pytest
from bs4 import BeautifulSoup
from cases import some_of

ROOT = Path(__file__).parent.parent
LESSONS = [path.stem for path in sorted(ROOT.glob("notebooks/*.ipynb"))]
PAGES = ["index", *LESSONS, "glossary", "claims", "search"]
each_page = pytest.mark.parametrize("name", PAGES)
pytestmark = pytest.mark.slow
# Builds as on a machine that has the edition's tools, and neither the course nor a network.
BUILD = """
import runpy, socket, sys
for name in ("ftcourse", "torch", "transformers", "matplotlib", "ipywidgets"):
    sys.modules[name] = None  # importing it is an error
socket.getaddrinfo = socket.socket.connect = None
sys.argv = ["build.py", sys.argv[1]]
runpy.run_path("edition/build.py", run_name="__main__")
"""


@pytest.fixture(scope="session")
def edition(tmp_path_factory):
    """Return the folder of the edition; a warning of Sphinx, such as a dead link, is an error."""
    out = tmp_path_factory.mktemp("edition")
    command = [sys.executable, "-c", BUILD, str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(out / "index.html")]
    return out


@cache
def read(folder, name):
    return BeautifulSoup((folder / f"{name}.html").read_text(encoding="utf-8"), "html.parser")


@cache
def ids(folder, name):
    found = [tag["id"] for tag in read(folder, name).find_all(id=True)]
    assert len(set(found)) == len(found)
    return set(found)


def test_each_lesson_the_glossary_the_claims_and_the_search_have_a_page(edition):
    assert sorted(path.stem for path in edition.glob("*.html")) == sorted(PAGES)
    found = [link["href"] for link in read(edition, "index").article.find_all("a", href=True)]
    assert [f"{name}.html" for name in [*LESSONS, "glossary", "claims"]] == [
        href for href in found if href.endswith(".html")
    ]


@each_page
def test_every_link_and_every_anchor_inside_the_edition_arrives(edition, name):
    links = read(edition, name).find_all("a", href=re.compile(r"^(?!https?:)"))
    assert len(links) > 10
    for link in links:
        file, _, place = unquote(link["href"]).partition("#")
        target = file or f"{name}.html"
        assert (edition / target).is_file(), link
        assert not place or place in ids(edition, Path(target).stem), link


@each_page
def test_a_page_asks_for_nothing_outside_of_its_folder(edition, name):
    page = read(edition, name)
    used = [tag["src"] for tag in page.find_all(src=True)]
    used += [tag["href"] for tag in page.find_all("link", href=True)]
    local = [address.split("?")[0] for address in used if not address.startswith(("#", "data:"))]
    assert [a for a in local if not (edition / a).is_file() and not a.endswith(".html")] == []
    styles = [*edition.rglob("*.css")]
    outside = re.compile(r"(?:@import|url\()\s*['\"]?(?:https?:)?//")
    assert [s.name for s in styles if outside.search(s.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize("name", LESSONS)
def test_a_lesson_keeps_its_cells_pictures_formulas_and_says_what_a_panel_is(edition, name):
    import nbformat

    stored = nbformat.read(ROOT / f"notebooks/{name}.ipynb", as_version=4)
    code = [cell for cell in stored.cells if cell.cell_type == "code"]
    page = read(edition, name)
    assert [page.find(id=f"cell-id={cell.id}").name for cell in code] == ["div"] * len(code)
    outputs = [output for cell in code for output in cell.outputs]
    words = [
        " ".join(output.metadata["image/png"]["alt"].split())
        for output in outputs
        if "image/png" in output.get("data", {})
    ]
    assert [" ".join(image["alt"].split()) for image in page.article.find_all("img")] == words
    panels = sum("<Panel: " in output.get("data", {}).get("text/plain", "") for output in outputs)
    assert len(page.find_all("p", class_="panel")) == panels > 0
    text = [t for t in page.article.find_all(string=True) if not t.find_parent(["code", "pre"])]
    assert not re.search(r"\$|<Panel", " ".join(text))
    assert page.article.find("math") or "$" not in str([c.source for c in stored.cells])


@each_page
def test_headings_are_in_order_and_begin_with_the_title(edition, name):
    page = read(edition, name)
    assert page.html["lang"] == "en"
    levels = [int(heading.name[1]) for heading in page.find_all(re.compile("^h[1-6]$"))]
    assert name == "search" or (levels[0], levels.count(1)) == (1, 1)
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_the_page_of_claims_has_all_claims_with_the_verdicts_of_the_list(edition):
    from ftcourse.claims import all_claims

    text = " ".join(read(edition, "claims").article.get_text(" ").split())
    for claim in all_claims().claims:
        place = text.index(f"{claim.number}. {claim.claim}")
        assert f"Verdict: {claim.verdict}" in text[place : place + len(claim.claim) + 400]


def test_the_readme_installs_what_the_extra_names():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extra = settings["project"]["optional-dependencies"]["edition"]
    names = " ".join(re.match(r"[\w-]+", requirement)[0] for requirement in extra)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"\npip install {names} && python edition/build.py\n" in readme


@pytest.fixture(scope="session")
def reader():
    """Return a browser without a network, for several pages."""
    if not browser.CHROMIUM:
        required = os.environ.get("FTCOURSE_REQUIRE_BROWSER") == "1"
        (pytest.fail if required else pytest.skip)("the edition's readers need chromium")
    with browser.page(800, 900) as first:
        yield first.context.browser


@pytest.fixture(params=["light", "dark"])
def page(reader, request):
    opened = reader.new_page(color_scheme=request.param, viewport={"width": 800, "height": 900})
    opened.troubles = []
    opened.on("requestfailed", lambda asked: opened.troubles.append(asked.url))
    opened.on("pageerror", lambda error: opened.troubles.append(str(error)))
    opened.on("console", lambda m: m.type == "error" and opened.troubles.append(m.text))
    yield opened
    opened.close()


@pytest.mark.parametrize("name", some_of(PAGES, {"00_start_here", "claims"}))
def test_a_page_has_no_fault_that_axe_finds(edition, page, name):
    from axe_playwright_python.sync_playwright import Axe

    page.goto((edition / f"{name}.html").as_uri(), wait_until="load")
    assert page.evaluate("document.documentElement.scrollWidth") == 800  # nothing is cut
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    assert page.troubles == []
    rules = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
    found = Axe().run(page, options={"runOnly": rules, "preload": False}).response
    assert len(found["passes"]) > 10
    assert [(v["id"], [n["html"] for n in v["nodes"]]) for v in found["violations"]] == []


def test_who_types_a_word_finds_its_lesson(edition, reader):
    page = reader.new_page(viewport={"width": 1280, "height": 900})
    page.goto((edition / "index.html").as_uri())
    box = page.get_by_role("textbox", name="Search").first
    box.fill("NF4")
    box.press("Enter")
    page.get_by_role("link", name="1. Quantize").nth(1).wait_for()  # the first is in the contents
    page.get_by_role("link", name="1. Quantize").nth(1).click()
    page.get_by_role("heading", name="1. Quantize").wait_for()


def test_a_formula_is_drawn(edition, reader):
    page = reader.new_page()
    page.goto((edition / "02_lora.html").as_uri())
    box = page.locator("article math[display=block]").first.bounding_box()
    assert box["width"] > 100
    assert box["height"] > 20
