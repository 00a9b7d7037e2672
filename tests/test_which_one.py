"""Lesson 08's table, pictures and panel, on made-up lines and on the recorded ones."""

from itertools import pairwise

import pytest
from made_up_arms import VALUES, lines, write
from matplotlib.colors import to_hex

from ftcourse.errors import CourseError
from ftcourse.evaluate import Score
from ftcourse.needs import Needs
from ftcourse.plots import png
from ftcourse.plots.which_one import GONE, SHOWN, plot_arms, plot_trade
from ftcourse.sweeps import Mean
from ftcourse.which_one import ARMS, COLUMNS, interval_of, load_table
from ftcourse.widgets.which_one import which_one_panel


@pytest.fixture
def table(tmp_path):
    return load_table(write(tmp_path, lines()))


def made(tmp_path, **changes):
    return load_table(write(tmp_path, lines(**changes)))


def test_columns_have_a_unit_a_direction_and_a_sentence():
    assert len(COLUMNS) == len(VALUES) == 26
    assert {column.unit for column in COLUMNS.values()} == {
        *("%", "nats a token", "tokens", "ms", "s", "bytes")
    }
    assert [n for n, c in COLUMNS.items() if not c.better] == ["changed fact, before"]
    assert {c.better for c in COLUMNS.values()} == {"more", "less", ""}
    assert all(c.words.endswith(".") and len(c.words) > 20 for c in COLUMNS.values())
    bad = ("leak", "poison", "general", "tokens", "ms", "training", "peak", "bytes", "seconds")
    assert {n for n, c in COLUMNS.items() if c.better == "less"} == {
        n for n in COLUMNS if n.startswith(bad)
    }


def test_a_cell_knows_its_value_its_interval_and_what_stands_behind_it(table):
    leak = table["RAG"]["leak"]
    assert (leak.value, leak.count, leak.seeds, leak.why) == (0, 192, 1, "")
    assert (leak.low, leak.high) == Score(0, 192).interval
    assert leak.text == "0 of 192"
    assert repr(leak) == "0 of 192 (95 % interval 0 % to 2 %, n 192, seeds 1)"
    trained = table["LoRA"]["facts in voice"]
    assert (trained.text, trained.seeds) == ("99 %", 3)


def test_the_wider_of_two_intervals_is_shown(tmp_path):
    alike = made(tmp_path)["LoRA"]["leak"]
    assert (alike.low, alike.high) == pytest.approx(Score(177, 192).interval)
    apart = made(tmp_path, **{"LoRA/leak": [40, 50, 60]})["LoRA"]["leak"]
    assert (apart.low, apart.high) == pytest.approx(Mean(apart.values).interval)
    assert apart.high - apart.low > 2 * 0.14  # Wilson's with 192 questions is narrower
    assert interval_of((0.0, 0.5, 1.0), 10) == (0, 1)  # a share stays a share


def test_a_quantity_has_an_interval_only_over_seeds(table, tmp_path):
    once = table["RAG"]["ms a question"]
    assert (once.low, once.high, once.ends, once.text) == (None, None, "none", "60 ms")
    three = made(tmp_path, **{"LoRA/training seconds": [170, 180, 190]})["LoRA"]["training seconds"]
    assert (three.low, three.high) == pytest.approx(Mean((170, 180, 190)).interval)
    assert (three.text, three.ends) == ("180 s", "155 s to 205 s")


def test_a_cell_that_does_not_exist_says_why(table):
    cell = table["prompt"]["training seconds"]
    assert (cell.value, cell.low, cell.text, cell.seeds) == (None, None, "-", 0)
    assert repr(cell) == "none: nothing is trained"


def test_bytes_have_a_unit_that_suits_their_size(table):
    stored = [table[arm]["bytes stored"].text for arm in ("good prompt", "RAG", "LoRA")]
    assert stored == ["0.2 KiB", "0.86 MiB", "3.15 MiB"]


def test_lines_of_one_seed_are_put_together(tmp_path):
    whole = lines(["LoRA"])
    for line in whole:
        del line["one fact learned"]
    changes = [
        {"task": "one fact", "arm": "LoRA", "seed": seed, "one fact learned": [fact < 4 + seed, 1]}
        for seed in range(3)
        for fact in range(6)
    ]
    cell = load_table(write(tmp_path, whole + changes))["LoRA"]["one fact learned"]
    assert (cell.count, cell.values) == (6, (4 / 6, 5 / 6, 1))


