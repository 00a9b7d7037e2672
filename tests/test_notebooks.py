import ast
import builtins
import contextlib
import re
from pathlib import Path
from statistics import median

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from ftcourse import check
from ftcourse.handout import unanswered

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
BOLD = re.compile(r"\*\*([^*]+)\*\*")
# A term, its two sentences, and the cell where it is measured.
ENTRY = re.compile(
    r"(?m)^- \*\*(.+)\*\*: (.+) \[Lesson (\d)\]\((\d\d_\w+\.ipynb)#cell-id=([\w-]+)\)$"
)
GLOSSARY = {
    entry[0]: entry[1:]
    for entry in ENTRY.findall((ROOT / "notebooks/glossary.md").read_text(encoding="utf-8"))
}

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


# --- what the template promises ---------------------------------------------------------------


def paragraphs(lesson):
    """Return a lesson's prose without its head, headings, tables, links and folds."""
    cells = [cell.source for cell in read(lesson).cells[1:] if cell.cell_type == "markdown"]
    text = re.sub(r"(?s)<details>.*?</details>|`[^`]*`", "", "\n".join(cells))
    return re.sub(r"(?m)^(#|\|).*$", "", re.sub(r"\]\([^)]*\)", "]", text))


def bold_terms(lesson):
    """Return the bold words that are no sentence and no number: the terms that it explains."""
    return [text for text in BOLD.findall(paragraphs(lesson)) if text[-1] not in ".?!:"]


def entry_of(term):
    """Return how the glossary writes a term: in the singular, and small but for names."""
    forms = (term, term[0].lower() + term[1:], term.removesuffix("s"))
    return next((form for form in forms if form in GLOSSARY), term)


def test_every_term_in_bold_is_in_the_glossary(lesson):
    assert {entry_of(term) for term in bold_terms(lesson)} - GLOSSARY.keys() == set()


def test_a_term_is_in_bold_where_the_lesson_that_explains_it_uses_it_first(lesson):
    explained = [
        term for term, (_, number, *_) in GLOSSARY.items() if int(number) == int(lesson.stem[:2])
    ]
    text = paragraphs(lesson)
    for term in explained:
        first = re.search(rf"(?i)(\*\*)?\b{term}s?\b(\*\*)?", text)
        assert first, term
        assert first[0].startswith("**"), text[max(0, first.start() - 60) : first.end() + 20]


def test_the_glossary_gives_two_sentences_and_a_cell_that_exists(lesson):
    ids = {cell.id for cell in code_cells(lesson)}
    for term, (text, number, file, cell) in GLOSSARY.items():
        assert len(re.findall(r"[.?!](?= |$)", text)) == 2, term
        assert (ROOT / "notebooks" / file).stem[:2] == f"{int(number):02}"
        assert file != lesson.name or cell in ids, term


def test_guesses_are_assignments_that_a_hand_out_can_empty(lesson):
    guesses = [source for heading, source in sections(lesson) if heading == "Predict"]
    assert re.search(r"(?m)^guess\w* = \S", guesses[-1])
    assert any("check.revisit(" in source for h, source in sections(lesson) if h == HEADINGS[-1])


def test_a_cell_of_guesses_works_as_it_is_handed_out(lesson):
    handed_out = nbformat.reads(unanswered(lesson.read_bytes()), as_version=4)
    cells = [cell.source for cell in handed_out.cells if "check.noted(" in cell.source]
    assert cells
    for source in cells:
        scope = {"check": check}
        exec(source, scope)
        assert all(value is ... for name, value in scope.items() if name.startswith("guess"))


def test_what_can_fail_has_a_fold_that_says_what_to_do(lesson):
    cells = read(lesson).cells
    real = next(n for n, cell in enumerate(cells) if cell.source.startswith("## For real"))
    for name in ("load_base(", "finetune("):
        first = next((n for n in range(real, len(cells)) if name in cells[n].source), None)
        if first is None:
            assert name == "finetune("  # not every lesson trains through it
            continue
        assert "<details><summary>If it goes wrong</summary>" in cells[first + 1].source


def test_exercises_say_how_hard_they_are_and_how_long_they_take(lesson):
    exercises = prose(lesson).partition("\n## Exercises\n")[2]
    said = re.findall(r"(?m)^\*\*(\d)\.\*\* \(\*(.+), (\d+) minutes\*\)", exercises)
    assert [int(number) for number, *_ in said] == list(range(1, len(said) + 1))
    assert len(said) >= 3
    functions = [
        node for h, source in sections(lesson) if h == "Exercises" for node in parse(source).body
    ]
    assert any(isinstance(node, ast.FunctionDef) for node in functions)  # one of them is code


def test_a_lesson_after_the_first_begins_with_two_questions_on_the_one_before(lesson):
    before = [source for heading, source in sections(lesson) if not heading]
    assert sum("check." in source for source in before) == 2 * (lesson != LESSONS[0])


def test_a_lesson_ends_with_what_to_read_next(lesson):
    last = read(lesson).cells[-1].source
    assert "**To read next:**" in last
    assert re.search(r"(?m)^Next: ", last)


def test_no_stored_text_is_wider_than_a_narrow_page(lesson):
    for cell in code_cells(lesson):
        for output in cell.outputs:
            data = output.get("data", {})
            # JupyterLab breaks the lines of shown source anywhere: at 800 pixels it has 64 columns.
            most = 64 if "```python" in data.get("text/markdown", "") else 80
            width = max(map(len, data.get("text/plain", "").splitlines()), default=0)
            assert width <= most, cell.source


def test_a_learner_never_sees_the_numbers_of_our_list_of_claims(lesson):
    assert not re.search(r"\bC\d+\b", prose(lesson))
    assert "recorded yet" not in prose(lesson)


def called_in_prose(lesson):
    """Yield each call in a lesson's prose, and the code cells above it."""
    above = []
    for cell in read(lesson).cells:
        if cell.cell_type == "code":
            above.append(cell.source)
            continue
        for text in re.findall(r"`([^`\n]+)`", re.sub(r"(?ms)^```.*?^```", "", cell.source)):
            with contextlib.suppress(SyntaxError):
                (node,) = ast.parse(text).body
                if isinstance(getattr(node, "value", None), ast.Call):
                    yield text, list(above)


def used(tree):
    return {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def bound(tree):
    """Return the names that a cell gives a value."""
    names = {
        n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    }
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, DEFINITIONS):
            names.add(node.name)
    return names


def test_every_call_in_the_prose_works_where_it_stands(lesson):
    """Run each call after those cells above it that its names need, and no others."""
    for call, above in called_in_prose(lesson):
        wanted, needed = used(ast.parse(call)) - set(dir(builtins)), []
        for tree in map(parse, reversed(above)):
            if bound(tree) & wanted:
                needed.append(tree)
                wanted = (wanted - bound(tree)) | (used(tree) - set(dir(builtins)) - bound(tree))
        assert not wanted, f"{call} needs {wanted}"
        scope = {}
        for tree in reversed(needed):
            exec(compile(tree, lesson.stem, "exec"), scope)
        assert eval(call, scope) is not None
