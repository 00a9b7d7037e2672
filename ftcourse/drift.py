"""Names and arguments of other libraries that we use, held against what is installed."""

import inspect
import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module, metadata
from importlib.util import find_spec
from itertools import chain
from typing import Any

from ftcourse.files import course_path


@cache
def recorded_uses() -> dict[str, dict[str, Any]]:
    """Return the table, which ``tests/uses.py`` reads out of our source; it says what it holds."""
    return json.loads(course_path("data/uses.json").read_text(encoding="utf-8"))


def release(package: str) -> str | None:
    """Return the version of a package; None if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def moved(uses: dict, wanted: Callable = find_spec) -> Iterator[tuple[str, str]]:
    """Yield the library and a sentence for each use that a wanted library does not allow."""
    for name, arguments in uses.items():
        library = name.split(".")[0]
        for argument, at in arguments.items() if wanted(library) else ():
            if problem := _problem(name, argument):
                yield library, f"{problem} any more (installed: {release(library)}); used in {at}"


def _problem(name: str, argument: str) -> str:
    try:
        thing = _find(name)
    except (ImportError, AttributeError, RuntimeError) as error:  # the last is transformers' own
        return str(error)
    others = (o for start, o in recorded_uses()["passes_on"].items() if re.fullmatch(start, name))
    takers = [thing, *map(_find, chain.from_iterable(others))]
    fine = not argument or thing is None or any(_takes(taker, argument) for taker in takers)
    return "" if fine else f"{name} has no argument {argument!r}"


@cache
def _find(name: str) -> Any:
    """Return what a name stands for; None from where only an object, not its class, knows it."""
    path, _, rest = name.partition(".")
    thing = import_module(path)
    for part in filter(None, rest.split(".")):
        for owner in [thing, *map(_find, recorded_uses()["stands_for"].get(path, ()))]:
            if hasattr(owner, part):
                thing = getattr(owner, part)
                break
            if isinstance(owner, type) and part in _set_by(owner):
                return None
        else:
            if not hasattr(thing, "__path__") or not find_spec(f"{path}.{part}"):
                raise AttributeError(f"{path} has no {part!r}")
            thing = import_module(f"{path}.{part}")
        if not callable(thing) and not inspect.ismodule(thing):  # a property, a trait, a number
            return None
        path = f"{path}.{part}"
    return thing


@cache
def _set_by(owner: type) -> set[str]:
    """Return attributes of an object that its class has not: those that its methods name."""
    tokens = getattr(owner, "SPECIAL_TOKENS_ATTRIBUTES", ())  # a tokenizer's __getattr__ has them
    names = {*tokens, *(f"{token}_id" for token in tokens)}
    for each in owner.mro():
        names |= vars(each).get("__annotations__", {}).keys()
        for method in filter(inspect.isfunction, vars(each).values()):
            names |= {*method.__code__.co_names}
    return names


def _takes(function: Any, argument: str) -> bool:
    try:
        parameters = inspect.signature(function).parameters
    except ValueError:  # of a function in C we have nothing but its text
        return re.search(rf"\b{argument}\b", function.__doc__ or "") is not None
    if argument in parameters or all(p.kind != p.VAR_KEYWORD for p in parameters.values()):
        return argument in parameters
    names, made = [*getattr(function, "class_trait_names", list)()], [inspect.unwrap(function)]
    if isinstance(function, type):
        made = [each.__init__ for each in function.mro() if inspect.isfunction(each.__init__)]
    for each in made:
        names += inspect.signature(each).parameters
        names += getattr(each, "__code__", _takes.__code__).co_consts  # kwargs.pop("argument")
    return argument in names or hasattr(function, f"set_{argument}")  # matplotlib's way
