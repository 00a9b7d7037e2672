"""Copies the lessons into a folder of the learner and opens JupyterLab there.

A learner's work is never overwritten: the new edition of a changed lesson gets a file beside it.
"""

import errno
import hashlib
import importlib.util
import json
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from ftcourse.errors import CourseError
from ftcourse.files import course_path, write_whole

FIRST_LESSON = "00_start_here.ipynb"
DEFAULT_FOLDER = "ftcourse-lessons"
SETTINGS = Path(__file__).parent / "jupyter"
"""JupyterLab's defaults for the course: no question about news."""
MANIFEST = ".ftcourse-lessons.json"
"""File in the learner's folder: maps a lesson's file name to the SHA-256 of what we wrote."""


@dataclass(frozen=True)
class Copied:
    """The result of copy_lessons."""

    folder: Path
    files: dict[str, str]
    """Each lesson that was written, and the name of its file: the lesson's own, or a new one."""

    def __repr__(self) -> str:
        """Return where the lessons are, and which of them were not replaced."""
        lines = [f"Lessons in {self.folder}: {len(self.files)} written."]
        lines += [
            f"  {lesson} has your changes and stays as it is; the new edition is {file}."
            for lesson, file in self.files.items()
            if file != lesson
        ]
        return "\n".join(lines)


def copy_lessons(folder: str | Path) -> Copied:
    """Copy the lessons of this release into a folder, and make the folder if necessary.

    Raises CourseError if the folder cannot be written; each file is then complete, old or new.
    """
    folder = Path(folder).expanduser().absolute()
    with _explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        ours = _read_manifest(folder)
        known = dict(ours)
        lessons = sorted(course_path("notebooks").glob("*.ipynb"))
        files = {lesson.name: _copy(lesson, folder, ours) for lesson in lessons}
        if ours != known:  # if nothing is new, the lessons open even on a full disk
            write_whole(folder / MANIFEST, json.dumps(ours, indent=2))
    return Copied(folder, {lesson: file for lesson, file in files.items() if file})


def _copy(lesson: Path, folder: Path, ours: dict[str, str]) -> str | None:
    """Write a lesson into the folder and return its file's name; None if it is there already.

    ``ours`` maps file names to the digest of what we wrote. A file that we did not write, or that
    has changed since, belongs to the learner: we keep it and try the next name.
    """
    content = lesson.read_bytes()
    new = _digest(content)
    for place in _names_beside(folder / lesson.name):
        found = _digest(place.read_bytes()) if place.exists() else None
        last = ours.get(place.name)
        if found and new in (found, last):  # this edition, perhaps with the learner's work
            ours[place.name] = new
            return None
        if found in (None, last):  # nothing, or an older edition as we wrote it
            write_whole(place, content)
            ours[place.name] = new
            return place.name
    raise AssertionError("the names never end")


def _names_beside(lesson: Path) -> Iterator[Path]:
    """Yield a lesson's own name, then names that sort right after it."""
    yield lesson
    yield lesson.with_suffix(".new.ipynb")
    for n in count(2):
        yield lesson.with_suffix(f".new{n}.ipynb")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read_manifest(folder: Path) -> dict[str, str]:
    """Return the manifest; empty if missing or damaged, and then every lesson counts as changed."""
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Turn errors of the operating system into errors that say what to do."""
    try:
        yield
    except OSError as error:
        advice = {
            errno.ENOSPC: "Free some space, or name a folder on another disk. Nothing was lost.",
            errno.EDQUOT: "Free some of your quota, or name another folder. Nothing was lost.",
            errno.EEXIST: "A file is in the way: name another folder.",
            errno.ENOTDIR: "A file is in the way: name another folder.",
        }.get(error.errno, "Name a folder that you may write to: ftcourse lab ~/my-lessons")
        raise CourseError(
            "The lessons need a folder that can be written to.",
            f"{folder}: {error.strerror or error}",
            advice,
        ) from error


@dataclass(frozen=True)
class Lab:
    """A JupyterLab that will start on this machine only, behind a token."""

    folder: Path
    port: int
    browser: bool
    token: str

    @property
    def url(self) -> str:
        """The address of the first lesson; it contains the token, so it is a secret."""
        return f"http://127.0.0.1:{self.port}/lab/tree/{FIRST_LESSON}?token={self.token}"

    @property
    def options(self) -> list[str]:
        """JupyterLab's options; they win over any configuration file."""
        options = [
            f"--ServerApp.root_dir={self.folder}",
            "--ServerApp.ip=127.0.0.1",
            f"--ServerApp.port={self.port}",
            "--ServerApp.port_retries=0",
            "--ServerApp.base_url=/",
            f"--IdentityProvider.token={self.token}",
            f"--ServerApp.open_browser={self.browser}",
            f"--LabApp.default_url=/lab/tree/{FIRST_LESSON}",
            "--KernelManager.transport_encryption=auto",  # else each kernel warns that it is off
            "--LabApp.news_url=None",  # no request to the network, and no question about it
            "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
            "--Application.log_level=ERROR",  # only what a learner can act on
        ]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            # Containers often run as root, and JupyterLab then needs this permission to start.
            # The loopback address and the token protect it there too.
            options.append("--ServerApp.allow_root=True")
        return options

    def run(self) -> None:
        """Run the server until the learner stops it.

        JupyterLab runs in this process: everybody on this machine could read a token among the
        arguments of a second process. Kernels run in the environment of ftcourse.
        """
        from jupyterlab.labapp import LabApp  # here: copying lessons needs no JupyterLab

        paths = [str(SETTINGS), *filter(None, [os.environ.get("JUPYTER_CONFIG_PATH")])]
        os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join(paths)
        LabApp.launch_instance(self.options)


def prepare_lab(folder: Path, port: int | None = None, browser: bool = True) -> Lab:
    """Return a Lab on a free port: the requested one, or the first from 8888 on.

    Raises CourseError if the port is not free or JupyterLab is not installed.
    """
    candidates = range(8888, 8938) if port is None else [port]
    free = next((candidate for candidate in candidates if _is_free(candidate)), None)
    if free is None:
        raise CourseError(
            "JupyterLab needs a free port, a number from 1 to 65535.",
            f"not free: {'8888 to 8937' if port is None else port}",
            "Leave --port out, or try another one, such as --port 9000.",
        )
    if importlib.util.find_spec("jupyterlab") is None:
        raise CourseError(
            "Opening the lessons needs JupyterLab.",
            "jupyterlab is not installed here",
            'pip install "ftcourse[lab]", or in a checkout: pip install -e ".[lab]"',
        )
    return Lab(folder, free, browser, os.environ.get("JUPYTER_TOKEN") or secrets.token_hex(24))


def _is_free(port: int) -> bool:
    if not 0 < port < 2**16:
        return False
    with socket.socket() as probe:
        if os.name == "posix":  # as the server itself does; on Windows it has another meaning
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
