"""The panel of lesson 07: what a search finds, how much is to read, and a live answer from it."""

from functools import cache
from typing import Any

import ipywidgets
from matplotlib.axes import Axes

from ftcourse.config import FinetuneConfig
from ftcourse.evaluate import Score
from ftcourse.files import course_path
from ftcourse.handbook import holds_value, load_questions, load_wordings
from ftcourse.lookups import find_all, page_recall, value_recall
from ftcourse.models import load_base, load_tokenizer
from ftcourse.plots.rag import plot_recall
from ftcourse.rag import ORDERS, answer
from ftcourse.records import Record
from ftcourse.retrieval import Chunker, Hit, load_encoder, open_store, read_pages
from ftcourse.widgets.panel import Panel

MOST = 5  # passages
WORDS = {
    "by": "Where a page is cut into chunks.",
    "length": "Words in a chunk, if pages are cut by words.",
    "overlap": "Words that a chunk shares with the one before it.",
    "how": "lexical: shared words. dense: near vectors. hybrid: both rankings fused.",
    "k": "Passages that the model gets to read.",
    "order": "Where the best passage stands in the button's prompt, or one prompt for each.",
    "reader": "Whose labels are allowed. Staff may also read staff pages.",
    "wordings": "known: as in the encoder's training, with other names. new: in other words.",
    "similar": "Whether 120 pages of other drones are there: Wren Mini, Wren Pro, Wren XL.",
    "question": "What the button asks.",
    "answer": "Asks the model; the first time takes a second or two.",
}
READERS = {"public": frozenset({"public"}), "staff": frozenset({"public", "staff"})}
Reached = tuple[list[Score], list[Score], float]


def rag_panel() -> Panel:
    """Return a panel that begins with chunks of 8 words and a lexical search."""
    asked = [row["question"] for kind in ("known", "new") for row in sample(kind)]
    menus = {
        "by": ["page", "paragraph", "sentence", "words"],
        "how": ["lexical", "dense", "hybrid"],
    }
    menus |= {"order": [*ORDERS], "reader": [*READERS], "question": asked[::8]}
    menus["wordings"] = ["known", "new"]
    start = {"by": "words"}
    controls: dict[str, ipywidgets.Widget] = {
        name: ipywidgets.Dropdown(options=menu, value=start.get(name, menu[0]), description=name)
        for name, menu in menus.items()
    }
    for name, (least, most, value) in {"length": (4, 48, 8), "overlap": (0, 16, 2)}.items():
        controls[name] = _slider(f"{name} (words)", least, most, value)
    controls["k"] = _slider("k (passages)", 1, MOST, 1)
    controls["similar"] = ipywidgets.Checkbox(value=False, description="similar names")
    # A whole row. Not by grid_column: the front end takes that away with an empty grid_area.
    controls["question"].layout.grid_area = "auto / 1 / auto / -1"
    for name in ("length", "overlap"):  # only words have them
        link = (controls["by"], "value"), (controls[name], "disabled")
        ipywidgets.dlink(*link, lambda by: by != "words")
    order = ["by", "length", "overlap", "how", "k", "wordings", "reader", "similar"]
    order += ["order", "question"]
    controls = {name: controls[name] for name in order}
    title = "What is found, and what is read?"
    return Panel(_draw, controls, title, actions={"answer": _draw_answer}, words=WORDS)


def _slider(name: str, least: int, most: int, value: int) -> ipywidgets.IntSlider:
    style = {"description": name, "continuous_update": False}
    return ipywidgets.IntSlider(min=least, max=most, value=value, **style)


@cache
def sample(wordings: str) -> list[Record]:
    """Return 60 questions on public pages, in known or new wordings; the same ones each time."""
    if wordings == "new":
        rows = [row for row in load_wordings(passages=False) if row["access"] == "public"]
        return rows[4::10][:60]
    pages = read_pages(course_path("data/handbook/edition-1"))
    public = {page.id for page in pages if page.access == "public"}
    rows = [row for row in load_questions(passages=False, wording=1) if row["page"] in public]
    return [row | {"question": row["prompt"]} for row in rows[::3]][:60]


@cache
def indexed(chunker: Chunker, similar: bool) -> Any:
    """Return a store in memory: the handbook, staff pages on the same drones, similar names."""
    store = open_store(":memory:", _encoder(), chunker)
    for folder in ("edition-1", "staff", *(["similar"] if similar else [])):
        store.add(read_pages(course_path(f"data/handbook/{folder}")))
    return store


@cache
def found(chunker: Chunker, similar: bool, how: str, reader: str, wordings: str) -> list[list[Hit]]:
    """Return the first hits for each question of the sample."""
    return find_all(indexed(chunker, similar), sample(wordings), MOST, READERS[reader], how)


@cache
def tokens_of(text: str) -> int:
    """Return how many tokens a text has."""
    return len(_tokenizer()(text, add_special_tokens=False).input_ids)


def reached(by: str, length: int, overlap: int, how: str, k: int, **rest: Any) -> Reached:
    """Return who finds the page and a chunk with the value, at 1 to 5, and tokens for a question.

    The tokens are those of the first ``k`` passages, in the mean.
    """
    chunker = Chunker(by, length, overlap) if by == "words" else Chunker(by)
    wordings = rest["wordings"]
    hits = found(chunker, rest["similar"], how, rest["reader"], wordings)
    recalls = (page_recall, value_recall)
    both = ([at(hits, sample(wordings), n) for n in range(1, MOST + 1)] for at in recalls)
    read = sum(tokens_of(hit.text) for each in hits for hit in each[:k])
    return *both, read / len(hits)


def _draw(**values: Any) -> tuple[Axes | str, ...]:
    pages, held, tokens = reached(**values)
    k = values["k"]
    picture = plot_recall({"the right page": pages, "a chunk with the value": held}, k)
    text = (
        f"{held[k - 1].share:.0%} of {held[0].count} questions get a passage with the value, "
        f"{pages[k - 1].share:.0%} one of the right page.\n"
        f"To read for each question: {tokens:.0f} tokens of passages."
    )
    return picture, text


def _draw_answer(**values: Any) -> tuple[Axes | str, ...]:
    """Draw, and answer the chosen question from the passages that these choices find."""
    picture, text = _draw(**values)
    words = ("by", "length", "overlap") if values["by"] == "words" else ("by",)
    store = indexed(Chunker(*(values[name] for name in words)), values["similar"])
    asked = values["question"]
    said = answer(
        _model(),
        _tokenizer(),
        store,
        asked,
        values["k"],
        READERS[values["reader"]],
        values["order"],
        how=values["how"],
    )
    row = next(r for kind in ("known", "new") for r in sample(kind) if r["question"] == asked)
    below = [f"Asked: {asked} Answered, from a prompt of {said.tokens} tokens: {said!r}"]
    for hit in said.passages:
        right = hit.page == row["page"] and holds_value(row["value"], hit.text)
        mark = "✓ holds the value" if right else "✗"
        below.append(f"{mark} [{hit.page}, {hit.access}] {hit.text}")
    return picture, text, *below


@cache
def _encoder() -> Any:
    return load_encoder("embedded")


@cache
def _tokenizer() -> Any:
    return load_tokenizer("embedded")


@cache
def _model() -> Any:
    return load_base(FinetuneConfig(model="embedded", method="full"))
