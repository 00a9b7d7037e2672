"""What becomes of a trained adapter: merged into its base, or swapped with others beside it."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from peft import PeftModel

from ftcourse.config import FinetuneConfig, check_run
from ftcourse.errors import CourseError
from ftcourse.files import user_path
from ftcourse.models.base import load_base
from ftcourse.models.quiet import explained, libraries_quiet
from ftcourse.models.tokenizer import load_tokenizer

_STAGE = ".merging"


@libraries_quiet()
def merge_adapter(config: FinetuneConfig, folder: str | Path, output_dir: str | Path) -> Path:
    """Write the base with an adapter added to its weights: a model that needs no peft.

    The sum is stored in the 16 or 32 bits of the run's arithmetic, never in 4: it would be rounded
    once more, and what an adapter adds is small beside such a step (lesson 05 measures it). The
    base of a ``qlora`` run is dequantized first: the adapter learned beside exactly those values.

    Twin: peft.LoraModel.merge_and_unload. Raises CourseError if output_dir is not empty.
    """
    check_run(config)
    folder, place = user_path(folder), user_path(output_dir)
    _check_adapter(folder)
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise CourseError(
            "A merged model gets a new or empty folder.", str(place), "Give another output_dir."
        )
    base = load_base(replace(config, method="lora") if config.method == "full" else config)
    if config.method == "qlora":
        base = base.dequantize()
    model = _beside(base, folder).merge_and_unload()
    stage = place.with_name(f"{place.name}{_STAGE}")  # so that a kill leaves no half model
    shutil.rmtree(stage, ignore_errors=True)
    model.save_pretrained(stage)
    load_tokenizer(config.model).save_pretrained(stage)
    if place.exists():
        place.rmdir()
    stage.replace(place)
    return place


@libraries_quiet()
def load_adapters(config: FinetuneConfig, folders: Mapping[str, str | Path]) -> PeftModel:
    """Return the base once, with several adapters beside it; the first one is active.

    ``model.set_adapter("facts")`` makes another one active, without loading anything, and
    ``with model.disable_adapter():`` is the base alone.
    """
    check_run(config)
    if not isinstance(folders, Mapping) or not folders:
        do = "load_adapters(config, {'voice': folder, 'facts': another})."
        raise CourseError("Adapters have names and folders.", repr(folders)[:200], do)
    for name, folder in folders.items():
        if not isinstance(name, str) or not name.isidentifier():
            do = "Use letters, digits and _, as in 'voice'."
            raise CourseError("An adapter's name is one word.", repr(name)[:200], do)
        _check_adapter(user_path(folder))
    (first, folder), *others = folders.items()
    model = _beside(load_base(config), user_path(folder), first)
    for name, folder in others:
        with _explained(folder):
            model.load_adapter(str(user_path(folder)), adapter_name=name)
    return model.eval()


def _beside(base: torch.nn.Module, folder: Path, name: str = "default") -> PeftModel:
    with _explained(folder):
        return PeftModel.from_pretrained(base, str(folder), adapter_name=name)


def _explained(folder: str | Path):
    do = "Give the config of the run that trained it; or its files are damaged."
    return explained("An adapter fits the base model that it is loaded beside.", str(folder), do)


def _check_adapter(folder: Path) -> None:
    if not (folder / "adapter_config.json").is_file():
        whole = (folder / "config.json").is_file()
        raise CourseError(
            "The folder of a finished run with method='lora' or 'qlora' holds an adapter.",
            f"{folder} has no adapter_config.json" + "; it is a whole model" * whole,
            "A full fine-tune needs no merge." if whole else "Give the run's output_dir.",
        )
