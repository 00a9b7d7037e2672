"""A port that one lab of this machine has for itself, before it listens there."""

import os
import socket
import sys
from contextlib import suppress


def reserve_port(number: int) -> socket.socket | None:
    """Return what keeps a free port for this process as long as it is open; None if it is taken.

    JupyterLab listens seconds later, and a class starts at the same moment: each lab first takes a
    name that the whole machine shares. Only Linux has those, and frees them when a process ends.
    """
    hold = socket.socket(socket.AF_UNIX) if sys.platform == "linux" else socket.socket()
    with suppress(OSError):
        if sys.platform == "linux":
            hold.bind(f"\0ftcourse-lab-{number}")
        if _is_free(number):
            return hold
    hold.close()
    return None


def _is_free(number: int) -> bool:
    if not 0 < number < 2**16:
        return False
    with socket.socket() as probe, suppress(OSError):
        if os.name == "posix":  # as the server itself does; on Windows it has another meaning
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", number))
        return True
    return False
