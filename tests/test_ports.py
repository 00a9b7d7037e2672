import contextlib
import socket
import subprocess
import sys

import pytest

from ftcourse.ports import reserve_port

linux = pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
TAKE = (
    "from ftcourse.ports import reserve_port as r; h = r({}); print(bool(h), flush=True); input()"
)


@pytest.fixture
def port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@contextlib.contextmanager
def another_lab(port):
    """Another process that reserves a port and does not listen yet; yields whether it got it."""
    command = [sys.executable, "-c", TAKE.format(port)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process.stdout.readline().strip() == "True"
    finally:
        process.kill()
        process.communicate()


@linux
def test_of_two_labs_that_start_at_once_one_gets_the_port_until_its_process_is_killed(port):
    with another_lab(port) as got:
        assert got
        assert reserve_port(port) is None
    reserve_port(port).close()


@linux
def test_a_reserved_port_is_one_on_which_the_server_can_listen(port):
    server = ("127.0.0.1", port)
    with reserve_port(port), socket.create_server(server), another_lab(port) as got:
        assert not got


def test_a_port_on_which_somebody_listens_is_not_reserved_and_nothing_is_kept():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert reserve_port(port) is None
    reserve_port(port).close()


@pytest.mark.parametrize("port", [-1, 0, 65536, 10**9])
def test_a_number_that_is_no_port_is_never_free(port):
    assert reserve_port(port) is None
