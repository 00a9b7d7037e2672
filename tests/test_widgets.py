import ast
import re
import warnings
from dataclasses import replace
from pathlib import Path

import ipywidgets
import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from matplotlib.figure import Figure
from nbclient import NotebookClient

from ftcourse.config import FinetuneConfig
from ftcourse.errors import CourseError
from ftcourse.hardware import CARDS, Card, detect
from ftcourse.memory import predict_memory
from ftcourse.memory.fit import judge_fit
from ftcourse.widgets.memory import memory_panel
from ftcourse.widgets.panel import Panel


def panel(draw, **controls):
    return Panel(draw, controls or {"rank": ipywidgets.IntSlider(value=8, max=64)}, "A panel")


def shown(panel):
    """Return the HTML of the panel's view, its last child."""
    return panel.children[-1].value


def test_moving_a_control_draws_text_and_picture_again():
    def draw(rank):
        ax = Figure().add_subplot()
        ax.barh(0, rank)
        return ax, f"rank {rank}"

    moved = panel(draw)
    before = shown(moved)
    moved.controls["rank"].value = 64
    assert moved.text == "rank 64"
    assert re.search('<p class="ft-text"[^>]*><b>rank 64</b></p>', shown(moved))
    picture = re.compile(r'src="(data:image/png;base64,[^"]+)"')
    assert picture.search(before)[1] != picture.search(shown(moved))[1]


def test_draw_may_return_a_figure_or_axes():
    assert "ft-img" in shown(panel(lambda rank: (Figure(), "")))
    assert "ft-img" in shown(panel(lambda rank: (Figure().add_subplot(), "")))


def test_text_cannot_become_markup():
    view = shown(panel(lambda rank: (Figure(), '<script>"rank" & co</script>')))
    assert "<script>" not in view
    assert view.count("&lt;script&gt;&quot;rank&quot; &amp; co&lt;/script&gt;") == 2  # text and alt


def test_a_course_error_is_shown_in_its_three_parts():
    def draw(rank):
        raise CourseError("The rank is at least 1.", "rank=0", "Try <8>.")

    failed = panel(draw)
    assert failed.text == "The rank is at least 1.\n  got: rank=0\n  do:  Try <8>."
    assert "do:  Try &lt;8&gt;." in shown(failed)


def test_any_other_error_is_shown_with_its_traceback():
    failed = panel(lambda rank: 1 / 0)
    assert failed.text == "ZeroDivisionError: division by zero"
    assert "Traceback (most recent call last)" in shown(failed)


def test_a_panel_recovers_from_an_error():
    def draw(rank):
        if rank > 8:
            raise CourseError("The rank is at most 8.", f"rank={rank}", "Try 8.")
        return Figure(), f"rank {rank}"

    recovered = panel(draw)
    recovered.controls["rank"].value = 9
    recovered.controls["rank"].value = 7
    assert recovered.text == "rank 7"


def test_warnings_of_the_drawing_are_shown_and_go_no_further():
    def draw(rank):
        warnings.warn("rank is <high>", stacklevel=1)
        return Figure(), f"rank {rank}"

    warned = panel(draw)
    assert warned.text == "rank 8\nNote: rank is <high>"
    assert "<p>Note: rank is &lt;high&gt;</p>" in shown(warned)


def test_the_repr_of_a_panel_does_not_depend_on_its_values():
    moved = memory_panel()
    before = repr(moved)
    moved.controls["rank"].value = 64
    assert repr(moved) == before == "<Panel: Does it fit? Run this cell to move its controls.>"


def test_a_panel_needs_no_widget_that_breaks_older_front_ends():
    def kinds(widget):
        yield type(widget).__name__
        for child in getattr(widget, "children", ()):
            yield from kinds(child)

    assert not {"Output", "Tab", "Accordion", "Image"} & set(kinds(memory_panel()))


def test_memory_panel_says_what_predict_memory_says():
    config = FinetuneConfig(model="llama-3.1-8b", rank=64)
    card = CARDS["T4"]
    moved = memory_panel(model="llama-3.1-8b", card="T4")
    moved.controls["rank"].value = 64
    assert moved.text == repr(judge_fit(predict_memory(config, card), card))
    assert moved.text.startswith("Fits the Tesla T4 with ")


