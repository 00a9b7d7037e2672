import contextlib
import errno
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat import v4

from ftcourse import lab
from ftcourse.cli import main
from ftcourse.errors import CourseError


@pytest.fixture
def release(tmp_path, monkeypatch):
    """The lessons of a release, which a test can edit to make the next release."""
    notebooks = tmp_path / "release"
    notebooks.mkdir()
    (notebooks / "00_start_here.ipynb").write_text("start, edition 1", encoding="utf-8")
    (notebooks / "02_lora.ipynb").write_text("lora, edition 1", encoding="utf-8")
    monkeypatch.setattr(lab, "course_path", lambda name: notebooks)
    return notebooks


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "mine"


@pytest.fixture
def jupyterlab_is_there(monkeypatch):
    monkeypatch.setattr(lab.importlib.util, "find_spec", lambda name: name)


@pytest.fixture
def jupyterlab_is_missing(monkeypatch):
    monkeypatch.setattr(lab.importlib.util, "find_spec", lambda name: None)


def texts(folder):
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.ipynb"))}


def test_lessons_are_copied_into_a_new_folder(release, folder):
    copied = lab.copy_lessons(folder)
    assert texts(folder) == texts(release)
    assert list(copied.files) == ["00_start_here.ipynb", "02_lora.ipynb"]
    assert repr(copied) == f"Lessons in {folder}: 2 written."


def notebook(source, **fields):
    return nbformat.writes(v4.new_notebook(cells=[v4.new_code_cell(source, id="a", **fields)]))


def edition(source):
    """A lesson as the repository keeps it: executed, its guesses made."""
    printed = v4.new_output("stream", name="stdout", text="50")
    return notebook(source, outputs=[printed], execution_count=1)


def test_a_lesson_is_handed_out_without_outputs_and_guesses(release, folder):
    (release / "02_lora.ipynb").write_text(edition("guess = 50  # of 100"), encoding="utf-8")
    lab.copy_lessons(folder)
    assert nbformat.reads(texts(folder)["02_lora.ipynb"], 4) == nbformat.reads(
        notebook("guess = ...  # of 100"), 4
    )


def test_the_glossary_is_copied_as_it_is_and_replaced_like_a_lesson(release, folder):
    for text in ("weight: a number", "weight: a number that is trained"):
        (release / "glossary.md").write_text(text, encoding="utf-8")
        lab.copy_lessons(folder)
        assert (folder / "glossary.md").read_text(encoding="utf-8") == text
    (folder / "glossary.md").write_text("mine", encoding="utf-8")
    (release / "glossary.md").write_text("a new edition", encoding="utf-8")
    assert lab.copy_lessons(folder).files == {"glossary.md": "glossary.new.md"}


def test_a_lesson_that_was_only_opened_and_saved_is_replaced_and_one_that_was_run_is_not(
    release, folder
):
    for name in ("00_start_here.ipynb", "02_lora.ipynb"):
        (release / name).write_text(edition("x = 1"), encoding="utf-8")
    lab.copy_lessons(folder)
    opened = json.loads(texts(folder)["00_start_here.ipynb"])
    opened["metadata"]["language_info"] = {"name": "python"}
    (folder / "00_start_here.ipynb").write_text(json.dumps(opened), encoding="utf-8")
    (folder / "02_lora.ipynb").write_text(edition("x = 1"), encoding="utf-8")
    for name in ("00_start_here.ipynb", "02_lora.ipynb"):
        (release / name).write_text(edition("x = 2"), encoding="utf-8")
    assert lab.copy_lessons(folder).files == {
        "00_start_here.ipynb": "00_start_here.ipynb",
        "02_lora.ipynb": "02_lora.new.ipynb",
    }


