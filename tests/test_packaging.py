import ast
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_string
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
    assert """$(.ci/readme --print 'pip install -e ".[test]"')""" in ci
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
def built(tmp_path_factory):
    """A folder with an sdist, and with a wheel that was built from it."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(folder), "-t"]
    subprocess.run([*build, "sdist"], cwd=ROOT, check=True, capture_output=True)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist, encoding="utf-8") as archive:
        archive.extractall(folder, filter="data")
    source = folder / sdist.name.removesuffix(".tar.gz")
    subprocess.run([*build, "wheel"], cwd=source, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def installed(built):
    """The wheel, unpacked outside the checkout."""
    (wheel,) = built.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(built / "site")
    return built / "site"


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


@pytest.mark.slow
def test_the_wheel_holds_the_package_the_course_and_its_metadata_and_nothing_else(installed):
    (about,) = installed.glob("*.dist-info")
    assert {path.name for path in installed.iterdir()} == {"ftcourse", about.name}
    package, source = installed / "ftcourse", ROOT / "ftcourse"
    files = {path.relative_to(package) for path in package.rglob("*") if path.is_file()}
    assert {path.parts[1] for path in files if path.parts[0] == "course"} == {"data", "notebooks"}
    own = {path.relative_to(source) for path in source.rglob("*") if path.is_file()}
    own = {path for path in own if "__pycache__" not in path.parts}
    assert {path for path in files if path.parts[0] != "course"} == own
    assert {path.name for path in (package / "course" / "notebooks").iterdir()} == {*HANDED_OUT}


@pytest.mark.slow
def test_the_sdist_holds_what_is_committed_and_nothing_that_lies_about(built):
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist, encoding="utf-8") as archive:
        members = archive.getmembers()
    assert all(member.isfile() for member in members)  # no link leads out of it
    names = {member.name.partition("/")[2] for member in members}
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    found = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True)
    if found.returncode:
        pytest.skip("no git, or no checkout")
    here = {name for name in found.stdout.splitlines() if (ROOT / name).is_file()}
    assert names - {"PKG-INFO"} == here
    assert "data/making/make_world.py" in names  # what made the data is open, too


@pytest.mark.slow
def test_the_metadata_names_licence_pythons_and_the_same_requirements(installed):
    (about,) = installed.glob("*.dist-info")
    text = (about / "METADATA").read_text(encoding="utf-8")
    fields = message_from_string(text)
    assert fields["Version"] == ftcourse.__version__
    assert fields["License-Expression"] == PROJECT["license"] == "Apache-2.0"
    assert fields.get_all("License-File") == ["LICENSE"]
    assert (about / "licenses" / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert fields["Requires-Python"] == PROJECT["requires-python"]
    assert fields["Description-Content-Type"] == "text/markdown"
    assert set(fields.get_all("Provides-Extra")) == set(PROJECT["optional-dependencies"])
    required = {Requirement(line) for line in fields.get_all("Requires-Dist")}
    assert {requirement for requirement in required if not requirement.marker} == set(CORE)
    script = (about / "entry_points.txt").read_text(encoding="utf-8")
    assert "ftcourse = ftcourse.cli:main" in script


@pytest.mark.slow
def test_an_installed_wheel_finds_its_model_and_data_and_none_of_the_checkouts(installed):
    code = (
        "from ftcourse.files import course_path; import ftcourse, sys\n"
        "print(ftcourse.__file__, course_path('data/model'), course_path('notebooks'), sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=installed.parent,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(Path(line).is_relative_to(installed) for line in done.stdout.splitlines())
