"""Every name and argument that we use of other libraries is there; one that moved is seen."""

import ast
import re
import sys
import types
from importlib.util import find_spec
from pathlib import Path

import nbformat
import pytest
import torch
from uses import Reader, own_names, read_uses, without_lines

from ftcourse import doctor, drift

ROOT = Path(__file__).parent.parent
USES = drift.recorded_uses()["uses"]
HERE = "ftcourse/train/build.py, line 91"
# Only an object could say it: attributes of a value without a class, names made on demand.
UNSEEN = {
    "accelerate.PartialState._shared_state.get",
    "torch.ops.aten",
    "torch.ops.bitsandbytes",
    "transformers.PreTrainedTokenizerBase.added_tokens_decoder.values",
    "transformers.PreTrainedTokenizerBase.special_tokens_map.items",
    "transformers.Trainer.accelerator.get_state_dict",
}
MADE_UP = """
class Plan:
    style: str
    def __init__(self, steps, rate=0.1): self.path = steps
    def run(self, loud=False): pass
class Wide(Plan):
    def __init__(self, *, color="red", **others): super().__init__(**others)
    def set_width(self, width): pass
def load(name, **options): return options.pop("dtype", None)
def narrow(name): pass
"""


@pytest.fixture
def library(monkeypatch):
    """A library that is installed, and that a test can change; what was found is forgotten."""
    made_up = types.ModuleType("made_up")
    exec(MADE_UP, made_up.__dict__)
    monkeypatch.setitem(sys.modules, "made_up", made_up)
    monkeypatch.setattr(drift, "release", lambda package: "5.23.0")
    drift._find.cache_clear()
    yield made_up
    drift._find.cache_clear()


def sentences(uses, wanted=lambda library: True):
    return [sentence for _, sentence in drift.moved(uses, wanted)]


def test_everything_that_the_package_uses_is_in_the_installed_libraries():
    assert sentences(USES, find_spec) == []


def test_everything_that_the_lessons_use_is_in_the_installed_libraries():
    uses = {}
    for file in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = nbformat.read(file, 4).cells
        code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
        tree = ast.parse(re.sub(r"(?m)^( *)[%!].*", r"\1pass", code))
        reader = Reader(set(own_names(tree)))
        reader.visit(tree)
        for name, argument, line in reader.found:
            uses.setdefault(name, {}).setdefault(argument, f"{file.name}, line {line} of its code")
    assert len(uses) > 50
    assert sentences(uses, find_spec) == []


def test_the_table_is_that_of_the_source():
    advice = "python tests/uses.py writes it again"
    found = without_lines(read_uses(ROOT / "ftcourse"))
    assert found == without_lines(drift.recorded_uses()), advice


def test_a_place_is_a_line_of_a_file_that_has_the_name():
    for name, arguments in read_uses(ROOT / "ftcourse")["uses"].items():
        for argument, place in arguments.items():
            file, line = place.split(", line ")
            text = (ROOT / file).read_text(encoding="utf-8")
            word = argument or name.rpartition(".")[2]
            assert word == "__call__" or word in text, (name, place)
            assert text.splitlines()[int(line) - 1].strip(), (name, place)


def test_the_table_has_the_names_and_arguments_of_every_large_library():
    assert {name.split(".")[0] for name in USES} >= {
        *("accelerate", "bitsandbytes", "datasets", "huggingface_hub", "ipywidgets"),
        *("jupyterlab", "jupyter_server", "matplotlib", "numpy", "peft", "torch", "transformers"),
    }
    known = ["bf16", "eval_strategy", "ddp_find_unused_parameters"]  # the second is in a **dict
    assert {*known} <= USES["transformers.TrainingArguments"].keys()
    assert "attn_implementation" in USES["transformers.AutoModelForCausalLM.from_pretrained"]
    assert "identity_provider_class" in USES["jupyter_server.serverapp.ServerApp"]
    assert "resume_from_checkpoint" in USES["transformers.Trainer.train"]  # of an object


@pytest.mark.parametrize("library", sorted({name.split(".")[0] for name in USES}))
def test_any_of_these_names_and_arguments_is_missed_if_it_is_spelled_otherwise(library):
    if not find_spec(library):
        pytest.skip(f"{library} is an extra, and is not installed")
    unseen = set()
    for name, arguments in USES.items():
        if name.split(".")[0] == library and "." in name:
            for argument in arguments:
                other = (
                    {name: {f"{argument}_gone": HERE}} if argument else {f"{name}_gone": {"": HERE}}
                )
                unseen |= {name} if not sentences(other) else set()
    assert unseen <= UNSEEN