def test_tries_on_validation_are_no_part_of_the_table(tmp_path):
    tries = [{"task": "tune", "arm": "RAG", "seed": 0, "facts in voice": 60, "n": 60}]
    assert load_table(write(tmp_path, tries + lines()))["RAG"]["facts in voice"].value == 0


def test_an_own_file_may_have_fewer_arms_and_names_its_model(tmp_path):
    own = load_table(write(tmp_path, [x | {"model": "mine"} for x in lines(["QLoRA", "RAG"])]))
    assert ([*own], own.model) == (["RAG", "QLoRA"], "mine")
    with pytest.raises(CourseError, match="The table has RAG; QLoRA"):
        own["LoRA"]


def without(column, arm="LoRA"):
    made = lines()
    for line in made:
        if line["arm"] == arm:
            del line[column]
    return made


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ([{"task": "measure", "arm": "Lora"}], "'Lora'"),
        (without("leak"), "LoRA without 'leak'"),
        ([{"task": "tune", "arm": "RAG"}], "only tries on validation"),
        ([], "only tries on validation"),
        ([3], "'int' object"),
        ([*lines(), {"task": "measure"}], "'None'"),
        ([*lines(["RAG"]), {"arm": "RAG", "seed": 1, "leak": "no store"}], "'no store'"),
        ([*lines(["RAG"]), {"arm": "RAG", "seed": 1, "leak": [1, 7]}], "[1, 7]"),
        ([*lines(["RAG"]), {"arm": "RAG", "seed": 1, "leak": [193, 192]}], "[193, 192]"),
        ([*lines(["RAG"]), {"arm": "RAG", "seed": 1, "leak": [0, 0]}], "[0, 0]"),
        ([*lines(["RAG"]), {"arm": "RAG", "seed": 1, "leak": 3}], "3"),
        ([*lines(["RAG"]), {"arm": "RAG", "seed": 1, "ms a question": float("nan")}], "nan"),
        ([*lines(["RAG"]), {"arm": "RAG", "seed": 1, "ms a question": -3}], "-3"),
    ],
)
def test_a_file_that_is_not_whole_is_refused_in_three_parts(tmp_path, wrong, said):
    with pytest.raises(CourseError) as error:
        load_table(write(tmp_path, wrong))
    assert said in error.value.got
    assert "six_arms.py" in error.value.do


def test_a_file_that_is_not_json_or_not_there_is_refused(tmp_path):
    (tmp_path / "x.jsonl").write_text("hello", encoding="utf-8")
    for name in ("x.jsonl", "none.jsonl"):
        with pytest.raises(CourseError, match="holds a JSON object in each line"):
            load_table(tmp_path / name)


def test_an_unknown_column_or_arm_is_refused_with_those_there_are(table):
    for ask in (lambda: table["RAG"]["leaks"], lambda: table.rows("leaks"), lambda: COLUMNS["x"]):
        with pytest.raises(CourseError, match="leak, secrecy prompt"):
            ask()
    with pytest.raises(CourseError, match="good prompt"):
        table["Rag"]


def test_rows_say_all_that_an_engineer_doubts_in_80_characters(table):
    text = repr(table.rows(["leak", "poison believed, plain"]))
    assert max(map(len, text.splitlines())) <= 80
    assert "  LoRA                92 %   88 % to 95 %              192      3\n" in text
    assert "  LoRA        reads no page when it is asked" in text
    assert "leak (less is better): The public asks" in text
    assert max(map(len, repr(table).splitlines())) <= 80
    assert repr(table.rows("leak")) == text.split("\n\n")[0]
    assert [*table.rows("leak")] == [*ARMS]


def test_a_long_reason_is_wrapped(tmp_path):
    long = "reads no page; " * 12
    text = repr(made(tmp_path, **{"LoRA/leak": long}).rows("leak"))
    assert max(map(len, text.splitlines())) <= 80
    assert " ".join(text.split()).count("reads no page;") == 12


# --- the pictures ------------------------------------------------------------------------------


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_the_picture_says_who_is_first_in_what(table):
    ax = plot_arms(table)
    assert "in voice: QLoRA 100 %." in ax.alt
    assert "keeps secrets: prompt 100 %." in ax.alt  # 0 of 192 leaks, turned
    assert "up to date: RAG 90 %." in ax.alt
    assert {*SHOWN} <= {*texts(ax)}


def test_each_cell_shows_its_number_or_a_dash_with_a_footnote(table):
    shown = texts(plot_arms(table))
    assert shown.count("- (1)") == 2  # neither prompt can be told of a change
    assert "1: cannot be told\n2: reads no page" in " ".join(shown)
    assert "8 %" in shown  # secrets kept where 92 % leak
    assert len([x for x in shown if x.startswith("- (")]) + len(
        [x for x in shown if x.endswith((" %", " s")) or " of " in x]
    ) == len(SHOWN) * len(ARMS)


