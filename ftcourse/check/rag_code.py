"""The functions to write in lesson 07: recall, chunks that overlap, a search without a hole."""

from collections.abc import Callable
from functools import partial
from numbers import Number
from typing import Any

from ftcourse.check.exercise import Verdict, exercise, judge_function


def _recall(found: list, wanted: list, k: int, hit: Callable | None = None) -> float:
    hit = hit or (lambda ids, page: page in ids[:k])
    return sum(hit(ids, page) for ids, page in zip(found, wanted, strict=True)) / len(wanted)


def _recall_of(hit: Callable) -> Callable:
    """Return recall with another idea of what a hit is."""
    return lambda f, w, k: _recall(f, w, k, lambda ids, page: hit(ids, page, k))


@exercise(
    hints=(
        "For one question: is the wanted id among the first k of its list?",
        "`ids[:k]` is also right where a search found fewer than k.",
        "Count the questions for which it is, and divide by the number of questions.",
    ),
    solution="""
def recall(found, wanted, k):
    hits = [page in ids[:k] for ids, page in zip(found, wanted)]
    return sum(hits) / len(hits)

mine = recall
""",
)
def first_k_recall(mine: Any) -> Verdict | None:
    """Judge a function that returns the share of questions whose page is among the first k."""
    bugs = {
        "Only place k? The page may also stand before it.": _recall_of(
            lambda ids, page, k: page in ids[k - 1 : k]
        ),
        "What is k for? Yours looks at all that was found.": _recall_of(
            lambda ids, page, k: page in ids
        ),
        "What is k for? Yours looks only at the first page.": _recall_of(
            lambda ids, page, k: page in ids[:1]
        ),
        "How many ids does your slice hold? One too few.": _recall_of(
            lambda ids, page, k: page in ids[: k - 1]
        ),
        "How many ids does your slice hold? One too many.": _recall_of(
            lambda ids, page, k: page in ids[: k + 1]
        ),
        "Is that a share? Of how many questions?": lambda f, w, k: _recall(f, w, k) * len(w),
        "Is that in percent? A share is 0 to 1.": lambda f, w, k: 100 * _recall(f, w, k),
        "You divide by k. How many of the *questions* have their page?": (
            lambda f, w, k: _recall(f, w, k) / k
        ),
        "Does a page count that was found for another question?": lambda f, w, k: (
            sum(any(page in ids[:k] for ids in f) for page in w) / len(w)
        ),
    }
    praise = "Each question counts once, wherever among the first k its page is."
    stops = "A search may find fewer than k pages, or none."
    return judge_function(_as_number(mine), _searches, _recall, bugs, praise, stops)


def _as_number(function: Any) -> Any:
    """Return a function that gives a float for a Fraction or a Score, too."""

    def number(*arguments: Any) -> Any:
        made = function(*arguments)
        made = getattr(made, "share", made)
        return float(made) if isinstance(made, Number) else made

    return number if callable(function) else function


def _searches() -> list[tuple]:
    """Return found pages, wanted pages and k; some searches found fewer than k."""
    found = [["a", "b", "c", "d"], ["b", "e"], [], ["d", "c", "a", "b", "e"], ["c", "a", "d"]]
    wanted = ["c", "a", "b", "b", "c"]
    return [(found, wanted, k) for k in (3, 1, 2, 4)] + [([["aa"], ["b"]], ["a", "b"], 1)]


# --- chunks ------------------------------------------------------------------------------------


def _chunks(text: str, length: int, overlap: int, step: int = 0, last: int | None = None) -> list:
    words = text.split()
    end = max(len(words) - overlap, 1) if last is None else len(words) - last
    step = step or length - overlap
    return [" ".join(words[i : i + length]) for i in range(0, end, step)]


def _listed(function: Any) -> Any:
    """Return a function whose list of texts is said as one text: lists of any lengths compare."""

    def listed(*arguments: Any) -> Any:
        made = function(*arguments)
        if made is None or made is ...:
            return made
        " ".join(made)  # stops at what is no text
        return str([str(text) for text in made])

    return listed if callable(function) else function


