import ast
import contextlib
import re
import warnings
from dataclasses import replace
from html import escape
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
from ftcourse.memory.fit import context_bytes, judge_fit
from ftcourse.plots import plot_memory
from ftcourse.widgets.memory import core_seconds, memory_panel
from ftcourse.widgets.panel import Panel

OLD = ipywidgets.__version__.startswith("7.")
TOOLTIPS = ("tooltip", "description_tooltip") if OLD else ("tooltip",)  # 8 warns of the other name


def slider():
    return ipywidgets.IntSlider(value=8, max=64)


def panel(draw, **controls):
    return Panel(draw, controls or {"rank": slider()}, "A panel")


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
    assert "<b>rank 8</b>\nNote: rank is &lt;high&gt;</p>" in shown(warned)


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
    assert shown(noted).endswith("<p>below &amp; &lt;beneath&gt;</p></div>")


def test_a_panel_has_values_by_name():
    moved = panel(lambda rank: (Figure(), ""))
    moved.controls["rank"].value = 9
    assert moved.values == {"rank": 9}


def test_the_text_of_another_state_moves_nothing():
    moved = panel(lambda rank, bits: (Figure(), f"{rank} and {bits}"), rank=slider(), bits=slider())
    moved.controls["bits"].value = 4
    before = shown(moved)
    assert moved.text_with(rank=64) == "64 and 8"  # of the state where the panel began
    assert (moved.text, moved.values, shown(moved)) == ("8 and 4", {"rank": 8, "bits": 4}, before)


def test_the_last_move_is_explained_below_the_text():
    words = {"rank": "How wide <it> is.", "on": "On or off."}
    explained = Panel(
        lambda rank, on: (Figure(), "text"),
        {"rank": slider(), "on": ipywidgets.Checkbox(value=True)},
        "A panel",
        words=words,
        change=lambda before, after: f"{before['rank']} < {after['rank']}",
    )
    assert explained.moved == ""
    explained.controls["rank"].value = 9
    assert explained.moved == "rank 8 to 9: 8 < 9. How wide <it> is."
    head, below = shown(explained).split("<img")[0].split("</p>")[:2]
    assert head.endswith("<b>text</b>")
    assert below == "<p>rank 8 to 9: 8 &lt; 9. How wide &lt;it&gt; is."
    explained.controls["on"].value = False
    assert explained.moved == "on on to off: 9 < 9. On or off."
    assert explained.text == "text"


def choose(control, **state):
    """Set a control as the front end does when a learner moves it."""
    control.set_state(state)


def test_a_panel_that_is_made_again_stands_where_the_learner_left_it():
    def make(**start):
        controls = {name: slider() for name in ("rank", "bits")}
        controls["rank"].value = start.get("rank", 8)
        return Panel(lambda rank, bits: (Figure(), f"{rank} and {bits}"), controls, "Left")

    first = make()
    choose(first.controls["rank"], value=9)
    first.controls["bits"].value = 4  # code makes no choice
    again = make()
    assert again.text == "9 and 8"
    assert again.moved == ""
    assert make(rank=7).text == "7 and 8"  # another panel
    again.buttons["reset"].click()
    assert again.text == make().text == "8 and 8"


def test_the_menu_and_the_slider_that_a_learner_moved_stay_moved():
    first = memory_panel(model="qwen2.5-1.5b")
    choose(first.controls["method"], index=1)
    choose(first.controls["max_length"], index=3)
    again = memory_panel(model="qwen2.5-1.5b")
    assert (again.values["method"], again.values["max_length"]) == ("lora", 1024)
    assert again.text == first.text
    assert again.controls["bits"].disabled
    again.buttons["reset"].click()
    assert memory_panel(model="qwen2.5-1.5b").values["method"] == "qlora"


def test_reset_moves_all_controls_to_where_the_panel_began_and_sends_one_view():
    moved = memory_panel(card="L4")
    start, values = shown(moved), moved.values
    for name, value in {"rank": 64, "method": "full", "card": "T4", "loss": "chunked"}.items():
        moved.controls[name].value = value
    moved.buttons["reset"].click()
    assert (shown(moved), moved.values, moved.moved) == (start, values, "")


