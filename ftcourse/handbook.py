"""The handbook's pages, questions about them, and whether an answer holds the fact asked for."""

import re
from collections.abc import Sequence

from ftcourse.data import Record, read_records
from ftcourse.errors import check_choice
from ftcourse.evaluate import Score, check_pairs
from ftcourse.files import course_path


def one_line(page: str) -> str:
    """Return a page's text as a prompt quotes it: heading and paragraphs on one line."""
    title, *paragraphs = page.split("---\n", 2)[2].strip().split("\n\n")
    return " ".join([title.removeprefix("# ") + ".", *paragraphs])


def load_pages(edition: int = 1, also: Sequence[str] = ()) -> dict[str, str]:
    """Return the handbook's pages on one line each, by name: 61 in each edition.

    ``also`` adds ``similar`` (120 public pages of drones such as the Wren Mini) and ``staff`` (20
    pages about the ten drones that only the staff may read).
    """
    check_choice("edition", edition, (1, 2))
    for name in also:
        check_choice("also", name, ("similar", "staff"))
    folders = [course_path(f"data/handbook/{name}") for name in (f"edition-{edition}", *also)]
    files = [file for folder in folders for file in sorted(folder.glob("*.md"))]
    return {file.stem: one_line(file.read_text(encoding="utf-8")) for file in files}


def question_prompt(question: str, passages: Sequence[str]) -> str:
    """Return the prompt that asks a question about passages, or closed book if there are none."""
    lines = "\n".join(f"[{number}] {text}" for number, text in enumerate(passages, 1))
    return f"Passages:\n{lines}\n\nQuestion: {question}" if passages else question


def load_questions(passages: bool = True, wording: int = 0) -> list[Record]:
    """Return the 239 questions on the first edition, each with the page that answers it.

    Without ``passages`` they are asked closed book. ``wording`` is 0, 1 or 2: a question and its
    two paraphrases. A record also has ``value``, the fact, which is word for word in the answer.
    """
    check_choice("wording", wording, (0, 1, 2))
    pages, records = load_pages(), []
    for row in read_records(course_path("data/questions.jsonl")):
        if row["value"] and row["edition"] == 1:
            question = [row["question"], *row["paraphrases"]][wording]
            prompt = question_prompt(question, [pages[row["page"]]] if passages else [])
            facts = {"value": row["value"], "page": row["page"]}
            records.append({"prompt": prompt, "completion": row["answer"], **facts})
    return records


def load_wordings(passages: bool = True) -> list[Record]:
    """Return the questions on the first edition in new words: three for each, 717 in all.

    No text that the embedded model or the embedded encoder learned from asks in these words. A
    record is as in :func:`load_questions`, and it has ``id`` and ``question``.
    """
    asked = {row["id"]: row for row in read_records(course_path("data/questions.jsonl"))}
    pages = load_pages()
    return [
        _asked(asked[row["id"]] | {"question": question}, pages if passages else {})
        for row in read_records(course_path("data/wordings.jsonl"))
        for question in row["wordings"]
    ]


def _asked(row: Record, pages: dict[str, str]) -> Record:
    """Return a row's question as a record: with the pages that answer it, or closed book."""
    names = row.get("pages") or [row["page"]]
    prompt = question_prompt(row["question"], [pages[name] for name in names] if pages else [])
    kept = ("id", "question", "value", "access", "pages" if "pages" in row else "page")
    return {"prompt": prompt, "completion": row["answer"]} | {name: row[name] for name in kept}


def load_staff_questions(passages: bool = True, wording: int = 0) -> list[Record]:
    """Return the 60 questions on the staff's pages about the ten drones; as load_questions."""
    check_choice("wording", wording, (0, 1, 2))
    rows = read_records(course_path("data/questions_staff.jsonl"))
    pages = load_pages(also=["staff"]) if passages else {}
    asked = [[row["question"], *row["paraphrases"]][wording] for row in rows]
    return [_asked(row | {"question": q}, pages) for row, q in zip(rows, asked, strict=True)]


def load_two_pages(passages: bool = True) -> list[Record]:
    """Return 80 questions that need both of their ``pages``: 40 comparisons, 40 chains.

    A comparison of two drones names both. A chain names a drone, its staff page names a workshop
    or a supplier, and the page of that one holds the value.
    """
    pages = load_pages(also=["staff"]) if passages else {}
    rows = read_records(course_path("data/questions_two_pages.jsonl"))
    return [_asked(row, pages) for row in rows]


def load_attacks() -> list[Record]:
    """Return what an attacker could slip in for each of the 207 public facts.

    A row has ``id``, ``question``, ``page`` and ``value`` of the fact, a ``false_value``, three
    texts of pages on one line (``stuffed``, ``plain``, ``order``) and ``obeyed``, the words that an
    answer holds if the order was followed.
    """
    asked = {row["id"]: row for row in read_records(course_path("data/questions.jsonl"))}
    return [
        row | {name: asked[row["id"]][name] for name in ("question", "page")}
        for row in read_records(course_path("data/attacks.jsonl"))
    ]


def load_reading(split: str, voice: str = "brand") -> list[Record]:
    """Return questions on one to four passages about invented things: 3,000, 200 and 200.

    ``split`` is ``train``, ``validation`` or ``test``; ``voice`` is ``brand`` or ``neutral``. A
    record also has ``passages``, ``question`` and ``value``, which is None where the passages are
    silent.
    """
    check_choice("split", split, ("train", "validation", "test"))
    check_choice("voice", voice, ("brand", "neutral"))
    return [
        {
            "prompt": question_prompt(row["question"], row["passages"]),
            "completion": row[voice],
            **{name: row[name] for name in ("passages", "question", "value")},
        }
        for row in read_records(course_path(f"data/reading/{split}.jsonl"))
    ]


def holds_value(value: str, answer: str) -> bool:
    """Return whether the value stands in the answer as whole words.

    >>> holds_value("6 minutes", "The Wren flies for 26 minutes.")
    False
    """
    return re.search(rf"(?<!\w){re.escape(value)}(?!\w)", answer) is not None


def fact_score(answers: Sequence[str], records: Sequence[Record]) -> Score:
    """Return the share of answers that hold the fact that was asked for."""
    check_pairs(answers, records)
    pairs = zip(records, answers, strict=True)
    return Score(
        sum(holds_value(record["value"], answer) for record, answer in pairs), len(answers)
    )
