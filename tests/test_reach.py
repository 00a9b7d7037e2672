import pytest

from ftcourse.config import FinetuneConfig
from ftcourse.hardware import CARDS, Card
from ftcourse.memory.fit import largest
from ftcourse.plots import plot_longest
from ftcourse.shape import load_shape

T4 = CARDS["T4"]


def written(ax):
    """Return the texts of the cells, row by row."""
    cells = [text for text in ax.texts if text.get_text()]
    return [text.get_text() for text in sorted(cells, key=lambda t: t.get_position()[::-1])]


def test_each_cell_says_the_longest_text_that_fits():
    ax = plot_longest(["llama-3.1-8b"], T4, batch_size=1)
    run = FinetuneConfig(model="llama-3.1-8b", method="qlora", batch_size=1)
    longest = largest(run, "max_length", T4.memory, T4)
    assert written(ax) == ["does not fit", "does not fit", f"{longest:,}"]
    assert ax.alt.endswith(
        f"lora: 0 of 1 fit, last none; qlora: 1 of 1 fit, last llama-3.1-8b {longest:,}."
    )


def test_a_text_is_no_longer_than_the_models_positions():
    positions = load_shape("embedded").max_position_embeddings
    assert positions
    ax = plot_longest(["embedded"], T4)
    assert written(ax) == [f"{positions:,} (all)"] * 3


def test_choices_of_the_run_change_the_answer():
    def longest(**fields):
        return int(written(plot_longest(["qwen2.5-0.5b"], T4, **fields))[1].replace(",", ""))

    assert longest(batch_size=8) < longest(batch_size=4)


@pytest.mark.parametrize("gib", [1, 16])
def test_the_picture_names_the_device(gib):
    ax = plot_longest(["smollm2-135m"], Card("CPU", gib * 2**30))
    assert ax.get_xlabel() == f"longest text on the CPU ({gib}.0 GiB usable), tokens"
