"""The typical mistakes that each exercise knows, read from its check while it judges.

A check that judges a number or a function has a table of bugs, each with the question that a
learner gets for it. The other checks ask their questions in their code, where we read them.
"""

import ast
import inspect
import textwrap
from collections.abc import Callable
from contextlib import suppress
from numbers import Real
from typing import Any

from ftcourse import check
from ftcourse.check.exercise import Exercise


def mistakes(exercise: Exercise) -> list[tuple[str, str]]:
    """Return the wrong answers that a check knows, in words, each with its question."""
    bugs = _bugs(exercise).items()
    table = [(_say(key), text) if isinstance(key, Real) else ("", key) for key, text in bugs]
    return table or [("", text) for text in _from_code(exercise.judge)]


def _bugs(exercise: Exercise) -> dict[Any, Any]:
    """Return the table of bugs that a check hands to its judge; empty if it has none."""
    handed: dict[Any, Any] = {}

    def judge_number(mine: Any, right: Any, bugs: dict, *rest: Any, **named: Any) -> None:
        handed.update(bugs)

    def judge_function(mine: Any, cases: Any, right: Any, bugs: dict, *rest: Any, **n: Any) -> None:
        handed.update(bugs)

    names = exercise.judge.__globals__
    instead = {f.__name__: f for f in (judge_number, judge_function) if f.__name__ in names}
    before = {name: names[name] for name in instead}
    names.update(instead)
    try:
        for probe in (1.0, lambda *arguments: 1.0):  # a check may refuse what is of another kind
            with suppress(Exception):
                exercise.judge(probe)
    finally:
        names.update(before)
    return handed


def _from_code(judge: Callable) -> list[str]:
    """Return the questions in a check's code, in its own helpers and in their tables."""
    waiting, known, asked = [judge], {judge}, {}
    while waiting:
        code = waiting.pop(0)
        tree = ast.parse(textwrap.dedent(inspect.getsource(code)))
        asked |= dict.fromkeys(_questions(tree))
        for name in {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}:
            found = judge.__globals__.get(name)
            if isinstance(found, dict):
                asked |= {text: None for text in found.values() if str(text).endswith("?")}
            elif inspect.isfunction(found) and found.__module__ == judge.__module__:
                waiting += [found] if found not in known else []
                known.add(found)
    return list(asked)


def _questions(tree: ast.Module) -> list[str]:
    """Return the texts that end with a question mark; what is filled in becomes three dots."""
    nodes = [node for part in tree.body[0].body for node in ast.walk(part)]
    inner = {id(v) for node in nodes if isinstance(node, ast.JoinedStr) for v in node.values}
    whole = [node for node in nodes if id(node) not in inner and _text(node).endswith("?")]
    return [_text(node) for node in sorted(whole, key=lambda node: (node.lineno, node.col_offset))]


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value.strip()
    if isinstance(node, ast.JoinedStr):
        parts = (getattr(part, "value", None) for part in node.values)
        return "".join(part if isinstance(part, str) else "..." for part in parts).strip()
    return ""


def _say(number: Real) -> str:
    value = float(number)
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.4g}"


def all_mistakes() -> dict[str, list[tuple[str, str]]]:
    """Return the mistakes of every exercise, by its name."""
    return {each.name: mistakes(each) for each in check._exercises()}
