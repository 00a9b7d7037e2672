"""A model's folder in the Hub's format: what must be in it before anything is loaded from it."""

import hashlib
from pathlib import Path

from safetensors import SafetensorError, safe_open
from tqdm.auto import tqdm
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from ftcourse.errors import CourseError, check_kind
from ftcourse.files import course_path, user_path
from ftcourse.shape.hub import download, model_not_found, named_shapes, read_json

_INDEX = "model.safetensors.index.json"
_COPY = "Copy the file again from where the model came from."


def locate(model: str) -> str:
    """Return the folder or the Hub id that ``from_pretrained`` needs for a model's name.

    Raises CourseError for a folder without safetensors weights: pickled weights can run code when
    they are loaded, so they are refused.
    """
    check_kind("model", model, (str, Path), "'embedded'")
    if model == "embedded":
        return str(course_path("data/model"))
    if model in named_shapes():
        return named_shapes()[model]["hub_id"]
    folder = user_path(model)
    if not folder.is_dir():
        if model.startswith((".", "/", "~")):
            raise model_not_found(model)
        return model
    if (folder / "adapter_config.json").exists() and not (folder / "config.json").exists():
        raise _is_adapter(folder)
    if (folder / "config.json").exists():
        check_config(folder)
    if not list(folder.glob("*.safetensors")):
        found = ", ".join(sorted(p.name for p in folder.iterdir())) or "an empty folder"
        raise CourseError(
            "Weights come as safetensors files; a pickle could run code while it loads.",
            f"{folder}: {found}",
            "Save the model again with save_pretrained(folder), which writes safetensors.",
        )
    return str(folder)


def _is_adapter(folder: Path) -> CourseError:
    base = read_json(folder / "adapter_config.json").get("base_model_name_or_path")
    return CourseError(
        "A model is a whole one; an adapter is a small part beside a model.",
        f"{folder} holds an adapter, made beside {base!r}",
        "Train from that model instead. To go on from what the adapter learned, merge it first: "
        "merge_adapter(config, folder, another).",
    )


def weights_fingerprint(model: str) -> str:
    """Return what changes if a model's weights or its config do.

    For files that are here it is the SHA-256 of their bytes, for a Hub id the commit.
    """
    place = Path(locate(model))
    if not place.is_dir():
        return download(str(place), "config.json").parent.name
    read_json(place / "config.json")
    digest, files = hashlib.sha256(), [place / "config.json", *sorted(place.glob("*.safetensors"))]
    size = sum(file.stat().st_size for file in files)
    with tqdm(total=size, desc="reading weights", unit_scale=True, disable=size < 2**30) as bar:
        for file in files:
            with file.open("rb") as opened:
                while piece := opened.read(2**24):
                    digest.update(piece)
                    bar.update(len(piece))
    return digest.hexdigest()


def check_config(folder: Path, quantizes: bool = True) -> None:
    """Refuse a model whose code or whose weights' format is not one that we train.

    ``quantizes``: the run quantizes the weights, so it can read a model of bitsandbytes' own.
    """
    config = read_json(folder / "config.json")
    if str(config.get("model_type")) not in CONFIG_MAPPING:
        own = "auto_map" in config
        raise CourseError(
            "The model's code is transformers' own; code from a model's folder is never run.",
            f"{folder / 'config.json'}: model_type {config.get('model_type')!r}"
            + (", whose code is in the folder (auto_map)" if own else ", which is not known here"),
            "Use a model of a family that transformers has, or a newer transformers.",
        )
    stored = config.get("quantization_config") or {}
    method = stored.get("quant_method", "unknown") if isinstance(stored, dict) else "unknown"
    if stored and not (method == "bitsandbytes" and quantizes):
        raise CourseError(
            "Training starts from weights that nobody quantized; method='qlora' quantizes them.",
            f"{folder / 'config.json'}: weights quantized with {method}",
            "Use the model's original edition, in 16 or 32 bits.",
        )


def check_weights(folder: Path) -> None:
    """Refuse a folder whose files with weights are not all there and whole."""
    for file in _weight_files(folder):
        _check_file(file)


def _weight_files(folder: Path) -> list[Path]:
    """Return the files with weights; raises CourseError if one that the index names is missing."""
    if not (folder / _INDEX).exists():
        return sorted(folder.glob("*.safetensors"))
    names = read_json(folder / _INDEX).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(n, str) for n in names.values()):
        raise CourseError(
            "The index of a model says which file holds which tensor.",
            f"{folder / _INDEX} without a 'weight_map'",
            _COPY,
        )
    files = sorted({folder / name for name in names.values()})
    if missing := [file.name for file in files if not file.is_file()]:
        raise CourseError(
            "All files that the index of a model names are in its folder.",
            f"{folder} without {', '.join(missing)}",
            "Download the missing files; a download may have stopped.",
        )
    return files


def _check_file(file: Path) -> None:
    """Refuse a file that is no whole safetensors file; its header says how long it is."""
    try:
        with safe_open(file, "pt"):
            return
    except (SafetensorError, OSError) as error:
        with file.open("rb") as opened:
            begin = opened.read(40)
        kinds = {
            b"version https://git-lfs": ("a pointer of Git LFS", "Run git lfs pull there."),
            b"<": ("a web page", "Download the file itself, not the page about it."),
        }
        known = (kind for start, kind in kinds.items() if begin.lstrip().startswith(start))
        kind, do = next(known, (str(error), "Download it again; a download may have stopped."))
        must = "Weights are whole safetensors files."
        raise CourseError(must, f"{file}, {file.stat().st_size:,} bytes: {kind}", do) from error
