"""The rules of the package as a whole; a message names every place that breaks one."""

import ast
import json
import re
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest

import ftcourse

TESTS = Path(__file__).parent
ROOT = TESTS.parent
CODE = ["ftcourse", "edition", "tests", "benchmarks", "classroom", "data"]
PACKAGE = Path(ftcourse.__file__).parent
# The map in the package's docstring: a floor's name, now and then, then a module and what it is.
ORDER = re.findall(r"(?m)^(?:[a-z]+(?: [a-z]+)?)? {2,}(\w+) {2,}\S", ftcourse.__doc__)
SOURCES = {
    file.relative_to(PACKAGE): file.read_text(encoding="utf-8")
    for file in sorted(PACKAGE.rglob("*.py"))
    if file.parent.name != "course" and file.name != "__main__.py"  # three lines that call cli
}
TREES = {file: ast.parse(source) for file, source in SOURCES.items()}

# What only these modules may import, so that a change over there has one place here.
OWNERS = {
    "peft": {"models", "doctor"},
    "bitsandbytes": {"models", "simulate", "doctor"},
    "matplotlib": {"plots", "widgets"},
    "ipywidgets": {"widgets"},
    "jupyterlab": {"lab"},
}
LIGHT = ["config", "memory", "memory.fit", "memory.records", "plots", "widgets.memory", "check"]
LIGHT += ["cli", "widgets.great"]
# Lines with docstrings: what can still be read from beginning to end.
BUDGETS = {
    "memory": 2_125,  # the aim is 1,300
    "live measure simulate": 1_082,  # the aim is 850
    "chat readers records data models evaluate voice train": 2_267,  # the aim is 1,000
    "loss": 100,
    "retrieval rag": 1_600,  # the aim is 900
    "plots widgets": 1_032,
}
HOUSE_BUDGET = 11_734  # all files but those of the lessons from 01 on; the aim is 7,500
LESSON_BUDGET = 750  # a lesson's files: its module, its checks, its panel, its pictures
LESSONS = {  # the names of a lesson's files, in every room
    "01_quantize": {"quantize"},
    "02_lora": {"lora"},
    "03_adapters": {"adapters"},
    "04_memory": {
        "check/memory",
        "widgets/great",
        "plots/recorded",
        "plots/timeline",
        "memory/published",
        "memory/compare",
    },  # memory itself is the house's
    "04_memory's golf": {"golf", "scorecard"},
    "05_qlora": {"qlora", "watch"},
    "06_finetune": {"finetune", "effects", "repair"},
    "06_finetune's tools": {"audit", "finder", "model_card"},
    "07_rag": {"check/rag", "check/rag_code", "widgets/rag", "plots/rag", "lookups"},
    "08_which_one's decision": {"needs", "decision", "widgets/which_one"},
    "08_which_one": {"which_one"},
    "09_scale": {"scale"},
    "09_scale's arithmetic": {
        "memory/sharding",
        "memory/units",
        "memory/communication",
        "memory/two_cards",
    },
    "09_scale's processes": {
        "ranks/__init__",
        "ranks/launch",
        "ranks/meter",
        "ranks/process",
        "train/sharded",
    },
}


def module_of(file):
    """Return the module that a file belongs to; a folder is one module."""
    return file.with_suffix("").parts[0]


def imports(file):
    """Return the dotted names that a file imports anywhere, also inside functions."""
    names = []
    for node in ast.walk(TREES[file]):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def calls(file):
    """Return the last names of all functions that a file calls."""
    functions = [node.func for node in ast.walk(TREES[file]) if isinstance(node, ast.Call)]
    return {f.id if isinstance(f, ast.Name) else getattr(f, "attr", "") for f in functions}


def lesson_of(file):
    """Return the lesson that a file belongs to, or nothing."""
    names = {file.stem, str(file.with_suffix("").as_posix())}
    return next((lesson for lesson, own in LESSONS.items() if own & names), "")


def length(file):
    return len(SOURCES[file].splitlines())


def test_the_map_names_every_module_and_no_other():
    assert len(set(ORDER)) == len(ORDER)
    assert set(ORDER) == {module_of(file) for file in SOURCES} - {"__init__"}


def test_a_module_imports_only_from_those_above_it():
    offenders = []
    for file in SOURCES:
        module = module_of(file)
        above = ORDER[: ORDER.index(module) + 1] if module in ORDER else []
        inside = [name.split(".")[1] for name in imports(file) if name.startswith("ftcourse.")]
        allowed = [*above, "__version__"]
        offenders += [f"{file} imports {name}" for name in inside if name not in allowed]
    assert offenders == []


