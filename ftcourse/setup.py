"""Makes Colab ready for the lessons. On any other machine it installs and removes nothing."""

import importlib
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from packaging.version import Version

from ftcourse import __version__
from ftcourse.errors import CourseError


@dataclass(frozen=True)
class Ready:
    """The result of prepare."""

    changes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Return in one line that the lesson can begin, and what was changed."""
        done = ", ".join(self.changes) or "nothing was installed"
        return f"ftcourse {__version__} is ready; {done}."


def prepare() -> Ready:
    """Install what Colab lacks, remove what breaks there. Raises CourseError if pip fails."""
    # Before torch is imported: threads that wait actively starve each other on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    changes = []
    if "google.colab" in sys.modules:
        if find_spec("bitsandbytes") is None:
            needed = metadata.requires("ftcourse")
            _pip("install", *(text for text in needed if text.startswith("bitsandbytes")))
            changes.append(f"installed bitsandbytes {metadata.version('bitsandbytes')}")
        if old := _old_torchao():
            _pip("uninstall", "-y", "torchao")
            changes.append(f"removed torchao {old}")
    return Ready(tuple(changes))


def _old_torchao() -> str | None:
    """Return the version of a torchao beside which peft, by a limit in its code, does not work."""
    found = next((each.version for each in metadata.distributions(name="torchao")), None)
    if found is None or (peft := find_spec("peft")) is None:
        return None
    code = (
        Path(peft.origin).with_name("import_utils.py").read_text(encoding="utf-8")
    )  # importing takes seconds
    stated = re.search(r'TORCHAO_MINIMUM_VERSION = .*"([\d.]+)"', code)
    return found if Version(found) < Version(stated[1] if stated else "0.16") else None


def _pip(*arguments: str) -> None:
    pip = [sys.executable, "-m", "pip", "-q"]
    done = subprocess.run([*pip, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise CourseError(
            "On Colab, pip makes the session ready.",
            f"pip {' '.join(arguments)}: {done.stderr.strip()[-500:]}",
            "Runtime > Disconnect and delete runtime, then run this cell again.",
        )
    importlib.invalidate_caches()
