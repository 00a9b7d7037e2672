import itertools
import re
import time
from dataclasses import replace
from io import BytesIO

import matplotlib
import numpy as np
import pytest
from colours import contrast, luminance
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Annotation

from ftcourse.config import FinetuneConfig
from ftcourse.errors import CourseError
from ftcourse.hardware import CARDS, Card
from ftcourse.memory import PARTS, MemoryBreakdown, predict_memory
from ftcourse.memory.fit import judge_fit
from ftcourse.plots import (
    Picture,
    plot_history,
    plot_longest,
    plot_memory,
    plot_memory_against,
    plot_timeline,
    plot_training_step,
    png,
)
from ftcourse.plots.parts import COLORS
from ftcourse.plots.picture import PAPER

GIB, MIB = 2**30, 2**20


def breakdown(*gib, source="predicted", unit=GIB, **facts):
    return MemoryBreakdown(*(round(size * unit) for size in gib), source=source, **facts)


QLORA = breakdown(5.2, 0.16, 0.31, 4.1, 0.6)
LORA = breakdown(14.96, 0.16, 0.31, 2.6, 0.3)
FULL = breakdown(14.96, 14.96, 59.8, 4.1, 0.6)
SMALL = breakdown(4.9, 0.3, 0.7, 22, 1.6, unit=MIB)
MEASURED = breakdown(4.9, 0.3, 0.7, 23.4, 1.9, unit=MIB, source="measured", device="CPU")
T4 = round(14.56 * GIB)
LATE = "the first layer's backward pass"