def test_memory_panel_gives_each_of_the_three_answers_with_its_reason():
    moved = memory_panel(model="llama-3.1-8b", card="T4")
    moved.controls["max_length"].value = 1024
    assert moved.text.startswith("Fits the Tesla T4 narrowly and may fail: ")
    assert " and gaps between tensors may take " in moved.text
    moved.controls["method"].value = "full"
    assert moved.text.startswith("Does not fit the Tesla T4: ")
    assert moved.text.endswith(" GiB over; largest part: optimizer.")
    moved.controls["card"].value = "A100 80GB"
    assert moved.text.startswith("Fits the A100 80GB with ")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", "qwen2.5-0.5b"),
        ("card", "A100 80GB"),
        ("method", "lora"),
        ("bits", 8),
        ("dtype", "float32"),
        ("rank", 256),
        ("batch_size", 1),
        ("max_length", 128),
        ("gradient_checkpointing", False),
        ("loss", "chunked"),
        ("optimizer", "adamw_8bit"),
    ],
)
def test_every_control_of_the_memory_panel_changes_the_answer(name, value):
    moved = memory_panel()
    before = moved.text, shown(moved)
    moved.controls[name].value = value
    assert moved.text != before[0]
    assert shown(moved) != before[1]


@pytest.mark.parametrize(
    ("method", "idle"), [("qlora", set()), ("lora", {"bits"}), ("full", {"bits", "rank"})]
)
def test_controls_that_a_method_does_not_use_are_disabled(method, idle):
    moved = memory_panel()
    moved.controls["method"].value = method
    assert {name for name, control in moved.controls.items() if control.disabled} == idle


def test_an_action_draws_instead_until_a_control_moves():
    seen = []
    acted = Panel(
        lambda rank: (Figure(), f"rank {rank}"),
        {"rank": ipywidgets.IntSlider(value=8, max=64)},
        "A panel",
        {"double": lambda rank: (seen.append(shown(acted)), (Figure(), f"rank {2 * rank}"))[1]},
    )
    acted.buttons["double"].click()
    assert acted.text == "rank 16"
    assert "<p>double: working ...</p>" in seen[0]  # shown before the drawing, gone after it
    assert "working" not in shown(acted)
    assert not acted.buttons["double"].disabled
    acted.controls["rank"].value = 9
    assert acted.text == "rank 9"


def test_an_error_of_an_action_is_shown():
    failed = Panel(lambda: (Figure(), ""), {}, "A panel", {"divide": lambda: 1 / 0})
    failed.buttons["divide"].click()
    assert failed.text == "ZeroDivisionError: division by zero"


def test_sentences_below_the_picture_are_shown_and_are_not_the_text():
    noted = panel(lambda rank: (Figure(), "text", "below & <beneath>"))
    assert noted.text == "text"
    assert shown(noted).endswith("<p>below &amp; &lt;beneath&gt;</p>")


def bars(panel):
    """Return the names of the bars that a panel's picture shows, from its text alternative."""
    return re.findall(r"(\w+), [\w ]+: weights", re.search('alt="([^"]*)"', shown(panel))[1])


@pytest.fixture
def small():
    """Return a panel of a run that is small enough for any machine."""
    panel = memory_panel(model="embedded", card="T4")
    panel.controls["max_length"].value = 128
    return panel


@pytest.mark.slow
def test_simulate_and_measure_add_their_bars_and_name_the_difference(small):
    before = small.text
    small.buttons["simulate"].click()
    assert bars(small) == ["predicted", "simulated"]
    (line,) = small.text.removeprefix(before).strip().split("\n")
    assert re.fullmatch(r"simulated: (the same within 0\.1 %|[+-]\d+\.\d % \(.*\))", line)
    small.buttons["measure"].click()
    assert bars(small) == ["predicted", "simulated", "measured"]
    assert small.text.count("\n") == 2
    small.controls["rank"].value = 32
    assert bars(small) == ["predicted"]
    assert "\n" not in small.text


def test_what_another_device_measured_is_compared_with_the_prediction_for_that_device(small):
    small.buttons["measure"].click()
    config = FinetuneConfig(max_length=128)
    here = Card("CPU", 2**40)
    need = predict_memory(config, here).allocated / 2**20
    if detect().device == "cpu":
        assert small.text.endswith(f", against {need:.2f} MiB predicted for CPU")


def test_a_measurement_agrees_with_its_prediction_on_the_chosen_card():
    mine = memory_panel(model="embedded", card=detect())
    mine.controls["max_length"].value = 128
    mine.buttons["measure"].click()
    line = mine.text.split("\n")[1]
    assert line.startswith("measured: ")
    assert "against" not in line


