"""No test leaves this machine: not in its own process, nor in one that it starts."""

import asyncio
import os
import socket
import subprocess
import sys
import urllib.request

import no_network
import pytest
from jupyter_client.manager import start_new_kernel

ELSEWHERE = [("192.0.2.1", 80), ("2001:db8::1", 80)]  # addresses that exist in documents only
LEAVE = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)"


@pytest.fixture
def tried():
    """Return the function that lists the attempts, which here are no failure."""
    list(no_network.attempts())
    yield lambda: list(no_network.attempts())
    list(no_network.attempts())


@pytest.mark.parametrize("address", ELSEWHERE, ids=lambda address: address[0])
@pytest.mark.parametrize("way", ["connect", "connect_ex", "sendto"])
def test_another_machine_is_refused_and_the_test_is_named(way, address, tried, request):
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    kind = socket.SOCK_DGRAM if way == "sendto" else socket.SOCK_STREAM
    with socket.socket(family, kind) as opened, pytest.raises(OSError, match="tried to") as caught:
        opened.sendto(b"?", address) if way == "sendto" else getattr(opened, way)(address)
    assert request.node.name in str(caught.value)
    assert len(tried()) == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda: urllib.request.urlopen("http://example.org/", timeout=1),
        lambda: socket.gethostbyname("example.org"),
        lambda: socket.getaddrinfo(b"example.org", 443),
        lambda: asyncio.run(asyncio.open_connection("192.0.2.1", 80)),
    ],
    ids=["urllib", "gethostbyname", "getaddrinfo", "asyncio"],
)
def test_no_name_is_looked_up_and_no_library_gets_out(call, tried):
    with pytest.raises(OSError, match=r"tried to reach b?.(example\.org|192\.0\.2\.1)."):
        call()
    assert len(tried()) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "0.0.0.0", "", None, b"::1%lo"])
def test_this_machine_is_reached(host, tried):
    assert no_network.is_here(host)
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=5).close()
    assert tried() == []


def test_a_socket_file_is_of_this_machine(tmp_path, tried):
    if not hasattr(socket, "AF_UNIX"):
        pytest.skip("this system has no such sockets in Python")
    with socket.socket(socket.AF_UNIX) as opened, pytest.raises(FileNotFoundError):
        opened.connect(str(tmp_path / "none"))
    assert tried() == []


def test_a_process_that_a_test_starts_is_refused_too_and_names_the_test(tried, request):
    done = subprocess.run([sys.executable, "-c", LEAVE], capture_output=True, text=True)
    assert done.returncode == 1
    assert "NetworkRefused" in done.stderr
    (attempt,) = tried()
    assert request.node.name in attempt


@pytest.mark.slow
def test_a_kernel_is_refused_too(tried):
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        answer = client.execute_interactive(LEAVE, timeout=60, output_hook=lambda message: None)
        assert answer["content"]["ename"] == "NetworkRefused"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert len(tried()) == 1


SWALLOWED = """
import contextlib, socket

def test_hides_it():
    with contextlib.suppress(OSError):
        socket.create_connection(("192.0.2.1", 80), timeout=1)

def test_after_it():
    pass
"""


@pytest.mark.slow
def test_an_attempt_whose_error_is_hidden_fails_its_test_and_no_other(tmp_path, request):
    (tmp_path / "test_hidden.py").write_text(SWALLOWED, encoding="utf-8")
    (tmp_path / "conftest.py").write_bytes((request.config.rootpath / "conftest.py").read_bytes())
    folder = request.config.rootpath / "tests" / "offline"
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "offline").symlink_to(folder, target_is_directory=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    environment = {name: value for name, value in os.environ.items() if "XDIST" not in name}
    done = subprocess.run(
        [*command, "--rootdir", str(tmp_path), "-c", os.devnull, str(tmp_path)],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert "2 passed, 1 error" in done.stdout, done.stdout
    assert "test_hides_it (call) tried to reach '192.0.2.1'" in done.stdout
