from matplotlib.colors import to_hex
from matplotlib.patches import FancyBboxPatch

from ftcourse.memory import PARTS
from ftcourse.plots import plot_training_step
from ftcourse.plots.parts import COLORS


def test_the_five_parts_have_their_colours_and_every_other_box_is_white():
    ax = plot_training_step()
    boxes = {
        text.get_text(): to_hex(box.get_facecolor())
        for box in ax.patches
        if isinstance(box, FancyBboxPatch)
        for text in ax.texts
        if box.get_bbox().contains(*text.get_position())
    }
    assert {part: boxes.pop(part) for part in PARTS} == {p: c.lower() for p, c in COLORS.items()}
    assert set(boxes.values()) == {"#ffffff"}


def test_the_words_tell_the_whole_round():
    alt = plot_training_step().alt
    for word in ("forward", "backward", "activations", "gradients", "optimizer", "Overhead"):
        assert word in alt
