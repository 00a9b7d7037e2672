import ast
import re
from pathlib import Path
from statistics import median

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

ROOT = Path(__file__).parent.parent
LESSONS = sorted(ROOT.glob("notebooks/*.ipynb"))
HEADINGS = [
    "Predict",
    "The idea",
    "By hand",
    "In code",
    "Play",
    "For real",
    "Exercises",
    "What we saw",
]
TAGS = {"nbval-ignore-output", "raises-exception"}
# They break the strict comparison of outputs, or the widgets of Colab.
FRAGILE = re.compile(r"\b(Output|interact|interactive|interactive_output|Tab|Accordion|ipympl)\b")
PATHS = re.compile(r"(?<![\w.])/(home|root|tmp|work|Users|var|opt|mnt|content)/|[A-Z]:\\")
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)

pytestmark = pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)


def read(lesson):
    return nbformat.read(lesson, as_version=4)


def code_cells(lesson):
    return [cell for cell in read(lesson).cells if cell.cell_type == "code"]


def prose(lesson):
    return "\n".join(cell.source for cell in read(lesson).cells if cell.cell_type == "markdown")


def sections(lesson):
    """Return pairs of a section's heading and one of its code cells."""
    heading, found = "", []
    for cell in read(lesson).cells:
        if cell.cell_type == "markdown":
            heading = next(reversed(re.findall(r"(?m)^## (.+)$", cell.source)), heading)
        elif cell.cell_type == "code":
            found.append((heading, cell.source))
    return found


def parse(source):
    return ast.parse(TransformerManager().transform_cell(source))


def test_notebook_is_valid_and_for_any_python_3_kernel(lesson):
    notebook = read(lesson)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert set(notebook.metadata) == {"kernelspec"}  # no widget state, no version of Python


def test_cells_have_ids_of_their_own(lesson):
    ids = [cell.id for cell in read(lesson).cells]
    assert len(set(ids)) == len(ids)


def test_every_code_cell_was_executed_in_order(lesson):
    counts = [cell.execution_count for cell in code_cells(lesson)]
    assert counts == list(range(1, len(counts) + 1))


def test_no_stored_output_is_an_error_or_a_widget_that_is_gone(lesson):
    for cell in code_cells(lesson):
        for output in cell.outputs:
            allowed = "raises-exception" in cell.metadata.get("tags", [])
            assert output.output_type != "error" or allowed, cell.source
            assert "application/vnd.jupyter.widget-view+json" not in output.get("data", {})


def test_tags_are_known(lesson):
    assert {tag for cell in read(lesson).cells for tag in cell.metadata.get("tags", [])} <= TAGS


def test_lesson_begins_with_its_number_and_a_question(lesson):
    first = read(lesson).cells[0].source
    assert re.match(rf"# {int(lesson.stem[:2])}\. \S", first)
    assert re.search(r"(?m)^\*\*[^*]+\?\*\*$", first)


def test_lesson_has_the_eight_headings_in_order(lesson):
    outside_code = re.sub(r"(?ms)^```.*?^```", "", prose(lesson))
    assert re.findall(r"(?m)^# (.+)$", outside_code)[1:] == []
    assert re.findall(r"(?m)^## (.+)$", outside_code) == HEADINGS


def test_cells_are_short(lesson):
    lengths = [len(cell.source.strip().splitlines()) for cell in code_cells(lesson)]
    assert max(lengths) <= 15
    assert median(lengths) <= 5


def test_functions_are_defined_only_by_hand_and_in_exercises(lesson):
    for heading, source in sections(lesson):
        if heading not in ("By hand", "Exercises"):
            defined = [node for node in ast.walk(parse(source)) if isinstance(node, DEFINITIONS)]
            assert not defined, source


def test_every_cell_ends_with_a_value(lesson):
    for _, source in sections(lesson):
        assert isinstance(parse(source).body[-1], (ast.Expr, ast.Assert, *DEFINITIONS)), source


def test_no_fragile_widget_is_used(lesson):
    for cell in code_cells(lesson):
        assert not FRAGILE.search(cell.source), cell.source


def test_nothing_of_one_machine_is_stored(lesson):
    for cell in code_cells(lesson):
        stored = [output.get("text", "") for output in cell.outputs]
        stored += [output.get("data", {}).get("text/plain", "") for output in cell.outputs]
        for text in [cell.source, *stored]:
            assert not PATHS.search(text), text


def test_prose_never_says_that_something_is_easy(lesson):
    assert not re.search(r"(?i)\b(simply|obviously)\b", prose(lesson))
