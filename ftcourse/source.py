"""The package's own source, shown in a lesson: what is taught is what runs."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """Source code that a notebook shows with colours, and a terminal as it is."""

    code: str

    def __repr__(self) -> str:
        """Return the code as it is in the file."""
        return self.code

    def _repr_markdown_(self) -> str:
        return f"```python\n{self.code}\n```"


def show_source(thing: type | Callable) -> Source:
    """Return the source of a function or class of the package, comments and docstring included."""
    return Source(inspect.getsource(inspect.unwrap(thing)).rstrip())
