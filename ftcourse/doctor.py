"""What this machine can do, and the traps of its environment, each with the command that fixes it.

We try what can be tried: a real 4-bit kernel runs, and peft itself checks torchao.
"""

import importlib.util
import platform
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from itertools import groupby

import numpy
import psutil
import torch
from packaging.requirements import Requirement

from ftcourse.drift import moved, recorded_uses, release
from ftcourse.errors import CourseError
from ftcourse.files import course_path
from ftcourse.hardware import GIB, Card, DtypeChoice, choose_dtype, detect
from ftcourse.source import hang


@dataclass(frozen=True)
class Trap:
    """Something in the environment that fails later, in a place that does not explain why."""

    what: str
    fix: str
    blocks: bool = False
    """Whether the lessons cannot run until it is fixed."""

    def __repr__(self) -> str:
        """Return what is wrong, then how to fix it."""
        return hang("! ", self.what) + f"\n  fix: {self.fix}"


@dataclass(frozen=True)
class Report:
    """The result of examine. Its repr is the report."""

    card: Card
    dtype: DtypeChoice
    facts: dict[str, str]
    """Heading to text; the texts differ between machines."""
    traps: tuple[Trap, ...]

    @property
    def ok(self) -> bool:
        """Whether the lessons can run: no trap blocks them."""
        return not any(trap.blocks for trap in self.traps)

    def __repr__(self) -> str:
        """Return the report as plain text, at most 80 columns wide."""
        facts = {"card": _describe(self.card), "dtype": repr(self.dtype), **self.facts}
        lines = [hang(f"{heading:<9}", text) for heading, text in facts.items()]
        lines += [repr(trap) for trap in self.traps] or [hang("traps    ", "none found")]
        return "\n".join(lines)


def examine(card: Card | None = None) -> Report:
    """Examine this machine, or this machine with another card, such as ``CARDS["T4"]``."""
    card = card or detect()
    kernel, broken = _try_4bit_kernel()
    model, missing = _find_embedded_model()
    facts = {
        "room": _measure_room(card),
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "versions": _list_versions(),
        "4-bit": kernel,
        "model": model,
    }
    traps = [*broken, *missing, *(trap for search in SEARCHES for trap in search(card))]
    return Report(card, choose_dtype(card), facts, tuple(traps))


def _describe(card: Card) -> str:
    memory = f"{card.memory / GIB:.1f} GiB"
    if card == detect():  # of another card we know no more than its size
        memory = f"{_free_bytes(card) / GIB:.1f} of {memory} free"
    if card.capability is None:
        return f"no GPU, and none is needed: {card.name}, {memory}"
    return f"{card.name}, {memory}, compute capability {card.capability[0]}.{card.capability[1]}"


def _free_bytes(card: Card) -> int:
    if card.device == "cpu":
        return psutil.virtual_memory().available
    return torch.cuda.mem_get_info(0)[0]  # other programs use the card too


def _measure_room(card: Card) -> str:
    disk = f"{shutil.disk_usage('.').free / GIB:.0f} GiB of this disk are free"
    if card.device == "cpu":  # the card's line says how much main memory is free
        return disk
    return f"{psutil.virtual_memory().available / GIB:.1f} GiB of main memory and {disk}"


def _requirements() -> list[Requirement]:
    """Return ftcourse's own requirements: the version ranges that the lessons are tested with."""
    try:
        stated = map(Requirement, metadata.requires("ftcourse") or [])
    except metadata.PackageNotFoundError:  # the package is on the path, but not installed by pip
        return []
    return [requirement for requirement in stated if not requirement.marker]


def _list_versions() -> str:
    found = ", ".join(f"{r.name} {release(r.name)}" for r in _requirements())
    if not found:
        return "ftcourse is not installed by pip, so the tested ranges are not known"
    return found + ("" if any(_find_untested_versions()) else "; all in the tested ranges")


