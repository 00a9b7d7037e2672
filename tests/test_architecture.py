import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ftcourse

PACKAGE = Path(ftcourse.__file__).parent
# The map in the package's docstring: a floor's name, now and then, then a module and what it is.
ORDER = re.findall(r"(?m)^(?:[a-z]+(?: [a-z]+)?)? {2,}(\w+) {2,}\S", ftcourse.__doc__)
FILES = [file for file in sorted(PACKAGE.rglob("*.py")) if file.parent.name != "course"]

# What only these modules may import, so that a change over there has one place here.
OWNERS = {
    "peft": {"models", "doctor"},
    "bitsandbytes": {"models", "simulate", "doctor"},
    "matplotlib": {"plots", "widgets"},
    "ipywidgets": {"widgets"},
    "jupyterlab": {"lab"},
}
LIGHT = ["config", "memory", "memory.fit", "memory.records", "plots", "widgets.memory", "check"]
LIGHT += ["cli"]

each_file = pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))


def module_of(file):
    """Return the module that a file belongs to; a folder is one module."""
    return file.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(file):
    """Return the dotted names that a file imports anywhere, also inside functions."""
    names = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def test_the_map_names_every_module_and_no_other():
    modules = {module_of(file) for file in FILES} - {"__init__"}
    assert len(set(ORDER)) == len(ORDER)
    assert set(ORDER) == modules


@each_file
def test_a_module_imports_only_from_those_above_it(file):
    module = module_of(file)
    above = ORDER[: ORDER.index(module) + 1] if module in ORDER else []
    inside = [name.split(".")[1] for name in imports(file) if name.startswith("ftcourse.")]
    assert [name for name in inside if name not in [*above, "__version__"]] == []


@each_file
def test_a_foreign_library_is_imported_only_by_its_owner(file):
    libraries = {name.split(".")[0] for name in imports(file)}
    assert [
        lib for lib, who in OWNERS.items() if lib in libraries and module_of(file) not in who
    ] == []


@each_file
def test_models_are_loaded_in_one_file_only(file):
    found = re.findall(r"\bfrom_pretrained\(|\blora_alpha\b", file.read_text(encoding="utf-8"))
    assert not found or module_of(file) == "models"


@each_file
def test_library_code_never_prints_and_never_opens_a_picture(file):
    calls = [
        node.func for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)
    ]
    named = {call.id if isinstance(call, ast.Name) else getattr(call, "attr", "") for call in calls}
    assert not {"show", "pyplot"} & named
    assert "print" not in named or module_of(file) == "cli"


@each_file
def test_files_are_short_enough_to_read(file):
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 250


@pytest.mark.parametrize("module", LIGHT)
def test_arithmetic_and_pictures_do_not_wait_for_torch(module):
    code = f"import sys, ftcourse.{module}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
