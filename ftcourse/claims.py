"""Claims that one reads about fine-tuning, put on trial: what a lesson measured decides."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from itertools import zip_longest
from textwrap import fill, wrap

from ftcourse.errors import CourseError
from ftcourse.files import course_path
from ftcourse.source import hang


@dataclass(frozen=True)
class Trial:
    """A claim, who makes it, and what was measured for and against it."""

    claim: str
    sources: tuple[str, ...]
    evidence: tuple[tuple[str, bool], ...]
    """What was measured, in words, and whether it speaks for the claim."""
    why: str = ""
    """Why there is no evidence; empty where there is some."""

    @property
    def verdict(self) -> str:
        """What the evidence says: all of it for the claim, some of it, none; or there is none."""
        speaks = [holds for _, holds in self.evidence]
        if not speaks:
            return "cannot be tried here"
        return "holds" if all(speaks) else "holds under conditions" if any(speaks) else "fails"

    def __repr__(self) -> str:
        """Return claim, sources, evidence and verdict, a line or two for each."""
        rows = [("claim", self.claim), *(("source", source) for source in self.sources)]
        rows += [("yes" if holds else "no", words) for words, holds in self.evidence]
        rows += [("why", self.why)] if self.why else []
        rows.append(("verdict", self.verdict))
        return "\n".join(hang(f"{name:9}", text) for name, text in rows)

    def _repr_html_(self) -> str:
        items = "".join(
            f"<li>{'✓' if holds else '✗'} {escape(words)}</li>" for words, holds in self.evidence
        )
        why = f": {escape(self.why)}" if self.why else ""
        style = "border-left: 4px solid #888; padding-left: 8px"
        return (
            f'<div style="{style}"><p><b>{escape(self.claim)}</b><br>'
            f"<small>{escape('; '.join(self.sources))}</small></p>"
            f'<ul style="list-style: none; padding-left: 0">{items}</ul>'
            f"<p>Verdict: <b>{self.verdict}</b>{why}</p></div>"
        )


@dataclass(frozen=True)
class Claim:
    """A claim of the course's list, with its trial in each lesson that tries it."""

    number: int
    name: str
    claim: str
    sources: tuple[str, ...]
    trials: tuple[tuple[str, Trial], ...]
    """The cell, such as ``05_qlora.ipynb#cell-id=qlora-paged-trial``, and the trial there."""

    @property
    def verdict(self) -> str:
        """What the evidence of all lessons together says."""
        if not self.trials:
            return "no lesson tries it"
        evidence = tuple(pair for _, trial in self.trials for pair in trial.evidence)
        return Trial(self.claim, self.sources, evidence).verdict

    def __repr__(self) -> str:
        """Return rows of a table: the verdict on all evidence, then each lesson's own."""
        verdicts = [f"{trial.verdict:24}{cell[:2]}" for cell, trial in self.trials]
        if len(verdicts) != 1:
            verdicts.insert(0, f"{self.verdict:24}{'all' if verdicts else ''}")
        rows = zip_longest([self.number], wrap(self.claim, 44), verdicts, fillvalue="")
        return "\n".join(_ROW.format(*row).rstrip() for row in rows)

    def html(self) -> str:
        """Return who makes the claim, the verdict, and each lesson's evidence and verdict."""
        sources = f"<p><small>Sources: {escape('; '.join(self.sources))}</small></p>"
        parts = [f"{sources}<p>Verdict: <b>{self.verdict}</b></p>"]
        for cell, trial in self.trials:
            link = f'Measured in <a href="{escape(cell)}">lesson {cell[:2]}</a>'
            rows = [f"{'✓ yes' if yes else '✗ no'}: {words}" for words, yes in trial.evidence]
            items = "".join(f"<li>{escape(row)}</li>" for row in rows or [trial.why])
            parts.append(f"<p>{link}: {trial.verdict}</p><ul>{items}</ul>")
        return "".join(parts)


@dataclass(frozen=True)
class Claims:
    """All claims of the course with their verdicts, as the stored lessons give them."""

    claims: tuple[Claim, ...]

    @property
    def summary(self) -> str:
        """How many claims there are, and how many have each verdict."""
        count = Counter(claim.verdict for claim in self.claims).most_common()
        return f"{len(self.claims)} claims: {', '.join(f'{verdict} {n}' for verdict, n in count)}"

    def __repr__(self) -> str:
        """Return a table: number, claim, verdict, lesson; then how many there are of each."""
        head = _ROW.format("", "claim", f"{'verdict':24}lesson")
        return "\n".join([head, *map(repr, self.claims), fill(self.summary, 80)])

    def _repr_html_(self) -> str:
        folds = (
            f"<details><summary>{claim.number}. {escape(claim.claim)} <b>{claim.verdict}</b>"
            f"</summary>{claim.html()}</details>"
            for claim in self.claims
        )
        return f"<p>{self.summary}</p>{''.join(folds)}"


_ROW = "{:<4}{:<46}{}"


def try_claim(name: str, evidence: Mapping[str, bool], why: str = "") -> Trial:
    """Return the trial of a claim from ``data/claims.json``.

    ``evidence`` maps what was measured, in words, to whether it speaks for the claim. Where there
    is none, ``why`` says the reason; where there is some, ``why`` is not used.
    """
    claims = json.loads(course_path("data/claims.json").read_text(encoding="utf-8"))
    if name not in claims:
        names = ", ".join(claims)
        raise CourseError("A claim is found by its name.", repr(name), f"Use one of {names}.")
    if not evidence and not why.strip():
        must = "A trial without evidence says why it has none."
        raise CourseError(must, "no evidence, why=''", 'Give why="the reason".')
    facts = claims[name]
    pairs = tuple((words, bool(holds)) for words, holds in evidence.items())
    return Trial(facts["claim"], tuple(facts["sources"]), pairs, "" if pairs else why)


def all_claims() -> Claims:
    """Return every claim of the course, each with what the stored lessons measured."""
    claims, stored = [], json.loads(course_path("data/claims.json").read_text(encoding="utf-8"))
    for name, facts in stored.items():
        trials = tuple(
            (f"{file}.ipynb#cell-id={t['cell']}", try_claim(name, t["evidence"], t.get("why", "")))
            for file, t in facts["trials"].items()
        )
        number, claim = int(facts["number"][1:]), facts["claim"]
        claims.append(Claim(number, name, claim, tuple(facts["sources"]), trials))
    return Claims(tuple(sorted(claims, key=lambda claim: claim.number)))