def test_everything_is_disabled_while_an_action_works_and_then_is_as_before():
    def act(rank, bits):
        everything = [*acted.controls.values(), *acted.buttons.values()]
        seen.append(all(widget.disabled for widget in everything))
        raise errors.pop()

    errors = [CourseError("It works.", "it", "Wait."), KeyboardInterrupt()]
    seen, controls = [], {"rank": slider(), "bits": slider()}
    controls["bits"].disabled = True
    acted = Panel(lambda rank, bits: (Figure(), ""), controls, "A panel", {"act": act})
    while errors:
        with contextlib.suppress(KeyboardInterrupt):
            acted.buttons["act"].click()
        assert seen.pop()
        assert [control.disabled for control in acted.controls.values()] == [False, True]
        assert not any(button.disabled for button in acted.buttons.values())


def test_every_widget_has_a_tooltip_so_that_no_page_shows_null():
    def widgets(widget):
        yield widget
        for child in getattr(widget, "children", ()):
            yield from widgets(child)

    made = memory_panel()
    for widget in widgets(made):
        if widget.has_trait("description"):
            tips = [getattr(widget, name) for name in TOOLTIPS if widget.has_trait(name)]
            assert any(tip is not None for tip in tips), widget
    for name, widget in (made.controls | made.buttons).items():
        tips = [getattr(widget, trait) for trait in TOOLTIPS if widget.has_trait(trait)]
        assert any(tip and tip.endswith(".") for tip in tips), name


def bars(panel):
    """Return the sources of the bars that a panel's picture shows, from its text alternative."""
    return re.findall(r"(\w+), [\w ]+: [\d.]+ [GM]iB", re.search('alt="([^"]*)"', shown(panel))[1])


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
    small.controls["rank"].value = 16  # the bars are there again
    assert bars(small) == ["predicted", "simulated", "measured"]


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
        (Card("CPU", 2**40), "The panel measures what takes one core 10 seconds or less."),
        (CARDS["T4"], "The panel measures what takes one core 10 seconds or less."),
        (CARDS["A100 80GB"], "We measure a step on the device that is there"),
    ],
)
def test_where_measuring_makes_no_sense_a_sentence_says_why(here, words, monkeypatch):
    monkeypatch.setattr("ftcourse.widgets.memory.detect", lambda: here)
    monkeypatch.setattr("ftcourse.measure.measure_memory", lambda config: 1 / 0)
    large = memory_panel(model="llama-3.1-8b", card="T4")
    large.buttons["measure"].click()
    assert f"\nmeasure: {words}" in large.text
    assert bars(large) == ["predicted"]


def test_a_run_that_does_not_fit_the_device_is_not_measured(monkeypatch):
    here = replace(CARDS["T4"], memory=2**30)
    monkeypatch.setattr("ftcourse.widgets.memory.detect", lambda: here)
    monkeypatch.setattr("ftcourse.memory.fit.detect", lambda: here)
    large = memory_panel(model="qwen2.5-0.5b", card="T4")
    large.controls["method"].value = "full"
    large.buttons["measure"].click()
    assert "\nmeasure: A training step fits the card's memory, 1.00 GiB." in large.text


@pytest.mark.parametrize("here", [Card("CPU", 2**40), CARDS["T4"]], ids=lambda card: card.name)
def test_no_more_tokens_are_measured_than_the_model_has_positions(here, small, monkeypatch):
    monkeypatch.setattr("ftcourse.widgets.memory.detect", lambda: here)
    monkeypatch.setattr("ftcourse.measure.measure_memory", lambda config: 1 / 0)
    small.controls["batch_size"].value = 1
    small.controls["max_length"].value = 2048
    assert "2048 tokens are more than the 1024 positions of this model." in shown(small)
    assert "positions" not in small.text
    small.buttons["measure"].click()
    assert "measure: We measure no more tokens than the model has positions, 1024." in small.text
    assert "\n  got: 2048 tokens\n  do:  " in small.text
    small.controls["max_length"].value = 1024
    assert "1024 positions of this model" not in shown(small)