def test_an_executed_copy_of_an_older_release_is_replaced_unless_it_was_changed(release, folder):
    folder.mkdir()
    old = {name: edition("guess = 50") for name in ("00_start_here.ipynb", "02_lora.ipynb")}
    for name, text in old.items():
        (folder / name).write_bytes(text.encode())
        (release / name).write_text(text, encoding="utf-8")
    manifest = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in old.items()}
    (folder / lab.MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    (folder / "02_lora.ipynb").write_text(edition("guess = 70"), encoding="utf-8")
    assert lab.copy_lessons(folder).files == {
        "00_start_here.ipynb": "00_start_here.ipynb",
        "02_lora.ipynb": "02_lora.new.ipynb",
    }
    assert "guess = ..." in texts(folder)["00_start_here.ipynb"]
    assert "guess = 70" in texts(folder)["02_lora.ipynb"]
    assert lab.copy_lessons(folder).files == {}


@pytest.fixture
def paces(release, monkeypatch):
    """A lesson that states seconds, and how often the pace was measured."""
    (release / "02_lora.ipynb").write_text(
        edition("# about 30 s on two cores without a GPU\nx"), encoding="utf-8"
    )
    measured = []
    monkeypatch.setattr(lab, "_pace", lambda: measured.append(1) or float(len(measured)) * 2)
    return measured


def test_the_pace_is_measured_once_a_folder_and_the_same_edition_has_the_same_bytes(
    release, folder, paces
):
    for _ in range(2):
        lab.copy_lessons(folder)
        assert "# about 60 s on this machine" in texts(folder)["02_lora.ipynb"]
        (folder / "02_lora.ipynb").unlink()
    assert len(paces) == 1


def test_a_copy_for_another_machine_states_the_recorded_seconds(release, folder, paces):
    assert main(["lab", str(folder), "--copy-only"]) == 0
    assert "# about 30 s on two cores without a GPU" in texts(folder)["02_lora.ipynb"]
    assert paces == []
    assert lab.copy_lessons(folder).files == {}  # other seconds are no other edition


def test_a_pace_that_cannot_be_measured_leaves_the_recorded_seconds(release, folder, monkeypatch):
    (release / "02_lora.ipynb").write_text(
        edition("# about 30 s on two cores without a GPU\nx"), encoding="utf-8"
    )
    monkeypatch.setattr(lab, "_pace", lambda: 1 / 0)
    lab.copy_lessons(folder)
    assert "# about 30 s on two cores without a GPU" in texts(folder)["02_lora.ipynb"]


def test_lessons_that_state_no_seconds_do_not_wait_for_torch(release, folder, monkeypatch):
    monkeypatch.setattr(lab, "_pace", None)  # it may not be called
    assert len(lab.copy_lessons(folder).files) == 2


def test_an_unchanged_lesson_is_replaced_by_its_next_edition(release, folder):
    lab.copy_lessons(folder)
    (release / "02_lora.ipynb").write_text("lora, edition 2", encoding="utf-8")
    assert lab.copy_lessons(folder).files == {"02_lora.ipynb": "02_lora.ipynb"}
    assert texts(folder) == texts(release)


def test_work_in_the_current_edition_is_left_alone_and_gets_no_copy_beside_it(release, folder):
    lab.copy_lessons(folder)
    (folder / "02_lora.ipynb").write_text("my work", encoding="utf-8")
    assert lab.copy_lessons(folder).files == {}
    assert texts(folder)["02_lora.ipynb"] == "my work"
    assert len(texts(folder)) == 2


def test_a_changed_lesson_stays_and_its_next_edition_gets_a_file_beside_it(release, folder):
    lab.copy_lessons(folder)
    (folder / "02_lora.ipynb").write_text("my work", encoding="utf-8")
    (release / "02_lora.ipynb").write_text("lora, edition 2", encoding="utf-8")
    copied = lab.copy_lessons(folder)
    assert copied.files == {"02_lora.ipynb": "02_lora.new.ipynb"}
    assert "02_lora.ipynb has your changes and stays" in repr(copied)
    assert texts(folder) == {
        "00_start_here.ipynb": "start, edition 1",
        "02_lora.ipynb": "my work",
        "02_lora.new.ipynb": "lora, edition 2",
    }
    assert lab.copy_lessons(folder).files == {}  # it is there already


def test_a_second_edition_beside_a_changed_one_is_never_overwritten_either(release, folder):
    lab.copy_lessons(folder)
    (folder / "02_lora.ipynb").write_text("my work", encoding="utf-8")
    for edition in (2, 3):  # nobody touched edition 2 beside it, so edition 3 takes its place
        (release / "02_lora.ipynb").write_text(f"lora, edition {edition}", encoding="utf-8")
        lab.copy_lessons(folder)
    assert texts(folder)["02_lora.new.ipynb"] == "lora, edition 3"
    (folder / "02_lora.new.ipynb").write_text("my work in edition 3", encoding="utf-8")
    (release / "02_lora.ipynb").write_text("lora, edition 4", encoding="utf-8")
    assert lab.copy_lessons(folder).files == {"02_lora.ipynb": "02_lora.new2.ipynb"}
    assert list(texts(folder).values())[1:] == [
        "my work",
        "my work in edition 3",
        "lora, edition 4",
    ]


@pytest.mark.parametrize(
    "damage", [None, "", "{", "[1, 2]", '{"02_lora.ipynb": 3}', '{"files": 3}', '{"pace": "x"}']
)
def test_without_a_readable_manifest_every_other_file_counts_as_changed(release, folder, damage):
    lab.copy_lessons(folder)
    manifest = folder / lab.MANIFEST
    manifest.unlink() if damage is None else manifest.write_text(damage, encoding="utf-8")
    (release / "02_lora.ipynb").write_text("lora, edition 2", encoding="utf-8")
    lab.copy_lessons(folder)
    assert texts(folder) == {
        "00_start_here.ipynb": "start, edition 1",
        "02_lora.ipynb": "lora, edition 1",
        "02_lora.new.ipynb": "lora, edition 2",
    }


def test_a_file_of_the_learner_with_a_lessons_name_is_kept(release, folder):
    folder.mkdir()
    (folder / "02_lora.ipynb").write_text("mine from the start", encoding="utf-8")
    lab.copy_lessons(folder)
    assert texts(folder)["02_lora.ipynb"] == "mine from the start"
    assert texts(folder)["02_lora.new.ipynb"] == "lora, edition 1"


def test_a_deleted_lesson_comes_back(release, folder):
    lab.copy_lessons(folder)
    (folder / "02_lora.ipynb").unlink()
    assert lab.copy_lessons(folder).files == {"02_lora.ipynb": "02_lora.ipynb"}


def test_a_full_disk_leaves_every_file_complete_and_the_next_call_finishes_the_copy(
    release, folder, monkeypatch
):
    lab.copy_lessons(folder)
    (release / "02_lora.ipynb").write_text("lora, edition 2", encoding="utf-8")
    write = Path.write_bytes

    def write_half(path, content):
        write(path, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", write_half)
    with pytest.raises(CourseError, match="No space left on device") as caught:
        lab.copy_lessons(folder)
    assert "Free some space" in caught.value.do
    assert texts(folder)["02_lora.ipynb"] == "lora, edition 1"
    assert not list(folder.glob(".*.part"))
    monkeypatch.undo()
    monkeypatch.setattr(lab, "course_path", lambda name: release)
    lab.copy_lessons(folder)
    assert texts(folder) == texts(release)


def test_lessons_that_are_all_there_open_even_from_a_full_disk(release, folder, monkeypatch):
    lab.copy_lessons(folder)
    monkeypatch.setattr(Path, "write_bytes", None)  # nothing may be written
    assert lab.copy_lessons(folder).files == {}


def test_a_folder_that_is_a_file_is_refused_in_three_parts(release, tmp_path):
    file = tmp_path / "file"
    file.write_text("mine", encoding="utf-8")
    for place in (file, file / "inside"):
        with pytest.raises(CourseError, match="A file is in the way") as caught:
            lab.copy_lessons(place)
        assert str(place) in caught.value.got
    assert file.read_text(encoding="utf-8") == "mine"


def test_a_folder_without_permission_is_refused_in_three_parts(release, folder, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(CourseError, match="Permission denied") as caught:
        lab.copy_lessons(folder)
    assert "ftcourse lab ~/my-lessons" in caught.value.do


def test_copy_only_needs_no_jupyterlab(release, folder, jupyterlab_is_missing, capsys):
    assert main(["lab", str(folder), "--copy-only"]) == 0
    assert capsys.readouterr().out == f"Lessons in {folder}: 2 written.\n"


def test_a_missing_jupyterlab_is_refused_with_its_install_command(folder, jupyterlab_is_missing):
    with pytest.raises(CourseError, match=r'pip install "ftcourse\[lab\]"'):
        lab.prepare_lab(folder)


def test_a_port_in_use_is_refused_if_it_was_requested_and_skipped_if_not(
    folder, jupyterlab_is_there
):
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
        with pytest.raises(CourseError, match=f"not free: {port}"):
            lab.prepare_lab(folder, port)
    with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", 8888)):
        assert lab.prepare_lab(folder).port > 8888


def test_learners_who_share_a_machine_share_its_cores_and_one_alone_has_all(
    folder, jupyterlab_is_there, monkeypatch
):
    monkeypatch.setattr(lab.os, "cpu_count", lambda: 64)
    threads = {}
    for learners in (1, 2, 30, 100):
        prepared = lab.prepare_lab(folder, learners=learners)
        prepared.reserved.close()
        threads[learners] = prepared.threads
    assert threads == {1: None, 2: 32, 30: 2, 100: 1}


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such modes")
def test_a_new_folder_is_its_owners_alone_and_one_that_was_there_keeps_its_mode(release, tmp_path):
    lab.copy_lessons(tmp_path / "new")
    (tmp_path / "old").mkdir(mode=0o755)
    lab.copy_lessons(tmp_path / "old")
    modes = [oct((tmp_path / name).stat().st_mode & 0o777) for name in ("new", "old")]
    assert modes == ["0o700", "0o755"]


@pytest.mark.slow
def test_the_server_does_not_keep_torch_which_measured_the_pace(tmp_path):
    code = "import sys; from ftcourse.lab import copy_lessons; copy_lessons('mine'); "
    code += "print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
    assert json.loads((tmp_path / "mine" / lab.MANIFEST).read_text(encoding="utf-8"))["pace"] > 0


@pytest.mark.parametrize("port", [-1, 0, 65536, 10**9])
def test_a_number_that_is_no_port_is_refused_first(folder, port, jupyterlab_is_missing):
    with pytest.raises(CourseError, match="from 1 to 65535"):
        lab.prepare_lab(folder, port)


def test_each_lab_has_a_new_token_unless_the_learner_chose_one(
    folder, jupyterlab_is_there, monkeypatch
):
    monkeypatch.delenv("JUPYTER_TOKEN", raising=False)
    first, second = lab.prepare_lab(folder).token, lab.prepare_lab(folder).token
    assert len(first) == len(second) == 48
    assert first != second
    monkeypatch.setenv("JUPYTER_TOKEN", "chosen")
    assert lab.prepare_lab(folder).token == "chosen"


HOSTILE = {
    "an empty token": """
c.IdentityProvider.token = ''
c.PasswordIdentityProvider.token = ''
c.PasswordIdentityProvider.allow_password_change = True
c.ServerApp.token = ''
c.ServerApp.ip = '0.0.0.0'
c.ServerApp.allow_unauthenticated_access = True
c.ServerApp.allow_origin = '*'
c.ServerApp.allow_origin_pat = '.*'
c.ServerApp.allow_credentials = True
c.ServerApp.disable_check_xsrf = True
c.ServerApp.allow_remote_access = True
c.ServerApp.tornado_settings = {'headers': {'Access-Control-Allow-Origin': '*'}}
c.ServerApp.certfile = '/no/such/file'
""",
    "a class that lets everyone in": """
from jupyter_server.auth.identity import IdentityProvider, User

class Everyone(IdentityProvider):
    auth_enabled = False
    def get_user(self, handler):
        return User('everyone')

c.ServerApp.identity_provider_class = Everyone
c.Everyone.token = ''
c.ServerApp.sock = '/tmp/ftcourse.sock'
""",
    "a login of the old kind": """
from jupyter_server.auth.login import LoginHandler

class Open(LoginHandler):
    @classmethod
    def get_user(cls, handler):
        return 'everyone'

c.ServerApp.login_handler_class = Open
c.LegacyIdentityProvider.token = ''
""",
}


@contextlib.contextmanager
def running_lab(folder, config):
    """A real ``ftcourse lab`` in a process of its own; yields the process and its address."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "ftcourse", "lab", str(folder)]
    process = subprocess.Popen(
        [*command, "--no-browser", "--port", str(port)],
        stdout=subprocess.PIPE,
        cwd=folder.parent,
        env={**os.environ, "JUPYTER_CONFIG_DIR": str(config)},
        text=True,
    )
    try:
        line = next(line for line in process.stdout if line.startswith("JupyterLab: "))
        yield process, line.split()[1]
    finally:
        process.terminate()
        process.wait(timeout=30)
        process.stdout.close()


def fetch(url, token=None, method="GET", headers=()):
    """Return the status and the text of an answer, as soon as the server is up."""
    headers = dict(headers) | ({"Authorization": f"token {token}"} if token else {})
    request = urllib.request.Request(url, headers=headers, method=method)
    for _ in range(300):
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, ""
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    raise TimeoutError(url)


def commands_below(process):
    """Yield the command line of each child process that still lives."""
    for child in process.children():
        with contextlib.suppress(psutil.Error):  # JupyterLab also starts some that end at once
            yield child.cmdline()


@pytest.mark.slow
@pytest.mark.skipif(find_spec("jupyterlab") is None, reason="JupyterLab is not installed")
@pytest.mark.parametrize("configured", HOSTILE.values(), ids=HOSTILE)
def test_a_real_lab_listens_on_loopback_behind_its_token_whatever_is_configured(
    configured, release, tmp_path
):
    config = tmp_path / "config"
    config.mkdir()
    (config / "jupyter_server_config.py").write_text(configured, encoding="utf-8")
    with running_lab(tmp_path / "mine", config) as (process, url):
        address, _, token = url.partition("/lab/tree/00_start_here.ipynb?token=")
        status, page = fetch(url)
        assert status == 200
        assert '"news": {"disabled": true}' in page  # it asks nobody on the network
        assert fetch(f"{address}/api/contents")[0] == 403
        assert fetch(f"{address}/api/kernels", method="POST")[0] == 403
        origin = {"Origin": "http://elsewhere.example"}
        assert fetch(f"{address}/api/kernels", method="POST", headers=origin)[0] in (403, 404)
        assert fetch(f"{address}/api")[0] == 200  # what anybody on this machine may ask
        assert fetch(f"{address}/api", headers=origin)[0] == 404  # but no other site
        server = psutil.Process(process.pid)
        connections = getattr(server, "net_connections", None) or server.connections  # psutil 5
        listening = [c.laddr for c in connections() if c.status == psutil.CONN_LISTEN]
        assert {place.ip for place in listening} == {"127.0.0.1"}
        assert not any(token in word for word in server.cmdline())
        name = json.loads(fetch(f"{address}/api/kernels", token, "POST")[1])["name"]
        assert name == "python3"
        kernels = [words[0] for words in commands_below(server) if "ipykernel_launcher" in words]
        (kernel,) = kernels  # in the environment that ftcourse is installed in
        assert Path(kernel).parent.samefile(Path(sys.executable).parent)


def test_the_settings_that_keep_jupyterlab_from_asking_are_where_it_looks():
    path = lab.SETTINGS / "labconfig" / "default_setting_overrides.json"
    settings = json.loads(path.read_text(encoding="utf-8"))[
        "@jupyterlab/apputils-extension:notification"
    ]
    assert settings == {"fetchNews": "false", "checkForUpdates": False}
