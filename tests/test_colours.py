from collections import Counter
from functools import cache

import numpy as np
import pytest
from colours import EYES, contrast, least_distance
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D
from matplotlib.text import Text
from pictures import PICTURES

from ftcourse.memory import PARTS
from ftcourse.plots import (
    adapters,
    finetune,
    golf,
    lora,
    qlora,
    quantize,
    rag,
    recorded,
    scale,
    timeline,
    which_one,
)
from ftcourse.plots.parts import COLORS, INK
from ftcourse.plots.picture import DARK, INK_OF_LOSS, PAPER

# Colours that stand for different things in one picture.
TOGETHER = {
    "parts of memory": COLORS.values(),
    "losses": INK_OF_LOSS.values(),
    "timelines": [line["color"] for line in timeline._LINES],
    "recorded runs": [mark["color"] for mark in recorded._MARKERS],
    "ranks": lora.INKS,
    "matrices": [lora.FROZEN, lora.TRAINED],
    "ways to round": quantize.INK_OF_SCHEME.values(),
    "bits": quantize._PARTS.values(),
    "a level and the next": [quantize._NEAR, quantize._NEXT],
    "methods": [adapters.INK, adapters.BEST, adapters.OTHERS],
    "mixtures": finetune.BARS,
    "kept and cut": [finetune.KEPT, finetune.CUT],
    "a step of QLoRA": [qlora.FORWARD, qlora.BACK],
    "healing": [qlora.BACK, qlora.HEALED, qlora.STORED],
    "searches": rag.SERIES,
    "a lookup": [rag.STORE, rag.SECRET, rag.GOOD],
    "arms": which_one.INKS,
    "best, other, dropped": [which_one.BEST, which_one.OTHER, which_one.GONE],
    "what a card holds, borrows, sends": [scale.HELD, scale.LENT, scale.SENT],
    "golf": [golf.THEIRS, golf.YOURS, golf.LINES],
}
APART = 15  # in CIELAB, as large areas side by side: 2.3 is the least that one notices
FAINT = {adapters.OTHERS, qlora.STORED, "#ffffff", "#8a867a"}  # the background of the story


@pytest.mark.parametrize("eyes", EYES)
@pytest.mark.parametrize("name", TOGETHER)
def test_colours_of_one_picture_stay_apart_for_colour_blind_eyes(name, eyes):
    assert least_distance(TOGETHER[name], eyes) > APART


def test_the_distance_finds_colours_that_some_eyes_cannot_tell_apart():
    assert least_distance(["#999999", "#CC79A7"], "all cones") > APART  # what the bars had
    assert least_distance(["#999999", "#CC79A7"], "deuteranopia") < APART
    assert contrast("white", "black") == pytest.approx(21)


@pytest.mark.parametrize("part", PARTS)
def test_text_on_a_part_has_a_contrast_of_4_5(part):
    assert contrast(COLORS[part], INK[part]) >= 4.5


@pytest.mark.parametrize("color", DARK)
def test_the_dark_twin_of_a_colour_can_be_read_and_is_still_alike(color):
    assert contrast(DARK[color], PAPER) >= 4.5
    assert least_distance([color, DARK[color]], "all cones") < 40


@cache
def drawn(name):
    """Return a picture's figure, and its texts, each with its box and what lies below it."""
    figure = PICTURES[name]().figure
    figure.dpi = 60
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    texts = [t for t in figure.findobj(Text) if t.get_text().strip() and t.get_visible()]
    boxes = {text: text.get_window_extent(canvas.get_renderer()) for text in texts}
    for text in texts:
        text.set_alpha(0)
    canvas.draw()
    return figure, boxes, np.asarray(canvas.buffer_rgba())[::-1]


@pytest.mark.parametrize("name", PICTURES)
def test_each_text_of_a_picture_has_a_contrast_of_4_5_to_what_is_below_it(name):
    _, boxes, pixels = drawn(name)
    found = {}
    for text, box in boxes.items():
        x, y = (slice(max(0, int(low)), int(high)) for low, high in (box.intervalx, box.intervaly))
        below = pixels[y, x].reshape(-1, 4)
        if len(below) and np.median(below[:, 3]) > 250:
            most = Counter(map(tuple, below[:, :3])).most_common(1)[0][0]
            found[text.get_text()] = contrast(text.get_color(), np.array(most) / 255)
    assert len(found) > 3
    assert {text: ratio for text, ratio in found.items() if ratio < 4.5} == {}


def edges(line):
    """Return the colours in which a line and its markers are drawn."""
    marked = line.get_marker() not in ("None", "", None)
    drawn = line.get_linestyle() not in ("None", "", None) and len(line.get_xdata()) > 1
    return [line.get_color()] * drawn + [line.get_markeredgecolor()] * marked


@pytest.mark.parametrize("name", PICTURES)
def test_each_line_and_each_marker_has_an_edge_of_3_to_1(name):
    figure, _, _ = drawn(name)
    inside = [ax for top in figure.axes for ax in (top, *top.child_axes)]
    lines = [line for ax in inside for line in ax.findobj(Line2D) if line in ax.lines]
    colors = {to_hex(color) for line in lines for color in edges(line)}
    assert {c for c in colors if contrast(c, PAPER) < 3} - {c.lower() for c in FAINT} == set()
