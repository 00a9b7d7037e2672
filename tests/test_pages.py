import re
from itertools import pairwise

import pytest
from bs4 import BeautifulSoup
from make_pages import PAGES, digest, markdown, page_of, sources

each_page = pytest.mark.parametrize("source", sources(), ids=lambda path: path.stem)


def read(source):
    return BeautifulSoup(page_of(source).read_text(encoding="utf-8"), "html.parser")


@each_page
def test_the_page_is_as_old_as_its_lesson(source):
    stated = read(source).find("meta", attrs={"name": "source-sha256"})["content"]
    assert stated == digest(source), "run python tests/make_pages.py"


@each_page
def test_the_page_needs_nothing_but_itself(source):
    page = read(source)
    assert page.find_all(["script", "link", "iframe"]) == []
    assert [image["src"][:40] for image in page.find_all("img", src=re.compile("^(?!data:)"))] == []
    assert not re.search(r"@import|url\(", page.style.string)


@each_page
def test_every_picture_of_the_page_has_words(source):
    assert [image for image in read(source).find_all("img") if not image["alt"].strip()] == []


@each_page
def test_the_page_has_a_title_a_language_landmarks_and_headings_in_order(source):
    page = read(source)
    assert page.html["lang"] == "en"
    levels = [int(heading.name[1]) for heading in page.find_all(re.compile("^h[1-6]$"))]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert page.title.string == f"{page.h1.get_text()} · ftcourse"
    for landmark in ("header", "main", "footer"):
        assert len(page.find_all(landmark)) == 1


@each_page
def test_every_link_between_pages_arrives(source):
    page = read(source)
    here = page_of(source).name
    ids = [tag["id"] for tag in page.find_all(id=True)]
    assert len(set(ids)) == len(ids)
    for link in page.find_all("a", href=re.compile(r"^(?!https?:)")):
        file, _, place = link["href"].partition("#")
        assert (PAGES / (file or here)).exists(), link
        if place:
            target = (PAGES / (file or here)).read_text(encoding="utf-8")
            assert f'id="{place}"' in target, link


@each_page
def test_no_formula_is_left_as_latex(source):
    for code in (page := read(source)).find_all(["code", "pre"]):
        code.clear()
    assert "$" not in page.main.get_text()


def test_markdown_has_folds_formulas_and_the_headings_of_jupyterlab():
    fold = "<details><summary>If it goes wrong</summary>\n\nRun **this**.\n\n</details>"
    assert "<strong>this</strong>" in markdown(fold)
    assert markdown(fold).strip().endswith("</details>")
    assert "<msub><mi>w</mi>" in markdown("a weight $w_{1}$")
    assert '<h2 id="For-real">For real</h2>' in markdown("## For real")
    assert "<code>$x$</code>" in markdown("`$x$`")
