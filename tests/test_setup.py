import os
import subprocess
import sys
import types
from importlib import metadata, util
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from setup_cell import repository, setup_cell

import ftcourse
from ftcourse import setup
from ftcourse.errors import CourseError

LESSONS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
WHEEL = "ftcourse-0.1.0-py3-none-any.whl"
ADDRESS = "https://example.org/ftcourse"


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_every_lesson_begins_with_the_set_up_cell(lesson):
    cells = nbformat.read(lesson, as_version=4).cells
    first = next(cell for cell in cells if cell.cell_type == "code")
    assert first.source == setup_cell(repository()), "run python tests/store_notebooks.py"
    assert first.metadata.tags == ["nbval-ignore-output"]  # it states a version


@pytest.mark.parametrize("address", [None, ADDRESS])
def test_the_set_up_cell_is_short_and_formatted(address):
    cell = setup_cell(address)
    assert len(cell.splitlines()) <= 15
    assert max(map(len, cell.splitlines())) <= 100
    ruff = [sys.executable, "-m", "ruff", "format", "-", "--stdin-filename", "cell.ipynb"]
    notebook = nbformat.writes(
        nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell, id="first")])
    )
    done = subprocess.run(ruff, input=notebook, capture_output=True, text=True, check=True)
    assert nbformat.reads(done.stdout, as_version=4).cells[0].source == cell


@pytest.fixture
def missing(monkeypatch):
    """Pretend that some packages are not installed."""
    names = set()
    find = util.find_spec
    pretended = lambda name, *rest: None if name in names else find(name, *rest)  # noqa: E731
    monkeypatch.setattr(util, "find_spec", pretended)
    monkeypatch.setattr(setup, "find_spec", pretended)
    return names


@pytest.fixture
def colab(monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))


@pytest.fixture
def run_cell(tmp_path, monkeypatch):
    """Return a function that runs the cell as IPython does, and what it asked of %pip."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(setup, "prepare", lambda: "prepared")

    def run(address=None):
        *statements, last = TransformerManager().transform_cell(setup_cell(address)).splitlines()
        asked = []
        space = {}

        def magic(name, line):  # as IPython, it fills in the names of the cell
            asked.append(f"{name} {line.format_map(space)}")

        shell = types.SimpleNamespace(run_line_magic=magic)
        space["get_ipython"] = lambda: shell
        exec("\n".join(statements), space)
        return eval(last, space), asked

    return run


def test_with_ftcourse_the_cell_only_prepares(run_cell):
    assert run_cell() == ("prepared", [])


def test_a_wrong_kernel_outside_colab_installs_nothing_and_says_which_one_to_choose(
    run_cell, missing, tmp_path
):
    missing.add("ftcourse")
    (tmp_path / WHEEL).touch()
    for address in (None, ADDRESS):
        with pytest.raises(AssertionError, match=r"Change Kernel.* ftcourse lab"):
            run_cell(address)


def test_on_colab_the_repository_is_installed_if_its_address_is_known(run_cell, missing, colab):
    missing.add("ftcourse")
    assert run_cell(ADDRESS) == ("prepared", [f"pip install -q --no-deps git+{ADDRESS}"])


@pytest.mark.parametrize(
    "name", [WHEEL, WHEEL.replace(".whl", " (1).whl"), WHEEL.replace(".whl", "(12).whl")]
)
def test_on_colab_the_newest_wheel_is_installed_under_a_name_that_pip_accepts(
    run_cell, missing, colab, tmp_path, name
):
    missing.add("ftcourse")
    for seconds, file in enumerate([WHEEL, "ftcourse-0.9-older.whl", name]):
        (tmp_path / file).write_text("newest" if file == name else "older", encoding="utf-8")
        os.utime(tmp_path / file, (seconds, seconds))
    assert run_cell() == ("prepared", [f"pip install -q --no-deps {WHEEL}"])
    assert (tmp_path / WHEEL).read_text(encoding="utf-8") == "newest"


def test_on_colab_without_a_wheel_the_cell_stops_before_pip(run_cell, missing, colab):
    missing.add("ftcourse")
    with pytest.raises(AssertionError, match="Upload the wheel"):
        run_cell()


@pytest.fixture
def pip(monkeypatch):
    """Record what is asked of pip, and change nothing."""
    asked = []

    def run(command, **_):
        asked.append(command)
        return types.SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    return asked


@pytest.fixture
def torchao(tmp_path, monkeypatch):
    """Return a function that lays a torchao of some version onto the path."""

    def install(version):
        folder = tmp_path / f"torchao-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Name: torchao\nVersion: {version}\n", encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)

    return install


def test_outside_colab_nothing_is_ever_changed(pip, missing, torchao):
    missing.add("bitsandbytes")
    torchao("0.10.0")
    ready = f"ftcourse {ftcourse.__version__} is ready; nothing was installed."
    assert repr(setup.prepare()) == ready
    assert pip == []


def test_a_complete_colab_is_left_as_it_is(pip, colab, torchao):
    torchao("0.16.0")
    assert setup.prepare() == setup.Ready()
    assert pip == []


def test_colab_gets_bitsandbytes_as_the_package_requires_it_and_loses_an_old_torchao(
    pip, colab, missing, torchao
):
    missing.add("bitsandbytes")
    torchao("0.10.0")
    version = metadata.version("bitsandbytes")
    assert repr(setup.prepare()) == (
        f"ftcourse {ftcourse.__version__} is ready; "
        f"installed bitsandbytes {version}, removed torchao 0.10.0."
    )
    (required,) = [r for r in metadata.requires("ftcourse") if r.startswith("bitsandbytes")]
    python = [sys.executable, "-m", "pip", "-q"]
    assert pip == [[*python, "install", required], [*python, "uninstall", "-y", "torchao"]]


@pytest.mark.parametrize(
    ("code", "removed"),
    [
        ('TORCHAO_MINIMUM_VERSION = packaging.version.parse("0.20.0")', True),
        ('TORCHAO_MINIMUM_VERSION = packaging.version.parse("0.17")', False),
        ("", False),  # then it is the number that we know
    ],
)
def test_how_old_a_torchao_may_be_is_what_the_installed_peft_says(
    pip, colab, torchao, tmp_path, monkeypatch, code, removed
):
    torchao("0.18.0")
    (tmp_path / "import_utils.py").write_text(code, encoding="utf-8")
    peft = types.SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(setup, "find_spec", lambda name: peft)
    assert bool(setup.prepare().changes) == removed


def test_the_limit_stands_where_we_read_it_in_the_installed_peft(torchao):
    torchao("0.0.1")
    assert setup._old_torchao() == "0.0.1"
    source = (
        Path(util.find_spec("peft").origin).with_name("import_utils.py").read_text(encoding="utf-8")
    )
    assert "TORCHAO_MINIMUM_VERSION = packaging.version.parse(" in source


def test_a_pip_that_fails_is_an_error_in_three_parts(colab, missing, monkeypatch):
    missing.add("bitsandbytes")
    failed = types.SimpleNamespace(returncode=1, stderr="No network")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(CourseError, match="No network") as caught:
        setup.prepare()
    assert "run this cell again" in caught.value.do


@pytest.mark.parametrize(("chosen", "policy"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_wait_passively_from_before_torch_is_there_unless_the_learner_chose(chosen, policy):
    environment = {name: text for name, text in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {"OMP_WAIT_POLICY": chosen} if chosen else {}
    code = (
        "import os, sys\nfrom ftcourse.setup import prepare\nprepare()\n"
        "assert 'torch' not in sys.modules\nprint(os.environ['OMP_WAIT_POLICY'])"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == f"{policy}\n"