@pytest.mark.parametrize(
    ("model", "batch", "length", "seconds"),  # of one core, as they were measured
    [
        ("embedded", 4, 1024, 3.7),
        ("embedded", 32, 1024, 24.9),
        ("smollm2-135m", 1, 512, 20.0),
        ("qwen2.5-0.5b", 1, 128, 17.9),
    ],
)
def test_the_seconds_of_a_measurement_are_known_before_it(model, batch, length, seconds):
    config = FinetuneConfig(model=model, batch_size=batch, max_length=length)
    assert core_seconds(config, Card("CPU", 2**40)) == pytest.approx(seconds, rel=0.25)


def test_on_a_gpu_a_measurement_takes_as_long_as_the_making_of_the_weights():
    config = FinetuneConfig(model="qwen2.5-0.5b", batch_size=32)
    assert core_seconds(config, CARDS["T4"]) == pytest.approx(7.5, rel=0.1)  # made and loaded


def test_what_the_panel_measures_without_a_gpu_takes_seconds(small, monkeypatch):
    monkeypatch.setattr("ftcourse.widgets.memory.detect", lambda: Card("CPU", 2**40))
    asked = []
    monkeypatch.setattr("ftcourse.measure.measure_memory", lambda config: asked.append(config))
    for batch, length in ((32, 1024), (2, 8192), (8, 1024)):
        small.controls["batch_size"].value, small.controls["max_length"].value = batch, length
        small.buttons["measure"].click()
    assert [(config.batch_size, config.max_length) for config in asked] == [(8, 1024)]


def test_the_nearest_recorded_run_is_shown_with_who_measured_it():
    known = memory_panel(model="qwen2.5-7b", card="T4")
    text = "<p>recorded: 10.34 GiB on Tesla T4, 2026-09-21, by fitcheck; differs: batch_size 1"
    assert text in shown(known)
    assert "recorded" not in known.text
    known.controls["method"].value = "full"
    assert "recorded" not in shown(known)


def test_memory_panel_refuses_a_card_that_it_does_not_know():
    with pytest.raises(CourseError, match=r"T4, RTX 3060.*this machine"):
        memory_panel(card="T5")


def test_the_menu_of_cards_shows_their_memory_and_always_this_machine():
    menu = dict(memory_panel().controls["card"].options)
    assert menu["T4, 14.6 GiB"] == "T4"
    here = detect()
    assert menu[f"this machine: {here.name}, {here.memory / 2**30:.1f} GiB"] == "this machine"
    assert memory_panel(card="this machine").values["card"] == "this machine"
    assert memory_panel(card=here).values["card"] == "this machine"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("max_length", 1024, "max length 512 to 1024: activations +3.47 GiB. Longest sequence in"),
        ("optimizer", "adamw_torch", "adamw_torch_fused to adamw_torch: nothing changes. One of"),
        ("gradient_checkpointing", False, "checkpointing on to off: activations +11.57 GiB. Keep"),
        ("card", "A100 80GB", "card T4 to A100 80GB: capacity +64.59 GiB. The device whose memory"),
        ("method", "full", "method qlora to full: optimizer +59.52 GiB. What is trained: all"),
        ("max_length", 256, "max length 512 to 256: activations -1.73 GiB. "),
    ],
)
def test_a_move_is_explained_by_the_part_that_changed_most_and_the_field(name, value, words):
    moved = memory_panel()
    assert moved.moved == ""
    moved.controls[name].value = value
    assert words in moved.moved
    assert escape(moved.moved, quote=True) in shown(moved)
    assert moved.text.count("\n") == 0


