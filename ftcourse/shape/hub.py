"""What a model says of itself, its config.json: from the package, a folder, or the Hub."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from ftcourse.errors import CourseError
from ftcourse.files import course_path


@cache
def named_shapes() -> dict[str, dict[str, Any]]:
    """Return the shapes that ship with the package: name to a transformers config and a Hub id."""
    return json.loads((Path(__file__).parent / "shapes.json").read_text(encoding="utf-8"))


def model_config(model: str) -> dict[str, Any]:
    """Return a model's config; for a Hub id it is downloaded unless it is in the local cache."""
    if model in named_shapes():
        return named_shapes()[model]
    folder = course_path("data/model") if model == "embedded" else Path(model)
    path = folder / "config.json" if folder.is_dir() else download(model, "config.json")
    if not path.exists():
        raise CourseError(
            "A model folder in the Hub's format holds a config.json.",
            f"{folder} without one",
            "Point to the folder that from_pretrained would load.",
        )
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:  # a list, say, or no JSON, or no UTF-8
        raise CourseError(
            "A model's config.json is an object in JSON.",
            f"{path}: {error}",
            "Copy the file again from where the model came from.",
        ) from error


def download(model: str, name: str) -> Path:
    """Return the local path of one file of a Hub repository. Raises CourseError if out of reach."""
    from huggingface_hub import hf_hub_download  # here: a named shape needs no network code

    try:
        return Path(hf_hub_download(model, name))
    except (OSError, ValueError) as error:  # no network, no such repository, not a Hub id
        raise model_not_found(model) from error


def model_not_found(model: str) -> CourseError:
    """Return the error for a model that is neither here nor within reach."""
    return CourseError(
        "A model is 'embedded', a shape's name, a folder, or a Hub id that can be reached.",
        f"{model!r}: no such folder here, and the Hub did not give it",
        "Check the spelling, the network, and whether its licence must be accepted on the Hub; "
        "or use model='embedded', which needs none of them.",
    )