PICTURES = {
    "one bar": (QLORA, T4),
    "one bar over capacity": (LORA, T4),
    "a little over capacity": (breakdown(9, 0.16, 0.31, 4.9, 0.3), T4),
    "a little under capacity": (breakdown(9, 0.16, 0.31, 4.6, 0.3), T4),
    "two bars of a small model": ([SMALL, MEASURED], None),
    "a capacity out of sight": ([SMALL, MEASURED], 16 * GIB),
    "three bars of very different sizes": ({"full": FULL, "lora": LORA, "qlora": QLORA}, T4),
    "one part only": (breakdown(1.2, 0, 0, 0, 0, source="recorded", device="Tesla T4"), None),
    "moments that differ": ({"full": replace(FULL, moment=LATE), "lora": LORA}, T4, None, GIB // 7),
    "a capacity in MiB": (breakdown(500, 10, 20, 300, 10, unit=MIB), T4, None, GIB // 2),
    "five numbers and a long name": (
        breakdown(380, 12, 20, 300, 38, unit=MIB, device="NVIDIA GeForce RTX 4090 Laptop"),
        T4,
    ),
    "a long name": ([QLORA, breakdown(*[1] * 5, device="NVIDIA GeForce RTX 4090 Laptop")], T4),
}


def live(weights, gradients, optimizer, activations, overhead=0):
    return dict(zip(PARTS, (weights, gradients, optimizer, activations, overhead), strict=True))


def step(size, events=400):
    """Return the timeline of a step: activations grow and shrink, and gradients follow."""
    half = events // 2
    found = [live(size * n // 9, 0, 0, 0) for n in range(1, 10)]  # the meter counts what there is
    up = [live(size, 0, 2 * size, 3 * size * n // half, size // 9) for n in range(1, half)]
    up += [live(size, 0, 2 * size, 4 * size, size)]  # the logits
    down = [
        live(size, size * n // half, 2 * size, 3 * size - 3 * size * n // half) for n in range(half)
    ]
    return [*found, *up, *down, live(size, size, 2 * size, 0), live(size, 0, 2 * size, 0)]


def powers(low, high):
    return [2**k for k in range(low, high)]


LLAMA = FinetuneConfig(model="llama-3.1-8b")
SMOL = FinetuneConfig(model="smollm2-135m", method="lora")
CARD = CARDS["T4"]
STACKS = {
    "a timeline in MiB": lambda: plot_timeline(step(5 * MIB)),
    "a timeline in GiB": lambda: plot_timeline(step(5 * GIB, 5000)),
    "a timeline of weights": lambda: plot_timeline(
        [live(9 * GIB, 0, 0, n * MIB) for n in range(99)]
    ),
    "a timeline with its peak first": lambda: plot_timeline(
        [live(1, 0, 0, 9 * MIB)] * 2 + step(MIB)
    ),
    "a timeline with its peak last": lambda: plot_timeline([*step(MIB), live(1, 0, 0, 9 * MIB)]),
    "a timeline of one event": lambda: plot_timeline([live(MIB, 0, 0, 0)]),
    "lengths": lambda: plot_memory_against(LLAMA, "max_length", powers(7, 14), CARD, T4),
    "all fits": lambda: plot_memory_against(LLAMA, "rank", [8, 16, 32], CARD, T4),
    "nothing fits": lambda: plot_memory_against(LLAMA, "max_length", powers(4, 8), CARD, GIB),
    "two values": lambda: plot_memory_against(LLAMA, "bits", [8, 4], CARD, T4),
    "many batches": lambda: plot_memory_against(SMOL, "batch_size", range(1, 65), CARD, T4),
    "a far capacity": lambda: plot_memory_against(SMOL, "batch_size", [1, 2], CARD, 80 * GIB),
    "eight ranks": lambda: plot_memory_against(SMOL, "rank", powers(0, 8), CARD),
    "uneven values": lambda: plot_memory_against(SMOL, "max_length", [1, 2, 3, 1000], CARD),
}


OTHERS = {
    "the longest texts": lambda: plot_longest(["embedded", "llama-3.1-8b"], CARD),
    "a training step": plot_training_step,
    "timelines": lambda: plot_timeline({"ours": step(MIB), "theirs": step(MIB, 60)}),
    "timelines in GiB that differ": lambda: plot_timeline(
        {"full": step(5 * GIB), "LoRA": step(GIB, 900), "QLoRA": step(GIB // 2, 7)}
    ),
    "timelines without gradients": lambda: plot_timeline(
        {"one": [live(9, 0, 0, n) for n in range(5)], "still": [live(9, 0, 0, 0)]}
    ),
}


def picture(name):
    return plot_memory(*PICTURES[name]) if name in PICTURES else (STACKS | OTHERS)[name]()


def texts(ax):
    """Return the texts that a picture shows, once it is drawn."""
    legend = ax.get_legend()
    ticks = [
        label
        for axis in (ax.xaxis, ax.yaxis)
        for place, label in zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
        if min(axis.get_view_interval()) <= place <= max(axis.get_view_interval())
    ]
    names = [ax.xaxis.label, ax.yaxis.label, *(legend.get_texts() if legend else [])]
    return [text for text in [*ax.texts, *ticks, *names] if text.get_text()]


def test_a_picture_is_a_card_that_glares_in_no_theme_and_has_round_corners():
    assert 0.8 < luminance(PAPER) < 0.9
    assert contrast("black", PAPER) >= 7
    pixels = imread(BytesIO(png(plot_memory(QLORA), dpi=50)))
    assert pixels[0, 0, 3] == 0
    assert pixels[5, 5] == pytest.approx([*to_rgb(PAPER), 1], abs=0.01)


def test_parts_are_stacked_in_order_and_add_up():
    bars = plot_memory(QLORA).patches
    assert [bar.get_facecolor()[:3] for bar in bars] == [to_rgb(COLORS[part]) for part in PARTS]
    assert [bar.get_width() * GIB for bar in bars] == pytest.approx(list(QLORA.parts.values()))
    assert bars[-1].get_x() + bars[-1].get_width() == pytest.approx(QLORA.allocated / GIB)


@pytest.mark.parametrize("name", [*PICTURES, *STACKS, *OTHERS])
def test_no_text_is_cut_or_covers_another(name):
    ax = picture(name)
    FigureCanvasAgg(ax.figure).draw()
    whole = ax.figure.bbox.padded(1)
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts(ax)]
    for text, box in boxes:
        assert whole.x0 <= box.x0, text
        assert box.x1 <= whole.x1, text
        assert whole.y0 <= box.y0, text
        assert box.y1 <= whole.y1, text
    for (one, box), (other, second) in itertools.combinations(boxes, 2):
        assert not box.overlaps(second), (one, other)


@pytest.mark.parametrize("name", [*PICTURES, *STACKS])
def test_every_part_is_named(name):
    shown = " ".join(text.get_text() for text in texts(picture(name)))
    assert [part for part in PARTS if part not in shown] == []


def test_what_is_beyond_the_capacity_is_hatched_and_named():
    ax = plot_memory(LORA, capacity=T4)
    (beyond,) = [bar for bar in ax.patches if bar.get_hatch()]
    assert beyond.get_x() == pytest.approx(T4 / GIB)
    assert beyond.get_width() == pytest.approx((LORA.allocated - T4) / GIB)
    assert "18.33 GiB\n3.77 over" in [text.get_text() for text in ax.texts]


def test_the_context_is_taken_from_the_capacity_so_that_text_and_picture_agree():
    ax = plot_memory(LORA, capacity=T4, context=GIB)
    assert ax.lines[0].get_xdata()[0] == pytest.approx(T4 / GIB - 1)
    shown = [text.get_text() for text in ax.texts]
    assert "capacity 14.56 GiB, less 1.00 GiB of CUDA context" in shown
    assert "18.33 GiB\n4.77 over" in shown
    assert ax.alt.endswith("Capacity: 14.56 GiB, less 1.00 GiB of CUDA context.")
    card = Card("T4", T4, (7, 5), context=GIB)
    assert " 4.77 GiB over" in judge_fit(LORA, card).reason


CAPACITIES = [(8, count, context) for count in (1, 2) for context in (0, 147_718_144)]


@pytest.mark.parametrize(
    ("shares", "count", "context"),
    [*CAPACITIES, pytest.param(60, 2, 147_718_144, marks=pytest.mark.extra)],
)
def test_the_line_of_the_capacity_runs_through_no_text(shares, count, context):
    for share in np.geomspace(0.051, 9, shares):
        bar = breakdown(*(share * 14.56 * part for part in (0.5, 0.02, 0.03, 0.4, 0.05)))
        ax = plot_memory([bar, replace(QLORA, moment=LATE)][:count], T4, context=context)
        renderer = FigureCanvasAgg(ax.figure).get_renderer()
        (line,) = ax.lines
        ax.figure.draw(renderer)
        at = ax.transData.transform((line.get_xdata()[0], 0))[0]
        for text in texts(ax):
            box = text.get_window_extent(renderer)
            assert box.x1 <= ax.figure.bbox.x1, (share, text.get_text())
            if box.y1 > ax.bbox.y0 and box.y0 < ax.bbox.y1:
                assert not box.x0 <= at <= box.x1, (share, text.get_text())


def test_the_axis_names_the_moment_that_all_bars_share_or_else_each_bar_names_its_own():
    loss, late = replace(QLORA, moment="the loss"), replace(FULL, moment=LATE)
    assert plot_memory([loss, loss]).get_xlabel() == "memory at the peak (the loss), GiB"
    ax = plot_memory({"qlora": loss, "full": late})
    assert ax.get_xlabel() == "memory at the peak, GiB"
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names == ["qlora\nthe loss", "full\nthe first layer's\nbackward pass"]
    assert ax.alt == (
        "qlora: 10.37 GiB (weights 5.20, activations 4.10), at the loss. "
        "full: 94.42 GiB (optimizer 59.80), at the first layer's backward pass."
    )


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_has_one_unit(name):
    ax = picture(name)
    shown = " ".join([ax.alt, *(text.get_text() for text in texts(ax))])
    assert len(set(re.findall("[GM]iB", shown))) == 1


def test_a_run_that_fits_has_no_hatch():
    assert not any(bar.get_hatch() for bar in plot_memory(QLORA, capacity=T4).patches)


def test_bars_are_named_after_their_source_or_their_key():
    labels = plot_memory([SMALL, MEASURED]).get_yticklabels()
    assert [label.get_text() for label in labels] == ["predicted", "measured,\nCPU"]
    labels = plot_memory({"full": FULL, "lora": LORA}).get_yticklabels()
    assert [label.get_text() for label in labels] == ["full", "lora"]


def test_the_axis_is_in_mib_below_one_gib():
    assert "MiB" in plot_memory(SMALL).get_xlabel()
    assert "GiB" in plot_memory(QLORA).get_xlabel()


def test_axes_that_are_given_are_used():
    ax = Figure().add_subplot()
    assert plot_memory(QLORA, capacity=T4, ax=ax) is ax
    assert plot_history([{"step": 1, "loss": 2.0}], ax=ax) is ax
    assert plot_timeline(step(MIB), ax=Figure().add_subplot()).get_lines()
    ax = Figure().add_subplot()
    assert plot_memory_against(SMOL, "rank", [4, 8], CARD, ax=ax) is ax


def test_no_breakdown_at_all_is_refused():
    with pytest.raises(CourseError, match="one breakdown or more"):
        plot_memory([])


def test_history_is_drawn_as_it_was_logged():
    history = [{"step": 1, "loss": 2.5}, {"step": 2, "eval_loss": 2.0}, {"step": 3, "loss": 1.5}]
    training, held_out = plot_history(history).lines
    assert training.get_xydata().tolist() == [[1, 2.5], [3, 1.5]]
    assert held_out.get_xydata().tolist() == [[2, 2.0]]


def test_losses_that_fall_to_less_than_a_tenth_have_a_logarithmic_axis_with_plain_numbers():
    ax = plot_history(falling(0.05))
    assert ax.get_yscale() == "log"
    shown = [text.get_text() for text in texts(ax)]
    assert {"0.1", "1"} <= set(shown)
    assert not any("$" in text for text in shown)
    assert plot_history(falling(0.5)).get_yscale() == "linear"
    ax = plot_history([*falling(0.05), {"step": 100, "loss": 0.0}])
    assert ax.get_yscale() == "linear"  # a logarithm knows no 0


@pytest.mark.parametrize("end", [0.05, 0.5])
def test_a_marked_step_has_a_line_with_its_name_and_the_words_say_so(end):
    ax = plot_history(falling(end), mark={30: "the manners are there", 90: "the end"})
    lines = [line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == ":"]
    assert lines == [30, 90]
    assert "step 30: the manners are there" in [text.get_text() for text in ax.texts]
    assert ax.alt.endswith("Step 30 is marked: the manners are there. Step 90 is marked: the end.")
    FigureCanvasAgg(ax.figure).draw()
    boxes = [text.get_window_extent() for text in texts(ax)]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert all(ax.figure.bbox.x0 <= box.x0 and box.x1 <= ax.figure.bbox.x1 for box in boxes)


def test_a_history_without_entries_gives_empty_axes():
    assert list(plot_history([]).lines) == []


def test_the_names_of_the_losses_do_not_cover_each_other():
    ax = plot_history([{"step": step, "loss": 1.0, "eval_loss": 1.001} for step in range(9)])
    FigureCanvasAgg(ax.figure).draw()
    one, other = (text.get_window_extent() for text in ax.texts)
    assert not one.overlaps(other)
    assert max(one.x1, other.x1) < ax.figure.bbox.x1


def falling(end):
    """Return a history whose training loss falls from 3 to an end in 100 steps."""
    losses = [end + (3 - end) * 0.9**step for step in range(100)]
    held_out = [{"step": step, "eval_loss": losses[step] + 0.3} for step in range(0, 100, 20)]
    return [{"step": step, "loss": loss} for step, loss in enumerate(losses)] + held_out


def areas(ax):
    """Return the lower and the upper edge of each part's area, as functions of x."""
    found = []
    for area, color in zip(ax.collections, COLORS.values(), strict=False):
        assert tuple(area.get_facecolor()[0][:3]) == to_rgb(color)
        (path,) = area.get_paths()
        x, y = path.vertices.T
        found.append((lambda at, x=x, y=y: y[x == at].min(), lambda at, x=x, y=y: y[x == at].max()))
    return found


def test_the_areas_of_a_sweep_are_what_predict_memory_says():
    ax = plot_memory_against(LLAMA, "max_length", [512, 1024, 2048], CARD)
    for value in (512, 1024, 2048):
        need = predict_memory(replace(LLAMA, max_length=value), CARD)
        edges = [edge(value) * GIB for pair in areas(ax) for edge in pair]
        sums = [0, *itertools.accumulate(need.parts.values())]
        assert edges == pytest.approx([x for pair in itertools.pairwise(sums) for x in pair])


def test_powers_of_two_get_a_logarithmic_axis_and_other_values_do_not():
    assert plot_memory_against(SMOL, "rank", [4, 8, 32], CARD).get_xscale() == "log"
    assert plot_memory_against(SMOL, "rank", [4, 8, 12], CARD).get_xscale() == "linear"


def test_a_line_marks_where_a_part_overtakes_another():
    lengths = powers(7, 14)
    ax = plot_memory_against(LLAMA, "max_length", lengths, CARD)
    (mark,) = [text for text in ax.texts if "overtake" in text.get_text()]
    assert mark.get_text() == "activations overtake weights"
    place = mark.xy[0]
    before, after = (
        predict_memory(replace(LLAMA, max_length=int(place) + n), CARD) for n in (-9, 9)
    )
    assert (before.largest_part, after.largest_part) == ("weights", "activations")
    assert "activations overtake weights" in ax.alt


def test_what_is_beyond_the_capacity_of_a_sweep_is_hatched():
    ax = STACKS["lengths"]()
    (beyond,) = [area for area in ax.collections if area.get_hatch()]
    lowest = min(path.vertices[:, 1].min() for path in beyond.get_paths())
    assert lowest == pytest.approx(T4 / GIB)
    assert "capacity 14.56 GiB" in [text.get_text() for text in ax.texts]
    assert "the values up to 1024 are below it" in ax.alt
    assert "all values are above it" in STACKS["nothing fits"]().alt


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("rank", [8]),
        ("rank", [8, 8]),
        ("method", ["lora", "full"]),
        ("size", [1, 2]),
        ("upcast", [0, 1]),
    ],
)
def test_a_sweep_needs_a_field_with_numbers_and_two_values(field, values):
    with pytest.raises(CourseError, match="whole numbers, at two values or more"):
        plot_memory_against(LLAMA, field, values, CARD)


def test_a_timeline_begins_with_the_step_and_stacks_the_parts():
    timeline = step(MIB, 20)
    begin = next(n for n, parts in enumerate(timeline) if parts["activations"]) - 1
    ax = plot_timeline(timeline)
    assert ax.get_xlim() == (0, len(timeline) - begin)
    tops = itertools.accumulate(timeline[begin + 7].values())  # which is above the one before
    assert [high(7) * MIB for _, high in areas(ax)] == pytest.approx(list(tops))


def test_the_peak_of_a_long_timeline_is_not_lost_and_it_is_drawn_fast():
    timeline = [live(5 * MIB, 0, 0, 1 + n % 7) for n in range(100_000)]
    timeline[70_123] = live(5 * MIB, 0, 0, 9 * MIB)
    start = time.perf_counter()
    ax = plot_timeline(timeline)
    ax._repr_png_()
    assert time.perf_counter() - start < 5
    (peak,) = ax.lines
    assert peak.get_ydata() == pytest.approx([14])
    assert peak.get_xdata() == pytest.approx([70_123], abs=200)
    assert "peak 14.00 MiB" in [text.get_text() for text in ax.texts]
    assert max(len(area.get_paths()[0].vertices) for area in ax.collections) < 5000


def test_a_timeline_names_the_first_gradient_and_the_last():
    ax = plot_timeline(step(MIB, 20))
    marks = {text.get_text(): text.xy[0] for text in ax.texts if isinstance(text, Annotation)}
    assert marks["first gradient"] == 1 + 9 + 1 + 1  # one before, nine up, the logits, one without
    assert marks["last gradient"] == marks["first gradient"] + 9


def test_timelines_are_lines_whose_gradients_lie_over_each_other_though_their_events_differ():
    few, many = step(MIB, 20), step(MIB, 400)
    lines = plot_timeline({"few": few, "many": many}).get_lines()
    few, many = (next(o for o in lines if o.get_label().startswith(n)) for n in ("few", "many"))
    assert max(few.get_ydata()) == pytest.approx(max(many.get_ydata()))
    assert few.get_xdata()[[0, -1]] == pytest.approx(many.get_xdata()[[0, -1]])
    at = few.get_xdata()[few.get_ydata().argmax()]
    assert at == pytest.approx(many.get_xdata()[many.get_ydata().argmax()], abs=2)
    assert len(few.get_xdata()) < len(many.get_xdata()) / 5
    styles = {(line.get_linewidth(), line.get_linestyle()) for line in (few, many)}
    assert len(styles) == 2  # they also differ without colour


def test_each_line_has_its_name_and_peak_and_the_highest_peak_is_labelled():
    ax = plot_timeline({"one": step(MIB), "two": step(3 * MIB)})
    highest = max(sum(moment.values()) for moment in step(MIB))
    peaks = {"one": highest, "two": 3 * highest}
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == [f"{name}, {size / MIB:.2f} MiB" for name, size in peaks.items()]
    labels = [text.get_text() for text in ax.texts if "MiB" in text.get_text()]
    assert labels == [f"peak {peaks['two'] / MIB:.2f} MiB"]
    assert all(f"{name}, {size / MIB:.2f} MiB at " in ax.alt for name, size in peaks.items())


@pytest.mark.parametrize("count", [0, 4])
def test_more_timelines_than_can_be_told_apart_are_refused(count):
    with pytest.raises(CourseError, match=f"{count} with names"):
        plot_timeline({str(n): step(MIB) for n in range(count)})


def test_no_timeline_at_all_is_refused():
    with pytest.raises(CourseError, match="Give MemoryMeter to finetune"):
        plot_timeline([])


def test_a_notebook_shows_the_axes_as_a_picture_with_words():
    ax = plot_memory(LORA, capacity=T4)
    data, metadata = ax._repr_png_()
    assert data.startswith(b"\x89PNG")
    assert "18.33 GiB (weights 14.96), 3.77 GiB over." in metadata["alt"]
    assert "Capacity: 14.56 GiB." in metadata["alt"]
    assert isinstance(ax, Picture)
    assert repr(ax) == "<Picture: memory at the peak, GiB>"


def test_drawing_leaves_the_global_settings_alone():
    before = dict(matplotlib.rcParams)
    plot_memory([SMALL, MEASURED])._repr_png_()
    assert dict(matplotlib.rcParams) == before