@pytest.mark.parametrize(
    ("name", "argument", "problem"),
    [
        ("made_up.Paln", "", "made_up has no 'Paln'"),
        ("made_up.Plan.walk", "", "made_up.Plan has no 'walk'"),
        ("made_up.parts", "", "made_up has no 'parts'"),
        ("made_up.Plan", "speed", "made_up.Plan has no argument 'speed'"),
        ("made_up.Plan.run", "quiet", "made_up.Plan.run has no argument 'quiet'"),
        ("made_up.narrow", "dtype", "made_up.narrow has no argument 'dtype'"),
        ("made_up.load", "torch_dtype", "made_up.load has no argument 'torch_dtype'"),
        ("made_up.Wide", "length", "made_up.Wide has no argument 'length'"),
        ("never_made", "", "No module named 'never_made'"),
    ],
)
def test_what_moved_is_named_with_the_version_and_the_place(library, name, argument, problem):
    (sentence,) = sentences({name: {argument: HERE}})
    assert sentence == (f"{problem} any more (installed: 5.23.0); used in {HERE}")


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("made_up.Plan", "rate"),
        ("made_up.Plan.run", "loud"),
        ("made_up.Plan.path", ""),  # its method sets it
        ("made_up.Plan.style", ""),  # an annotation
        ("made_up.Plan.path.parent", ""),  # nobody says what a path is
        ("made_up.load", "dtype"),  # taken out of **options
        ("made_up.Wide", "color"),
        ("made_up.Wide", "steps"),  # by the class that it is made of
        ("made_up.Wide", "width"),  # set_width, as matplotlib has it
        ("torch.randn", "generator"),  # in C: its text says it
    ],
)
def test_what_is_there_in_any_of_these_ways_is_found(library, name, argument):
    assert sentences({name: {argument: HERE}}) == []


def test_a_function_that_a_real_library_drops_is_seen_wherever_we_use_it(library, monkeypatch):
    monkeypatch.delattr(torch.nn.utils, "clip_grad_norm_")
    (sentence,) = sentences(USES, lambda name: name == "torch")
    assert sentence.startswith("torch.nn.utils has no 'clip_grad_norm_' any more")


def test_libraries_that_are_not_wanted_are_not_imported():
    assert sentences({"never_made.Name": {"": HERE}}, find_spec) == []
    assert sentences({"antigravity.fly": {"": HERE}}, sys.modules.__contains__) == []
    assert "antigravity" not in sys.modules


SOURCE = """
import torch.nn.functional as F
from made_up import Plan, load
OPTIONS = ["--ServerApp.port=1", f"--ServerApp.ip={OPTIONS}"]

class Mine(Plan):
    def on_start(self): super().start(now=True)

def plan(model: Plan | None, path):
    style = {"color": 1}
    made = Plan(steps=2, **style, **{"rate": 3})
    made.go(fast=1)
    model(4, quiet=True)
    F.pad(path.name, value=load(path).model)
"""


def test_the_reader_sees_imports_calls_objects_options_and_what_a_class_inherits(tmp_path):
    (tmp_path / "mine.py").write_text(SOURCE, encoding="utf-8")
    place = f"{tmp_path.name}/mine.py"
    assert read_uses(tmp_path)["uses"]["made_up.Plan.go"][""] == f"{place}, line 12"
    assert without_lines(read_uses(tmp_path))["uses"] == {
        "jupyter_server.serverapp.ServerApp": {"ip": place, "port": place},
        "made_up.Plan": {"": place, "color": place, "rate": place, "steps": place},
        "made_up.Plan.__call__": {"quiet": place},
        "made_up.Plan.go": {"": place, "fast": place},
        "made_up.Plan.on_start": {"": place},
        "made_up.Plan.start": {"": place, "now": place},
        "made_up.load": {"": place},
        "torch.nn.functional": {"": place},
        "torch.nn.functional.pad": {"": place, "value": place},
    }


def test_the_doctor_says_what_moved_once_for_each_library_with_the_range_that_is_tested(
    library, monkeypatch
):
    gone = {"torch.gone": {"": HERE}, "torch.nn.Linear": {"": HERE, "deep": HERE}}
    gone |= {"huggingface_hub.gone": {"": HERE}, "not_loaded.gone": {"": HERE}}
    monkeypatch.setattr(doctor, "recorded_uses", lambda: {"uses": gone})
    traps = list(doctor._find_moved(None))
    assert [trap.what.partition(" any more")[0] for trap in traps] == [
        "torch has no 'gone'",
        "huggingface_hub has no 'gone'",
    ]
    assert traps[0].what.endswith(", and 1 more.")
    assert re.fullmatch(r'pip install "torch[<>=.,\d]+", then restart the kernel', traps[0].fix)
    assert traps[1].fix.startswith('pip install "huggingface-hub<')
    assert not any(trap.blocks for trap in traps)
    for line in "\n".join(map(repr, traps)).splitlines():
        assert line.count(":") <= 1


def test_the_doctor_finds_nothing_here_and_looks_into_transformers_and_torch(monkeypatch):
    looked = []
    real = drift._problem
    monkeypatch.setattr(drift, "_problem", lambda *use: looked.append(use[0]) or real(*use))
    assert list(doctor._find_moved(None)) == []
    assert {"transformers.TrainingArguments", "torch.cat", "peft.LoraConfig"} <= {*looked}
