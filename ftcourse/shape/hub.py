"""What a model says of itself, its config.json: from the package, a folder, or the Hub."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from ftcourse.errors import CourseError, check_kind
from ftcourse.files import course_path, user_path

_SECONDS = 5  # for the Hub's answer to a short question


@cache
def named_shapes() -> dict[str, dict[str, Any]]:
    """Return the shapes that ship with the package: name to a transformers config and a Hub id."""
    return json.loads((Path(__file__).parent / "shapes.json").read_text(encoding="utf-8"))


def model_config(model: str) -> dict[str, Any]:
    """Return a model's config; for a Hub id it is downloaded unless it is in the local cache."""
    check_kind("model", model, (str, Path), "'llama-3.1-8b'")
    if model in named_shapes():
        return named_shapes()[model]
    folder = course_path("data/model") if model == "embedded" else user_path(model)
    path = folder / "config.json" if folder.is_dir() else download(model, "config.json")
    if not path.exists():
        raise CourseError(
            "A model folder in the Hub's format holds a config.json.",
            f"{folder} without one",
            "Point to the folder that from_pretrained would load.",
        )
    return read_json(path)


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file of a model. Raises CourseError if there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        problem = f"a JSON {type(found).__name__}"
    except FileNotFoundError:
        found, problem = None, "no such file"
    except (OSError, ValueError, RecursionError) as error:
        found, problem = None, str(error)
    if not isinstance(found, dict):
        do = "Copy the file again from where the model came from."
        raise CourseError(f"A model's {path.name} is a JSON object.", f"{path}: {problem}", do)
    return found


def download(model: str, name: str) -> Path:
    """Return the local path of one file of a Hub repository. Raises CourseError if out of reach.

    One short question comes first: the download itself would ask six times, for half a minute.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url  # slow

    try:
        get_hf_file_metadata(hf_hub_url(model, name), timeout=_SECONDS)
        cached = False
    except Exception:  # no network, no such repository, not a Hub id: perhaps it is here already
        cached = True
    try:
        return Path(hf_hub_download(model, name, local_files_only=cached))
    except (OSError, ValueError) as error:
        raise model_not_found(model) from error


def model_not_found(model: str) -> CourseError:
    """Return the error for a model that is neither here nor within reach."""
    return CourseError(
        "A model is 'embedded', a shape's name, a folder, or a Hub id that can be reached.",
        f"{model!r}: no such folder here, and the Hub did not give it",
        "Check the spelling, the network, and whether its licence must be accepted on the Hub; "
        "or use model='embedded', which needs none of them.",
    )