def test_a_run_that_cannot_be_simulated_says_why_and_keeps_its_picture(write_shape):
    model = write_shape(model_type="mixtral", num_local_experts=4, num_experts_per_tok=2)
    mixture = memory_panel(model=model, card=Card("CPU", 2**40))
    mixture.buttons["simulate"].click()
    assert bars(mixture) == ["predicted"]
    assert "\nsimulate: Fake tensors multiply " in mixture.text
    assert "\n  got: experts in float32\n  do:  " in mixture.text


@pytest.mark.parametrize(
    ("here", "words"),
    [
        (Card("CPU", 2**40), "Without a GPU we measure on the CPU, a step below 1.00 GiB."),
        (CARDS["A100 80GB"], "We measure a step on the device that is there"),
        (replace(CARDS["T4"], memory=2**30), "A training step fits the card's memory, 1.00 GiB."),
    ],
)
def test_where_measuring_makes_no_sense_a_sentence_says_why(here, words, monkeypatch):
    monkeypatch.setattr("ftcourse.widgets.memory.detect", lambda: here)
    monkeypatch.setattr("ftcourse.measure.measure_memory", lambda config: 1 / 0)
    large = memory_panel(model="llama-3.1-8b", card="T4")
    large.buttons["measure"].click()
    assert f"\nmeasure: {words}" in large.text
    assert bars(large) == ["predicted"]


def test_the_nearest_recorded_run_is_shown_with_who_measured_it():
    known = memory_panel(model="qwen2.5-7b", card="T4")
    text = "<p>recorded: 10.34 GiB on Tesla T4, 2026-09-21, by fitcheck; differs: batch_size 1"
    assert text in shown(known)
    assert "recorded" not in known.text
    known.controls["method"].value = "full"
    assert "recorded" not in shown(known)


def test_memory_panel_refuses_a_card_that_it_does_not_know():
    with pytest.raises(CourseError, match="T4, RTX 3060"):
        memory_panel(card="T5")


def test_memory_panel_takes_the_machine_at_hand():
    mine = memory_panel(model="qwen2.5-0.5b", card=Card("CPU", 16 * 2**30))
    assert mine.controls["card"].value == "CPU"
    assert mine.text.startswith("Fits the CPU with ")


def test_memory_panel_shows_the_error_for_a_model_that_is_not_there(tmp_path):
    missing = memory_panel(model=str(tmp_path))
    assert "A model folder in the Hub's format holds a config.json." in missing.text
    missing.controls["model"].value = "qwen2.5-0.5b"
    assert missing.text.startswith("Fits")


def test_memory_panel_warns_of_a_rank_above_a_module_s_width():
    wide = memory_panel(model="qwen2.5-0.5b")
    wide.controls["rank"].value = 256
    assert "Note: rank 256 is above the width of k_proj (128)" in wide.text


# --- in the lessons ---------------------------------------------------------------------------

LESSONS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
VIEW = "application/vnd.jupyter.widget-view+json"


def panel_cells(lesson):
    """Return a lesson's cells that use a panel, whole, and only the imports of all others."""
    cells = []
    for cell in nbformat.read(lesson, as_version=4).cells:
        if cell.cell_type == "code" and not re.search(r"panel\b", cell.source):
            body = ast.parse(TransformerManager().transform_cell(cell.source)).body
            lines = [ast.unparse(n) for n in body if isinstance(n, ast.Import | ast.ImportFrom)]
            cells.append(nbformat.v4.new_code_cell("\n".join(lines)))
        elif cell.cell_type == "code":
            cells.append(cell)
    return cells


def texts(cell):
    return [output.get("data", {}).get("text/plain") for output in cell.outputs]


@pytest.mark.slow
@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_the_panels_of_a_lesson_show_themselves_with_the_ipywidgets_that_are_installed(lesson):
    version = nbformat.v4.new_code_cell("import ipywidgets; ipywidgets.__version__")
    cells = panel_cells(lesson)
    stored = [texts(cell) for cell in cells]
    run = nbformat.v4.new_notebook(cells=[*cells, version])
    folder = {"metadata": {"path": str(lesson.parent)}}
    NotebookClient(run, kernel_name="python3", resources=folder, timeout=180).execute()
    assert texts(run.cells.pop()) == [repr(ipywidgets.__version__)]
    views = [out for cell in run.cells for out in cell.outputs if VIEW in out.get("data", {})]
    made = sum("_panel(" in cell.source for cell in run.cells)
    assert len(views) == made
    assert made >= 1
    assert [texts(cell) for cell in run.cells] == stored