@exercise(
    hints=(
        "Split the text into words. A chunk begins every length - overlap words.",
        "`range(0, ..., length - overlap)` gives the places where chunks begin.",
        "Stop at len(words) - overlap, so that no chunk is only overlap, and at 1 or more.",
    ),
    solution="""
def chunks(text, length, overlap):
    words = text.split()
    begins = range(0, max(len(words) - overlap, 1), length - overlap)
    return [" ".join(words[i : i + length]) for i in begins]

mine = chunks
""",
)
def overlapping_chunks(mine: Any) -> Verdict | None:
    """Judge a function that cuts a text into chunks of words, of which neighbours share some."""
    bugs: dict[str, Callable] = {
        "Do neighbours share words? Where does the second chunk begin?": lambda t, n, o: _chunks(
            t, n, o, step=n, last=0
        ),
        "Your last chunk has only words that the one before has. Is it needed?": partial(
            _chunks, last=0
        ),
        "Where are the last words of the text? A chunk may be shorter.": lambda t, n, o: [
            c for c in _chunks(t, n, o) if len(c.split()) == n
        ],
        "You begin a chunk every `overlap` words. What is shared, and what is new?": (
            lambda t, n, o: _chunks(t, n, o, step=o or n)
        ),
        "Are your chunks of characters? Words are asked for.": lambda t, n, o: [
            t[i : i + n] for i in range(0, max(len(t) - o, 1), n - o)
        ],
        "They share one word too many.": lambda t, n, o: _chunks(t, n, o, step=max(n - o - 1, 1)),
        "They share one word too few.": lambda t, n, o: _chunks(t, n, o, step=n - o + 1),
        "Is yours one text? A list of texts is asked for.": lambda t, n, o: list(
            " ".join(_chunks(t, n, o))
        ),
    }
    bugs = {question: _listed(bug) for question, bug in bugs.items()}
    praise = "Nothing is lost, and a value that one chunk cuts apart is whole in its neighbour."
    stops = "A chunk is one text: are its words joined?"
    return judge_function(_listed(mine), _texts, _listed(_chunks), bugs, praise, stops)


def _texts() -> list[tuple]:
    whole = "the Wren flies for 26 minutes and charges in 64 minutes at home"
    return [(whole, 5, 2), (whole, 4, 1), (whole, 6, 0), (whole, 20, 3), ("Wren", 3, 1)]


# --- a search with a hole ----------------------------------------------------------------------


def _allowed(pages: list, scores: list, k: int, allowed: set, **holes: Any) -> list:
    """Return the ids that are asked for, or with a hole what a search with it returns."""
    best = sorted(range(len(pages)), key=lambda i: -scores[i])
    best = best[:k] if "late" in holes else best
    may = holes.get("may", lambda label: label in allowed)
    found = [i for i in best if may(pages[i].get("access", holes.get("label")))]
    found = best if "all" in holes and not found else found
    found = sorted(found) if "sort" in holes else found
    return [pages[i]["id"] for i in (found if "every" in holes else found[:k])]


@exercise(
    hints=(
        "Which page may be without a label? And what is returned if nothing may be read?",
        "A page without a label, or with one that nobody knows, is for nobody.",
        'Take `pages[i].get("access")` without a second value, and drop the line with `if not`.',
    ),
    solution="""
def search(pages, scores, k, allowed):
    best = sorted(range(len(pages)), key=lambda i: -scores[i])
    may = [i for i in best if pages[i].get("access") in allowed]
    return [pages[i]["id"] for i in may[:k]]

mine = search
""",
)
def without_a_leak(mine: Any) -> Verdict | None:
    """Judge a search that returns the best k pages that the reader may see, and no others."""
    bugs = {
        "Nothing was found for this reader, and yours returns something. From where?": {
            "all": True
        },
        "A page has lost its label. Who may read it in yours?": {"label": "public"},
        "A page without a label goes to the whole staff in yours. Did anybody decide that?": {
            "label": "staff"
        },
        "Two holes are open. Which pages, and which readers, did nobody think of?": {
            "all": True,
            "label": "public",
        },
        "It no longer leaks, and it finds less. Is the label read before the k best are chosen?": {
            "late": True
        },
        "A label that nobody thought of gets through. What is it compared with?": {
            "may": lambda label: label != "staff"
        },
        "Staff may read staff pages. What is `allowed` for?": {
            "may": lambda label: label == "public"
        },
        "The best page comes first. In which order are yours?": {"sort": True},
        "At most k pages are asked for.": {"every": True},
    }
    mutants = {q: _listed(partial(_allowed, **holes)) for q, holes in bugs.items()}
    praise = "What may not be read is left out before the k best are taken, and not behind them."
    stops = "A page may have no label at all."
    return judge_function(_listed(mine), _shelves, _listed(_allowed), mutants, praise, stops)


def _shelves() -> list[tuple]:
    """Return pages, their scores, k and the reader's labels."""
    labels = {"door": "staff", "price": "public", "note": None, "board": "board", "speed": "public"}
    pages = [{"id": n} | ({"access": label} if label else {}) for n, label in labels.items()]
    scores, both = [0.9, 0.2, 0.8, 0.7, 0.5], {"public", "staff"}
    first, lost = (pages[:1], scores[:1], 1, {"public"}), (pages[:], scores[:], 3, both)
    pages += [{"id": f"code {n}", "access": "staff"} for n in range(30)]  # far ahead of all others
    pages += [{"id": "menu", "access": "pub"}]  # a label that only begins like another
    scores += [2 - n / 100 for n in range(30)] + [0.6]
    cases = [(pages, scores, k, {"public"}) for k in (2, 1, 3)]
    return [*cases, (pages, scores, 2, both), first, lost]
