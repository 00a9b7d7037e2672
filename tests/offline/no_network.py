"""Refuses every network address but this machine's, in each Python process that imports it.

``conftest.py`` imports it, and puts its folder into PYTHONPATH: so do the processes that a test
starts, such as a lesson's kernel, JupyterLab, and what a launcher starts (``sitecustomize.py``).
A library may hide the error, so each attempt also goes into a file, and the test fails in its end.

An audit hook sees the connects, look-ups and datagrams of Python's own sockets, whatever calls
them. It does not see code in C with sockets of its own, such as gloo's, or a browser's.
"""

import ipaddress
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

LOG = "FTCOURSE_NETWORK_LOG"
ADDRESS = {"socket.connect": 1, "socket.sendto": 1, "socket.sendmsg": 1}
NAME = {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"}
OWN_NAMES = {"", "localhost", socket.gethostname()}


class NetworkRefused(OSError):
    """A test tried to leave this machine."""


def is_here(host: object) -> bool:
    """Whether a host is this machine; what is no text is no address of the network."""
    if isinstance(host, bytes | bytearray):
        host = host.decode(errors="replace")
    if not isinstance(host, str) or host in OWN_NAMES:
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host.lower().endswith(".localhost")
    return address.is_loopback or address.is_unspecified


def refuse(event: str, arguments: tuple) -> None:
    """Raise for an event of a socket that leads to another machine; the audit hook."""
    if not event.startswith("socket."):
        return
    if event in ADDRESS:
        address = arguments[ADDRESS[event]]
        host = address[0] if isinstance(address, tuple) and address else None  # a path: AF_UNIX
    elif event in NAME:
        host = arguments[0]
    else:
        return
    if not is_here(host):
        test = os.environ.get("PYTEST_CURRENT_TEST", "a test")
        text = f"{test} tried to reach {host!r}, and no test may leave this machine ({event})"
        if path := os.environ.get(LOG):
            with suppress(OSError), open(path, "a", encoding="utf-8") as log:
                log.write(text + "\n")
        raise NetworkRefused(text)


def attempts() -> Iterator[str]:
    """Yield the attempts since the last call, of this process and of those that it started."""
    path = Path(os.environ[LOG])
    if path.exists():
        yield from path.read_text(encoding="utf-8").splitlines()
        path.unlink()


if not hasattr(sys, "ftcourse_no_network"):  # a hook cannot be taken away, so one is enough
    sys.ftcourse_no_network = True
    sys.addaudithook(refuse)
