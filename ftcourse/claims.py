"""Claims that one reads about fine-tuning, put on trial: what a lesson measured decides."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from textwrap import fill

from ftcourse.errors import CourseError
from ftcourse.files import course_path


@dataclass(frozen=True)
class Trial:
    """A claim, who makes it, and what was measured for and against it."""

    claim: str
    sources: tuple[str, ...]
    evidence: tuple[tuple[str, bool], ...]
    """What was measured, in words, and whether it speaks for the claim."""

    @property
    def verdict(self) -> str:
        """What the evidence says: all of it for the claim, some of it, none; or there is none."""
        speaks = [holds for _, holds in self.evidence]
        if not speaks:
            return "nobody measured it"
        return "holds" if all(speaks) else "holds under conditions" if any(speaks) else "wrong"

    def __repr__(self) -> str:
        """Return claim, sources, evidence and verdict, a line or two for each."""
        rows = [("claim", self.claim), *(("source", source) for source in self.sources)]
        rows += [("yes" if holds else "no", words) for words, holds in self.evidence]
        return "\n".join(_line(*row) for row in [*rows, ("verdict", self.verdict)])

    def _repr_html_(self) -> str:
        items = "".join(
            f"<li>{'✓' if holds else '✗'} {escape(words)}</li>" for words, holds in self.evidence
        )
        style = "border-left: 4px solid #888; padding-left: 8px"
        return (
            f'<div style="{style}"><p><b>{escape(self.claim)}</b><br>'
            f"<small>{escape('; '.join(self.sources))}</small></p>"
            f'<ul style="list-style: none; padding-left: 0">{items}</ul>'
            f"<p>Verdict: <b>{self.verdict}</b></p></div>"
        )


def _line(name: str, text: str) -> str:
    return fill(text, 80, initial_indent=f"{name:9}", subsequent_indent=" " * 9)


def try_claim(name: str, evidence: Mapping[str, bool]) -> Trial:
    """Return the trial of a claim from ``data/claims.json``.

    ``evidence`` maps what was measured, in words, to whether it speaks for the claim.
    """
    claims = json.loads(course_path("data/claims.json").read_text(encoding="utf-8"))
    if name not in claims:
        names = ", ".join(claims)
        raise CourseError("A claim is found by its name.", repr(name), f"Use one of {names}.")
    facts = claims[name]
    pairs = tuple((words, bool(holds)) for words, holds in evidence.items())
    return Trial(facts["claim"], tuple(facts["sources"]), pairs)
