"""Hands the lessons out into a folder of the learner and opens JupyterLab there.

A learner's work is never overwritten: the new edition of a changed lesson gets a file beside it.
"""

import errno
import hashlib
import importlib.util
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

from ftcourse.errors import CourseError
from ftcourse.files import course_path, user_path, write_whole
from ftcourse.handout import RECORDED, fingerprint, unanswered
from ftcourse.ports import reserve_port

FIRST_LESSON = "00_start_here.ipynb"
DEFAULT_FOLDER = "ftcourse-lessons"
SETTINGS = Path(__file__).parent / "jupyter"
"""JupyterLab's defaults for the course: no question about news."""
MANIFEST = ".ftcourse-lessons.json"
"""File in the learner's folder: {"pace": number, "files": {name: fingerprint of what we wrote}}."""


@dataclass(frozen=True)
class Copied:
    """The result of copy_lessons."""

    folder: Path
    files: dict[str, str]
    """Each file that was written, and its name in the folder: its own, or a new one."""

    def __repr__(self) -> str:
        """Return where the lessons are, and which of them were not replaced."""
        lines = [f"Lessons in {self.folder}: {len(self.files)} written."]
        lines += [
            f"  {lesson} has your changes and stays as it is; the new edition is {file}."
            for lesson, file in self.files.items()
            if file != lesson
        ]
        return "\n".join(lines)


def copy_lessons(folder: str | Path, here: bool = True) -> Copied:
    """Write the lessons of this release, unanswered, into a folder; make it if necessary.

    ``here``: they will run on this machine, so the seconds that they state are scaled to it.
    Raises CourseError if the folder cannot be written; each file is then complete, old or new.
    """
    folder = user_path(folder).absolute()
    with _explained(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # on a shared machine, nobody else's
        manifest = _read_manifest(folder)
        before = json.dumps(manifest)
        ours = sorted(course_path("notebooks").iterdir())
        sources = [path for path in ours if path.suffix in (".ipynb", ".md")]
        files = {source.name: _copy(source, folder, manifest, here) for source in sources}
        if json.dumps(manifest) != before:  # if nothing is new, lessons open even on a full disk
            write_whole(folder / MANIFEST, json.dumps(manifest, indent=2))
    return Copied(folder, {source: file for source, file in files.items() if file})


def _copy(source: Path, folder: Path, manifest: dict[str, Any], here: bool) -> str | None:
    """Write a file into the folder and return its name there; None if it is there already."""
    content = source.read_bytes()
    if source.suffix == ".ipynb":
        if here and manifest["pace"] is None and RECORDED.encode() in content:
            with suppress(Exception):  # without a pace, the lesson states the recorded seconds
                manifest["pace"] = _pace()
        content = unanswered(content, manifest["pace"] if here else None).encode()
    new, ours = fingerprint(content), manifest["files"]
    for mark in chain(["", ".new"], (f".new{n}" for n in count(2))):  # until one is ours
        place = folder / f"{source.stem}{mark}{source.suffix}"
        there, last = place.read_bytes() if place.exists() else None, ours.get(place.name)
        found = None if there is None else fingerprint(there)
        if found and new in (found, last):  # this edition, perhaps with the learner's work
            ours[place.name] = new
            return None
        # Nothing, or an older edition as we wrote it; old manifests have the SHA-256 of all bytes.
        if found is None or last in (found, hashlib.sha256(there).hexdigest()):
            write_whole(place, content)
            ours[place.name] = new
            return place.name
    raise AssertionError("the names never end")


def _pace() -> float:
    """Return measure_pace() of a process of its own: torch would stay in the server's memory."""
    code = "from ftcourse.handout import measure_pace; print(measure_pace())"
    return float(subprocess.check_output([sys.executable, "-c", code], stderr=subprocess.DEVNULL))


def _read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest; empty if missing or damaged, and then every lesson counts as changed."""
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        pace = found.get("pace")
        files = dict(found.get("files", found))  # an old manifest has nothing but the files
    except (FileNotFoundError, ValueError, TypeError, AttributeError):
        pace, files = None, {}
    return {"pace": pace if isinstance(pace, float) and pace > 0 else None, "files": files}


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
    threads: int | None = None
    """Threads of a kernel where learners share the cores; None leaves it to torch: all cores."""
    reserved: Any = None  # keeps the port for this lab until its process ends

    @property
    def url(self) -> str:
        """The address of the first lesson; it contains the token, so it is a secret."""
        return f"http://127.0.0.1:{self.port}/lab/tree/{FIRST_LESSON}?token={self.token}"

    @property
    def options(self) -> list[str]:
        """JupyterLab's options; they win over any configuration file.

        Everything that decides who may enter is among them. So is the class that asks for the
        token: options for a class of the user's own would win over those for its parent.
        """
        options = [
            f"--ServerApp.root_dir={self.folder}",
            "--ServerApp.ip=127.0.0.1",
            f"--ServerApp.port={self.port}",
            "--ServerApp.port_retries=0",
            "--ServerApp.base_url=/",
            f"--IdentityProvider.token={self.token}",
            "--IdentityProvider.need_token=True",
            "--ServerApp.identity_provider_class=jupyter_server.auth.identity.IdentityProvider",
            "--ServerApp.authorizer_class=jupyter_server.auth.authorizer.AllowAllAuthorizer",
            "--ServerApp.login_handler_class=jupyter_server.auth.login.LegacyLoginHandler",
            "--ServerApp.authenticate_prometheus=True",
            "--ServerApp.allow_remote_access=False",
            "--ServerApp.local_hostnames=localhost",
            "--ServerApp.allow_origin=",  # no other site may read from it, or post to it
            "--ServerApp.allow_origin_pat=",
            "--ServerApp.allow_credentials=False",
            "--ServerApp.disable_check_xsrf=False",
            "--ServerApp.tornado_settings={}",
            "--ServerApp.sock=",  # with a socket, or with https, the address would lead nowhere
            "--ServerApp.certfile=",
            "--ServerApp.keyfile=",
            "--ServerApp.custom_display_url=",
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
        if self.threads:
            os.environ.setdefault("OMP_NUM_THREADS", str(self.threads))  # all kernels inherit it
        try:
            LabApp.launch_instance(self.options)
        finally:
            self.reserved.close()


def prepare_lab(folder: Path, port: int | None = None, browser: bool = True, learners=1) -> Lab:
    """Return a Lab on a free port: the requested one, or the first from 8888 on.

    Of so many ``learners`` on this machine, each one's kernels take their part of the cores. Raises
    CourseError if the port is not free or JupyterLab is not installed.
    """
    candidates = range(8888, 8938) if port is None else [port]
    tried = ((number, reserve_port(number)) for number in candidates)
    number, reserved = next((pair for pair in tried if pair[1]), (0, None))
    if reserved is None:
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
    threads = max(1, (os.cpu_count() or 1) // learners) if learners > 1 else None
    token = os.environ.get("JUPYTER_TOKEN") or secrets.token_hex(24)
    return Lab(folder, number, browser, token, threads, reserved)
