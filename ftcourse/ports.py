"""A port that one program of this machine has for itself, before it listens there."""

import os
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Port:
    """A free port, kept from other labs as long as this object lives."""

    number: int
    hold: socket.socket = field(repr=False)


def reserve_port(number: int) -> Port | None:
    """Return a port if it is free and no other lab on this machine has reserved it, else None.

    JupyterLab listens seconds after we have looked, and a class starts at the same moment. So each
    lab first takes a name that the whole machine shares. Linux gives it back when the process ends,
    however that was; other systems have no such names, and seldom thirty learners.
    """
    hold = socket.socket(socket.AF_UNIX) if sys.platform == "linux" else socket.socket()
    with suppress(OSError):
        if sys.platform == "linux":
            hold.bind(f"\0ftcourse-lab-{number}")
        if _is_free(number):
            return Port(number, hold)
    hold.close()
    return None


def _is_free(number: int) -> bool:
    if not 0 < number < 2**16:
        return False
    with socket.socket() as probe:
        if os.name == "posix":  # as the server itself does; on Windows it has another meaning
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", number))
        except OSError:
            return False
    return True
