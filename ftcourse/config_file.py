"""A run as a TOML file: its config, its data and its folder, to be kept, shared and run again."""

import json
import os
import tomllib
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ftcourse.config import FinetuneConfig
from ftcourse.errors import CourseError, check_kind
from ftcourse.files import user_path, write_whole

_PATHS = ("data", "validation", "output_dir")
_HEAD = """\
# ftcourse finetune --config {name}
# Relative paths start at this file's folder. What the command line says comes first.
"""


@dataclass(frozen=True)
class Plan:
    """What a config file says: the choices of a run, and its paths as this process finds them."""

    config: FinetuneConfig
    data: Path | None = None
    """The file with the training data."""
    output_dir: Path | None = None
    """The folder of the run."""
    validation: Path | None = None
    """The file with the records that judge each checkpoint."""
    patience: int | None = None
    """Checkpoints without a lower validation loss after which the run stops."""


def write_config(
    path: str | Path,
    config: FinetuneConfig,
    data: str | Path | None = None,
    output_dir: str | Path | None = None,
    validation: str | Path | None = None,
    patience: int | None = None,
) -> Path:
    """Write a run as a TOML file, with every field of its config, and return the file's path.

    Refuses to replace a file that is no config of ours.
    """
    check_kind("config", config, FinetuneConfig, "FinetuneConfig(model='embedded')")
    path = user_path(path)
    if path.exists():
        read_config(path)  # raises CourseError if it is somebody's other file
    folder = path.parent
    paths = {"data": data, "validation": validation, "output_dir": output_dir}
    values = {name: _seen_from(folder, p) for name, p in paths.items() if p is not None}
    values |= {} if patience is None else {"patience": patience}
    chosen = asdict(config)
    if _is_local(config.model):
        chosen["model"] = "./" + _seen_from(folder, config.model)
    _check(path, values | chosen)
    blocks = [_HEAD.format(name=path.name), *(_lines(each) for each in (values, chosen) if each)]
    try:
        write_whole(path, "\n".join(blocks))
    except UnicodeEncodeError as error:
        must = "A config file is UTF-8."
        raise CourseError(must, f"{path}: {error}", "Correct the name.") from error
    return path


def _lines(values: dict[str, Any]) -> str:
    return "".join(f"{name} = {_as_toml(value)}\n" for name, value in values.items())


def _as_toml(value: Any) -> str:
    """Return a value as TOML, whose texts and numbers look like those of JSON."""
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(_as_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def read_config(path: str | Path) -> Plan:
    """Return what a config file says. Raises CourseError for a key that is no field.

    A value that the file leaves out has its default.
    """
    path = user_path(path)
    must = "A config file is TOML: one line for each choice, such as rank = 8."
    if not path.is_file():
        do = f"Write one with write_config; relative paths start at {Path.cwd()}."
        raise CourseError(must, f"{path}: no such file", do)
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:  # also if it is not UTF-8
        do = 'Text stands between "", and true and false are small letters.'
        raise CourseError(must, f"{path}: {error}", do) from error
    _check(path, found)
    paths = {name: _from_file(path, found.pop(name)) for name in _PATHS if name in found}
    patience = found.pop("patience", None)
    config = FinetuneConfig(**found)
    if _is_local(config.model):
        model = _from_file(path, config.model)
        config = replace(config, model=str(model) if model.is_absolute() else f"./{model}")
    return Plan(config, **paths, patience=patience)


def _check(path: Path, found: dict[str, Any]) -> None:
    """Refuse what neither a config nor a plan has; the config itself judges its values."""
    known = [*_PATHS, "patience", *(field.name for field in fields(FinetuneConfig))]
    if unknown := [name for name in found if name not in known]:
        near = get_close_matches(unknown[0], known, 1)
        raise CourseError(
            "A config file has the fields of FinetuneConfig, and " + ", ".join(known[:4]) + ".",
            f"{path}: {unknown[0]} = {found[unknown[0]]!r}"[:300],
            f"Do you mean {near[0]}?" if near else "Leave it out.",
        )
    for name in _PATHS:
        if not isinstance(found.get(name, "a path"), str):
            raise CourseError(
                f"{name} is the path of a file or folder.",
                f"{path}: {name} = {found[name]!r}"[:300],
                f'Write it as text, as in {name} = "run".',
            )
    check_patience(found.get("patience"))


def check_patience(patience: object) -> None:
    """Refuse a patience that is no number of checkpoints."""
    if patience is not None and (type(patience) is not int or patience < 1):
        raise CourseError(
            "patience is a whole number of checkpoints, 1 or more.",
            f"patience={patience!r}"[:200],
            "Leave it out to train to the end.",
        )


def _is_local(model: str) -> bool:
    """Whether a model's name can only be a folder here, as ``locate`` reads it."""
    return model.startswith(".")


def _seen_from(folder: Path, path: str | Path) -> str:
    """Return a path as text, relative to a folder if it is relative."""
    path = user_path(path)
    return path.as_posix() if path.is_absolute() else Path(os.path.relpath(path, folder)).as_posix()


def _from_file(file: Path, text: str) -> Path:
    """Return a path that stands in a file as this process finds it."""
    path = user_path(text)
    return path if path.is_absolute() else Path(os.path.normpath(file.parent / path))