def test_the_best_and_all_that_may_be_as_good_are_bold(table):
    ax = plot_arms(table, ["right, known wording"])
    bold = [text.get_text() for text in ax.texts if text.get_weight() == "bold"]
    assert bold == ["92 %", "92 %", "91 %", "90 %"]


def test_dropped_arms_are_grey_and_say_so(table):
    ax = plot_arms(table, ["leak"], best="RAG", dropped=["LoRA"])
    assert "LoRA\n✗ dropped" in texts(ax)
    assert "RAG\n✓ recommended" in texts(ax)
    assert "no leak" in texts(ax)
    bars = ax.collections[1].get_colors()  # behind them are the tracks
    assert [to_hex(ink).upper() for ink in bars].count(GONE) == 1


@pytest.mark.parametrize("share", [0, 100])
def test_pictures_stand_where_all_are_alike(tmp_path, share):
    alike = {f"{arm}/{c}": share for arm in ARMS for c in COLUMNS if COLUMNS[c].unit == "%"}
    alike |= {f"{arm}/ms a question": 0 for arm in ARMS}
    table = made(tmp_path, **alike)
    assert png(plot_arms(table, [*COLUMNS]), 50)
    for x in ("leak", "ms a question", "training seconds"):
        assert png(plot_trade(table, x, "right, known wording"), 50)


def test_two_columns_against_each_other_name_every_arm(table):
    ax = plot_trade(table, "seconds, forty facts", "right and in voice")
    assert texts(ax) == ["LoRA", "QLoRA", "RAG + LoRA", "RAG"]  # from above
    assert ax.get_title(loc="left") == "They have no such thing: prompt, good prompt."
    assert "RAG + LoRA: 0.2 s and 89 %." in ax.alt
    assert ax.get_xscale() == "symlog"
    places = [text.xyann[1] for text in ax.texts]
    assert all(a - b > 0.09 for a, b in pairwise(places))


# --- the panel ---------------------------------------------------------------------------------


@pytest.fixture
def panel(table):
    return which_one_panel(table)


def test_the_panel_has_a_control_for_each_need_and_a_card(panel):
    assert {*panel.controls} == {*vars(Needs()), "card"}
    assert panel.text.startswith("RAG, before RAG + LoRA: by training seconds\n")
    assert all(panel._words[name] for name in panel.controls)


def test_a_need_changes_the_answer_and_the_panel_says_so(panel):
    panel.controls["voice"].value = "must"
    assert panel.text.startswith("RAG + LoRA, before LoRA: by right, new wording\n")
    assert panel.moved.startswith("voice any to must: RAG + LoRA instead of RAG.")
    shown = panel._view.value
    assert "dropped: RAG: facts in voice: 0 of 179, needed 80 %" in shown
    assert "right, new wording: 62 % against 4 %" in shown
    assert 'alt="Recommended: RAG + LoRA. Dropped: ' in shown


def test_what_is_close_and_what_is_thin_stands_below_the_picture(panel):
    panel.controls["changes"].value, panel.controls["facts"].value = "daily", "thousands"
    below = panel._view.value.partition("<img")[2]
    assert "close: LoRA is dropped" in below
    assert "thin: the table asks about 179 facts" in below


def test_the_panel_recommends_nothing_that_the_card_cannot_hold(panel):
    panel.controls["model"].value = "llama-3.1-8b"
    assert panel.text.startswith("QLoRA\n")
    panel.controls["card"].value = "A100 80GB"
    assert panel.text.startswith("RAG, before")
    panel.controls["hours"].value = 0
    assert "dropped: RAG + LoRA: training seconds: 150 s, allowed 0 s" in panel._view.value


def test_the_last_choice_of_every_control_is_drawn(panel):
    for name, control in panel.controls.items():
        if name not in ("model", "card"):
            choices = [value for _, value in control._options_full]
            assert "Error" not in panel.text_with(**{name: choices[-1]})
            assert choices[0] != choices[-1]


def test_every_menu_says_what_is_chosen(panel):
    """A menu shows nothing for None."""
    assert [name for name, control in panel.controls.items() if control.value is None] == []
    assert panel.controls["latency"].label == "no limit"


def test_the_panel_has_no_output_widget_and_a_fixed_repr(panel):
    assert repr(panel) == "<Panel: Which one should I use? Run this cell to move its controls.>"
