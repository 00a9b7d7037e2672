import ast
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import ftcourse

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CORE = [Requirement(text) for text in PROJECT["dependencies"]]
# Lessons and the glossary; ruff keeps files of its own beside them.
HANDED_OUT = sorted(
    path.name for path in (ROOT / "notebooks").iterdir() if path.suffix in (".ipynb", ".md")
)

# Colab's own versions, as .ci/columns installs them: name to version.
COLAB = dict(
    re.findall("(?m)^(.+)==(.+)$", (ROOT / "tests" / "colab.txt").read_text(encoding="utf-8"))
)


@pytest.mark.parametrize("requirement", CORE, ids=str)
def test_each_core_dependency_has_a_floor_and_an_upper_bound(requirement):
    assert {specifier.operator for specifier in requirement.specifier} == {">=", "<"}


@pytest.mark.parametrize("requirement", CORE, ids=str)
def test_colab_has_what_we_need_but_bitsandbytes_so_nothing_is_replaced_there(requirement):
    if requirement.name == "bitsandbytes":
        assert "bitsandbytes" not in COLAB
    else:
        assert requirement.specifier.contains(COLAB[requirement.name])


def test_everything_that_the_package_imports_is_a_core_dependency():
    owners = metadata.packages_distributions()
    imported = set()
    for file in (ROOT / "ftcourse").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.split(".")[0])
    extras = {"jupyterlab", "sentence_transformers", "qdrant_client"}  # lab, rag, qdrant
    foreign = imported - sys.stdlib_module_names - {"ftcourse"} - extras
    distributions = {owners[name][0].lower().replace("_", "-") for name in foreign}
    assert distributions <= {r.name for r in CORE}


def test_the_version_has_one_source():
    assert "version" in PROJECT["dynamic"]
    assert Version(ftcourse.__version__)
    assert metadata.version("ftcourse") == ftcourse.__version__


def test_environment_yml_makes_the_interpreter_and_installs_ours_and_nothing_else():
    lines = (ROOT / "environment.yml").read_text(encoding="utf-8").splitlines()
    items = [line.strip()[2:] for line in lines if line.strip().startswith("- ")]
    channel, python, pip, section, ours = items
    assert (channel, pip, section, ours) == ("conda-forge", "pip", "pip:", "-e .[lab]")
    assert re.fullmatch(r"python=3\.\d+", python)
    assert (
        Version(python.removeprefix("python="))
        in Requirement("python" + PROJECT["requires-python"]).specifier
    )


def test_the_readme_says_the_two_commands_and_ci_runs_the_second_one_from_there():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert 'pip install -e ".[lab]" && ftcourse lab' in lines
    assert [line for line in lines if re.fullmatch('pip install -e ".*" && pytest', line)] == [
        'pip install -e ".[test]" && pytest'
    ]
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert """grep -x 'pip install -e ".*" && pytest' README.md""" in ci
    assert 'eval "$test_command"' in ci


def test_the_readme_installs_a_cpu_build_before_anything_can_pull_another():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    cpu = "\npip install torch --index-url https://download.pytorch.org/whl/cpu\n"
    assert text.index(cpu) < text.index('pip install -e ".[lab]"')


def test_the_lessons_for_colab_are_copied_by_the_readmes_command_with_nothing_installed(tmp_path):
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    (line,) = [line for line in lines if line.startswith("pip wheel")]
    python, *module, folder, copy_only = line.partition(" && ")[2].split()
    assert (python, folder, copy_only) == ("python", "for-colab", "--copy-only")
    command = [sys.executable, "-S", *module, str(tmp_path), copy_only]  # -S: no site-packages
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == HANDED_OUT


def test_the_pictures_of_the_readme_are_light_and_as_wide_as_its_column():
    for name in ("lesson_00.png", "panel.png"):
        content = (ROOT / "pages" / name).read_bytes()
        assert len(content) < 150_000
        assert int.from_bytes(content[16:20], "big") == 1000  # pixels, from the file's header


def test_every_lesson_that_is_here_is_in_the_readme_and_every_other_one_is_planned():
    rows = re.findall(
        r"\| `(\d\d_\w+)` \|.*\| (\w+) \|", (ROOT / "README.md").read_text(encoding="utf-8")
    )
    here = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert {name for name, state in rows if state == "here"} == here
    assert {state for _, state in rows} <= {"here", "planned"}


def test_every_file_that_the_readme_links_to_exists():
    for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text(encoding="utf-8")):
        assert (ROOT / target).exists(), target


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A wheel, built from an sdist, unpacked outside the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(folder), "-t"]
    subprocess.run([*build, "sdist"], cwd=ROOT, check=True, capture_output=True)
    (sdist,) = folder.glob("*.tar.gz")
    subprocess.run(["tar", "xzf", sdist], cwd=folder, check=True)
    source = folder / sdist.name.removesuffix(".tar.gz")
    subprocess.run([*build, "wheel"], cwd=source, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def run_installed(site, *arguments):
    """Run the unpacked package's command line outside the checkout, and return what it prints."""
    path = os.pathsep.join([str(site), str(ROOT / "tests" / "offline")])
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, "-m", "ftcourse", *map(str, arguments)]
    done = subprocess.run(
        command, cwd=site.parent, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.slow
def test_a_wheel_built_from_an_sdist_holds_lessons_data_types_and_licence(installed):
    package = installed / "ftcourse"
    assert (package / "py.typed").exists()
    assert (package / "jupyter" / "labconfig" / "default_setting_overrides.json").exists()
    for lesson in (ROOT / "notebooks").glob("*.ipynb"):
        assert (package / "course" / "notebooks" / lesson.name).read_bytes() == lesson.read_bytes()
    assert list(installed.glob("*.dist-info/licenses/LICENSE"))


@pytest.mark.slow
def test_the_wheel_holds_all_of_the_data_but_nothing_that_made_it(installed):
    data = ROOT / "data"
    files = {path.relative_to(data) for path in data.rglob("*") if path.is_file()}
    rest = {path for path in files if path.parts[0] != "making"}
    shipped = installed / "ftcourse" / "course" / "data"
    assert {path.relative_to(shipped) for path in shipped.rglob("*") if path.is_file()} == rest
    assert all((shipped / path).read_bytes() == (data / path).read_bytes() for path in rest)


@pytest.mark.slow
def test_an_installed_wheel_copies_the_lessons_outside_any_checkout(installed, tmp_path):
    printed = run_installed(installed, "lab", tmp_path / "mine", "--copy-only")
    assert printed == f"Lessons in {tmp_path / 'mine'}: {len(HANDED_OUT)} written.\n"
    assert sorted(path.name for path in (tmp_path / "mine").glob("[!.]*")) == HANDED_OUT
