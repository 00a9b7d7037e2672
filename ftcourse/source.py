"""What a lesson shows as it is: a text without quotes, and the package's own source."""

import inspect
from collections.abc import Callable
from pathlib import PurePosixPath as Path
from textwrap import fill


class Text(str):
    """A text that a notebook shows as a reader reads it: without quotes, its lines wrapped."""

    def __repr__(self) -> str:
        """Return the text in lines of at most 80 columns."""
        return "\n".join(fill(line, 80) for line in self.splitlines())


class Source(str):
    """Source code: a notebook shows it with colours, a terminal as it is."""

    place = ""
    """Its file and line, such as ``ftcourse/chat.py, line 46``; empty if it is in no file."""

    def __repr__(self) -> str:
        """Return the code as it is in the file."""
        return str(self)

    def _repr_markdown_(self) -> str:
        place = f"`{self.place}`\n" if self.place else ""
        return f"{place}```python\n{self}\n```"


def hang(label: str, text: str) -> str:
    """Return a text after its label, in lines of at most 80 columns that stand beside the label."""
    return fill(text, 80, initial_indent=label, subsequent_indent=" " * len(label))


def show_source(thing: type | Callable) -> Source:
    """Return the source of a function or class of the package, comments and docstring included."""
    thing = inspect.unwrap(thing)
    lines, first = inspect.getsourcelines(thing)
    source = Source("".join(lines).rstrip())
    file = Path(*thing.__module__.split("."))
    source.place = f"{file.with_suffix('.py')}, line {first}"
    return source