def _try_4bit_kernel() -> tuple[str, list[Trap]]:
    """Store numbers in 4 bits on this machine's device, read them back, and compare."""
    try:
        from bitsandbytes.functional import dequantize_4bit, quantize_4bit

        numbers = torch.linspace(-1, 1, 64, device=detect().device).repeat(64)  # 64: one block
        codes, state = quantize_4bit(numbers, quant_type="nf4")
        error = (dequantize_4bit(codes, state) - numbers).abs().max().item()
    except Exception as problem:  # any error belongs into the report
        reason = str(problem).replace(": ", ", ")  # a colon after our own would be one too many
        why = textwrap.shorten(f"{type(problem).__name__}, {reason}", 120)
        fix = 'pip install "bitsandbytes>=0.50,<1", then restart the kernel'
        return "does not run", [Trap(f"A 4-bit kernel does not run here. {why}", fix, blocks=True)]
    # The widest gap between two levels of NF4 is 0.304, from -1 to -0.696; half is the worst error.
    fine = error < 0.16
    text = f"bitsandbytes restores 4096 numbers on {numbers.device.type}"
    if fine:
        return f"{text}, none off by more than {error:.2f}", []
    fix = "pip install --force-reinstall bitsandbytes, then restart the kernel"
    return f"{text} wrongly", [Trap(f"4-bit numbers come back off by {error:.2f}.", fix, True)]


def _find_embedded_model() -> tuple[str, list[Trap]]:
    try:
        size = course_path("data/model/model.safetensors").stat().st_size
    except CourseError as error:
        return "missing", [Trap("The embedded model is missing.", error.do, blocks=True)]
    return f"the embedded model is here, {size / 2**20:.1f} MiB", []


def _find_untested_versions(card: Card | None = None) -> Iterator[Trap]:
    for requirement in _requirements():
        found = release(requirement.name)
        fix = f'pip install "{requirement}", then restart the kernel'
        if found is None:
            yield Trap(f"{requirement.name} is not installed.", fix, blocks=True)
        elif not requirement.specifier.contains(found, prereleases=True):
            yield Trap(f"{requirement.name} {found} is outside the tested {requirement}.", fix)


def _find_moved(card: Card) -> Iterator[Trap]:
    """Look into the libraries that are loaded: to load the others would take seconds."""
    found = moved(recorded_uses()["uses"], sys.modules.__contains__)
    ranges = {requirement.name: str(requirement) for requirement in _requirements()}
    for library, (first, *more) in groupby(found, lambda pair: pair[0]):
        name = library.replace("_", "-")
        what = f"{first[1]}, and {len(more)} more." if more else f"{first[1]}."
        yield Trap(what, f'pip install "{ranges.get(name, name)}", then restart the kernel')


def _find_old_torchao(card: Card) -> Iterator[Trap]:
    try:
        from peft.import_utils import is_torchao_available

        is_torchao_available()
    except ImportError as error:  # an old torchao; any other import error is not about it
        if "torchao" in str(error):
            what = f"peft makes no adapter: torchao {release('torchao')} is installed and too old."
            # peft keeps no error in mind: it looks again at the next adapter, in the same kernel.
            yield Trap(what, "pip uninstall -y torchao", blocks=True)


def _find_swapped_numpy(card: Card) -> Iterator[Trap]:
    if numpy.__version__ != (installed := release("numpy")):
        what = f"numpy {numpy.__version__} is loaded, but {installed} is installed now."
        yield Trap(what, "restart the kernel", blocks=True)


def _find_kernels(card: Card) -> Iterator[Trap]:
    if _is_there("kernels"):
        what = "With 'kernels' installed, bitsandbytes may ask the network each time it loads."
        yield Trap(what, "pip uninstall -y kernels")


def _find_wrong_widgets(card: Card) -> Iterator[Trap]:
    version = release("ipywidgets")
    if _is_there("google.colab") and version and int(version.split(".")[0]) >= 8:
        what = f"Colab shows no panels with ipywidgets {version}; it is built for 7.7.1."
        yield Trap(what, 'pip install "ipywidgets==7.7.1", then restart the session')


def _find_emulated_bfloat16(card: Card) -> Iterator[Trap]:
    if card.capability and card.capability < (8, 0):
        what = "torch.cuda.is_bf16_supported() is True, but bfloat16 is emulated and slow."
        yield Trap(what, 'keep dtype="auto", which looks at the compute capability')


def _find_torch_without_cuda(card: Card) -> Iterator[Trap]:
    if torch.version.cuda is None and torch.version.hip is None and shutil.which("nvidia-smi"):
        what = f"There is an NVIDIA driver, but torch {torch.__version__} is built without CUDA."
        yield Trap(what, "install torch again, as pytorch.org says for your CUDA version")


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its parent is not there either
        return False


SEARCHES: tuple[Callable[[Card], Iterator[Trap]], ...] = (
    _find_untested_versions,
    _find_moved,
    _find_old_torchao,
    _find_swapped_numpy,
    _find_kernels,
    _find_wrong_widgets,
    _find_emulated_bfloat16,
    _find_torch_without_cuda,
)
