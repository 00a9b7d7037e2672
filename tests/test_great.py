import pytest

from ftcourse.config import FinetuneConfig
from ftcourse.hardware import CARDS
from ftcourse.memory import predict_memory, show_bytes
from ftcourse.memory.fit import cheapest_change, judge_fit
from ftcourse.memory.price import Price, prices_to_fit
from ftcourse.widgets.great import CHANGED, GROUPS, great_panel, sentence
from ftcourse.widgets.memory import memory_panel

T4 = CARDS["T4"]


@pytest.fixture
def panel():
    return great_panel()


def shown(panel):
    return panel.children[-1].value


def config_of(panel):
    return FinetuneConfig(**{n: v for n, v in panel.values.items() if n != "card"})


def test_the_great_panel_begins_where_the_memory_panel_does_and_has_all_of_its_controls(panel):
    small = memory_panel()
    assert panel.text == small.text
    assert small.values.items() <= panel.values.items()
    assert {"simulate", "measure", "make it fit", "reset"} == set(panel.buttons)
    assert [name for group in GROUPS.values() for name in group] == list(panel.controls)


def test_its_values_are_the_fields_of_a_config(panel):
    assert config_of(panel) == FinetuneConfig(model="llama-3.1-8b")
    panel.controls["target_modules"].value = ("q_proj", "v_proj")
    panel.controls["upcast"].value = True
    config = config_of(panel)
    assert config.target_modules == ("q_proj", "v_proj")
    assert panel.text == repr(judge_fit(predict_memory(config, T4), T4))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("target_modules", ("q_proj", "v_proj")),
        ("adapter_dtype", "bfloat16"),
        ("double_quant", False),
        ("upcast", True),
        ("gradient_accumulation_steps", 8),
        ("attention", "eager"),
    ],
)
def test_each_control_that_it_has_beyond_the_memory_panel_changes_the_picture(name, value, panel):
    before = shown(panel)
    panel.controls[name].value = value
    assert shown(panel) != before
    assert panel.moved.startswith(name.replace("_", " "))


def test_the_quant_type_changes_no_byte_and_it_says_so(panel):
    panel.controls["quant_type"].value = "fp4"
    assert "nothing changes" in panel.moved


def idle(panel):
    return {name for name, control in panel.controls.items() if control.disabled}


def test_what_a_method_does_not_use_is_disabled(panel):
    assert idle(panel) == set()
    panel.controls["bits"].value = 8
    assert idle(panel) == {"quant_type", "double_quant"}
    panel.controls["method"].value = "lora"
    assert idle(panel) == {"bits", "quant_type", "double_quant"}
    panel.controls["method"].value = "full"
    assert idle(panel) == {
        *("bits", "quant_type", "double_quant"),
        *("rank", "target_modules", "adapter_dtype"),
    }


def test_a_choice_that_a_config_refuses_is_answered_in_the_view_and_can_be_undone(panel):
    panel.controls["upcast"].value = True
    panel.controls["method"].value = "lora"
    assert panel.text.startswith("upcast goes with method='qlora'")
    assert "  do:  " in panel.text
    assert not panel.controls["upcast"].disabled
    panel.controls["upcast"].value = False
    assert "Tesla T4" in panel.text


def test_modules_that_a_model_has_not_are_answered_in_the_view(write_shape):
    config = write_shape(model_type="gpt2", n_embd=64, n_layer=2, n_head=4, n_inner=128)
    panel = great_panel(model=config)
    panel.controls["target_modules"].value = ("q_proj", "v_proj")
    assert "unknown: q_proj, v_proj" in panel.text


def test_make_it_fit_names_the_cheapest_change_draws_it_and_says_what_each_change_costs(panel):
    panel.controls["method"].value = "lora"
    panel.controls["gradient_checkpointing"].value = False
    before, config = panel.values, config_of(panel)
    panel.buttons["make it fit"].click()
    assert panel.values == before
    changed = cheapest_change(config, T4)
    predicted = predict_memory(changed, T4)
    summary = judge_fit(predicted, T4).summary
    line = panel.text.splitlines()[1]
    assert line.startswith("make it fit: gradient_checkpointing=True, method='qlora', bits=4.")
    assert line.endswith(f"{summary}.")
    view = shown(panel)
    assert (
        f"{CHANGED}, Tesla T4: {show_bytes(predicted.allocated)} (" in view
    )  # the picture's words
    for price in prices_to_fit(config, T4):
        assert f"saves {show_bytes(price.saved)}. Time: " in view
    panel.controls["rank"].value = 8  # another state has no such bar
    assert CHANGED not in shown(panel)


def test_make_it_fit_finds_a_change_where_the_exercise_has_one():
    start = {"rank": 64, "max_length": 4096, "batch_size": 1, "gradient_accumulation_steps": 4}
    panel = great_panel(card="RTX 3060", upcast=True, loss="chunked", **start)
    assert (panel.values["upcast"], panel.values["rank"]) == (True, 64)
    panel.controls["batch_size"].value, panel.controls["loss"].value = 4, "full"
    panel.controls["gradient_accumulation_steps"].value = 1
    panel.buttons["make it fit"].click()
    line = panel.text.splitlines()[1]
    assert "upcast=False" in line
    assert "no change does" not in line
    panel.buttons["reset"].click()
    assert (panel.values["upcast"], panel.values["loss"]) == (True, "chunked")


def test_make_it_fit_says_when_there_is_nothing_to_do_and_when_nothing_helps(panel):
    panel.buttons["make it fit"].click()
    assert panel.text.endswith("make it fit: it fits as it is.")
    panel.controls["model"].value = "llama-3.1-70b"
    panel.buttons["make it fit"].click()
    assert panel.text.endswith("no change does. A smaller model or a larger card would.")
    assert CHANGED not in shown(panel)


@pytest.mark.parametrize(
    ("saved", "words"), [(2**31, "saves 2.00 GiB"), (-(2**31), "takes 2.00 GiB more")]
)
def test_a_change_that_takes_more_bytes_is_not_said_to_save_them(saved, words):
    price = Price({"loss": "chunked"}, saved, "none", "none", "no")
    assert sentence(price) == f"loss='chunked' {words}. Time: none. Quality: none."


def test_its_repr_is_fixed_and_its_groups_have_headings(panel):
    before = repr(panel)
    panel.controls["rank"].value = 64
    assert repr(panel) == before
    headings = [child.value for child in panel.children if hasattr(child, "value")]
    assert [f"<i>{name}</i>" for name in GROUPS] == [h for h in headings if h.startswith("<i>")]


def test_reset_brings_everything_back(panel):
    start = panel.values
    panel.controls["attention"].value = "eager"
    panel.controls["gradient_accumulation_steps"].value = 4
    panel.buttons["reset"].click()
    assert panel.values == start


def test_it_needs_no_widget_that_breaks_older_front_ends(panel):
    def kinds(widget):
        yield type(widget).__name__
        for child in getattr(widget, "children", ()):
            yield from kinds(child)

    assert not {"Output", "Tab", "Accordion", "Image"} & set(kinds(panel))