def test_a_change_too_small_for_the_unit_of_the_view_is_called_small():
    moved = memory_panel()
    moved.controls["method"].value = "full"
    moved.controls["batch_size"].value = 5
    assert ": less than 0.01 GiB. " in moved.moved or ": activations +0.01 GiB. " in moved.moved
    change = moved._change
    before = moved.values | {"model": "qwen2.5-7b", "batch_size": 1, "max_length": 128}
    assert change(before, before | {"max_length": 129}) == "less than 0.01 GiB"


@pytest.mark.parametrize(
    ("card", "dtype", "words"),
    [
        ("T4", "auto", "dtype auto: float16 on the Tesla T4, because compute capability 7.5 has"),
        ("A100 80GB", "auto", "dtype auto: bfloat16 on the A100 80GB, because compute capability"),
        ("T4", "bfloat16", "bfloat16 is slow on the Tesla T4, which only emulates it. Better: fl"),
        (Card("CPU", 2**40), "bfloat16", "bfloat16 may be slow: on a CPU, 16-bit arithmetic is"),
        (Card("CPU", 2**40), "float16", "float16 may be slow: on a CPU, 16-bit arithmetic is"),
        ("A100 80GB", "bfloat16", ""),
        ("T4", "float16", ""),
        (Card("CPU", 2**40), "float32", ""),
    ],
)
def test_a_note_says_what_auto_means_and_which_format_is_slow_on_the_card(card, dtype, words):
    noted = memory_panel(card=card)
    noted.controls["dtype"].value = dtype
    below = shown(noted).split("<img")[1]
    assert words in below
    assert ("dtype auto" in below, " slow" in below) == (dtype == "auto", " slow" in words)


def test_a_note_says_why_gradients_are_0_at_the_peak():
    why = "Gradients are 0 here: at this moment, the loss, no gradient exists yet."
    noted = memory_panel()
    assert why in shown(noted)
    noted.controls["method"].value = "full"
    assert "no gradient exists yet" not in shown(noted)


@pytest.mark.parametrize("model", ["llama-3.1-8b", "embedded"])
def test_text_and_picture_of_the_panel_share_one_unit(model):
    seen = shown(memory_panel(model=model, card="A100 40GB"))
    assert len(set(re.findall("[GM]iB", re.sub('src="[^"]*"', "", seen)))) == 1


def test_text_and_picture_count_the_same_bytes_as_over():
    over = memory_panel()
    assert " are 5.24 GiB over;" in over.text_with(max_length=2048)
    assert "Capacity: 14.56 GiB, less 0.14 GiB of CUDA context." in shown(over)
    config = FinetuneConfig(model="llama-3.1-8b", max_length=2048)
    t4 = CARDS["T4"]
    ax = plot_memory(predict_memory(config, t4), t4.memory, context=context_bytes(t4))
    assert "5.24 over" in ax.texts[-2].get_text()


def test_memory_panel_takes_the_machine_at_hand():
    mine = memory_panel(model="qwen2.5-0.5b", card=Card("CPU", 16 * 2**30))
    assert mine.controls["card"].value == "CPU"
    assert dict(mine.controls["card"].options)["CPU, 16.0 GiB"] == "CPU"
    assert mine.text.startswith("Fits the CPU with ")


def test_memory_panel_shows_the_error_for_a_model_that_is_not_there(tmp_path):
    missing = memory_panel(model=str(tmp_path))
    assert "A model folder in the Hub's format holds a config.json." in missing.text
    missing.controls["model"].value = "qwen2.5-0.5b"
    assert missing.text.startswith("Fits")


def test_memory_panel_warns_of_a_rank_above_a_module_s_width():
    wide = memory_panel(model="qwen2.5-0.5b")
    wide.controls["rank"].value = 256
    assert wide.text.count("Note: rank 256 is above the width of k_proj (128)") == 1
    wide.controls["rank"].value = 128
    assert "Note" not in wide.text
    wide.controls["rank"].value = 256  # known already, and warned of again
    assert wide.text.count("Note: rank 256 is above the width of k_proj (128)") == 1


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


@pytest.mark.extra
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