def test_a_foreign_library_is_imported_only_by_its_owner():
    offenders = [
        f"{file} imports {name}"
        for file in SOURCES
        for name in imports(file)
        if module_of(file) not in OWNERS.get(name.split(".")[0], {module_of(file)})
    ]
    assert offenders == []


def test_models_are_loaded_in_one_file_only():
    loads = re.compile(r"\bfrom_pretrained\(|\blora_alpha\b")
    assert {module_of(file) for file, source in SOURCES.items() if loads.search(source)} == {
        "models"
    }


def test_library_code_never_prints_and_never_opens_a_picture():
    assert [file for file in SOURCES if calls(file) & {"show", "pyplot"}] == []
    assert {module_of(file) for file in SOURCES if "print" in calls(file)} == {"cli"}


def test_files_are_short_enough_to_read():
    assert {str(file): length(file) for file in SOURCES if length(file) > 250} == {}


def test_every_room_and_the_whole_keep_their_budgets_of_lines():
    found = {
        rooms: sum(
            length(file)
            for file in SOURCES
            if module_of(file) in rooms.split() and not lesson_of(file)
        )
        for rooms in BUDGETS
    }
    found["the house"] = sum(length(file) for file in SOURCES if not lesson_of(file))
    for lesson in LESSONS:
        found[lesson] = sum(length(file) for file in SOURCES if lesson_of(file) == lesson)
    budgets = BUDGETS | {"the house": HOUSE_BUDGET} | dict.fromkeys(LESSONS, LESSON_BUDGET)
    budgets["04_memory"] = 850  # timelines, prices' panel and recorded runs are this lesson's, too
    print(*(f"{found[rooms]:5} of {budgets[rooms]:5} lines: {rooms}" for rooms in found), sep="\n")
    assert {rooms: lines for rooms, lines in found.items() if lines > budgets[rooms]} == {}


def test_every_module_has_a_test_file_of_its_name_or_its_folders():
    tests = {file.stem.removeprefix("test_") for file in TESTS.glob("test_*.py")}
    modules = [file.with_suffix("") for file in SOURCES if file.name != "__init__.py"]
    assert [str(module) for module in modules if not tests & set(module.parts)] == []


def test_no_test_imports_from_another_test():
    imported = re.compile(r"(?m)^\s*(?:from|import) (?:tests\.)?(?:test_|conftest)")
    files = TESTS.glob("*.py")
    assert [file.name for file in files if imported.search(file.read_text(encoding="utf-8"))] == []


def opens_text_in_the_systems_encoding(call):
    name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
    mode = [value for value in map(ast.unparse, call.args) if re.fullmatch("'[rwax+b]+'", value)]
    return (
        name in ("open", "read_text", "write_text")
        and not any(keyword.arg == "encoding" for keyword in call.keywords)
        and not any("b" in value for value in mode)
    )


def test_text_files_are_utf_8_on_every_system():
    offenders = []
    for file in chain(ROOT.glob("*.py"), *((ROOT / name).rglob("*.py") for name in CODE)):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and opens_text_in_the_systems_encoding(node):
                offenders.append(f"{file.relative_to(ROOT)}, line {node.lineno}")
    assert offenders == []


# Our modules, and what they must not bring. One process tries all: to import torch takes seconds.
WAITS = {
    "arithmetic and pictures": (LIGHT, ("torch", "transformers", "matplotlib.pyplot")),
    "reading dialogues": (["data"], ("datasets",)),
    "simulating": (["live", "simulate"], ("transformers.trainer",)),
}


@pytest.fixture(scope="module")
def brought():
    """What the first of our modules that brings something too early brings, for each of WAITS."""
    code = f"""
import importlib, json, sys
found = {{}}
for name, (modules, foreign) in {WAITS!r}.items():
    found[name] = []
    for module in modules:
        importlib.import_module(f"ftcourse.{{module}}")
        found[name] += [f"{{module}} brings {{each}}" for each in foreign if each in sys.modules]
print(json.dumps(found))
"""
    command = [sys.executable, "-c", code]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.slow
@pytest.mark.parametrize("name", WAITS)
def test_what_needs_no_large_library_does_not_wait_for_it(name, brought):
    assert brought[name] == []
