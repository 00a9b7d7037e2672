"""What all panels keep: labels with units, and an answer to every move, each over its range."""

import importlib
import inspect
import json
import re
from pathlib import Path

import ipywidgets
import pytest

import ftcourse.widgets
from ftcourse.lab import SETTINGS
from ftcourse.widgets.panel import Panel

MODULES = sorted(path.stem for path in Path(ftcourse.widgets.__file__).parent.glob("[a-z]*.py"))
MAKERS = {
    name: maker
    for module in MODULES
    for name, maker in vars(importlib.import_module(f"ftcourse.widgets.{module}")).items()
    if name.endswith("_panel") and inspect.get_annotations(maker).get("return") is Panel
}
del MAKERS["build_panel"]  # makes two of the others
# Numbers without a unit: a name that is the unit, a pure number, a place in an order.
BARE = {"bits", "rank", "alpha", "learning rate", "layer"}
SILENT = {"rag_panel": {"order", "question"}}  # only the button asks the model
# Nothing changes at the start, and a sentence says so: two 4-bit formats have the same bytes, and
# some needs do not turn the recommendation.
SILENT |= {"great_panel": {"quant_type"}, "which_one_panel": {"letters", "card"}}
SILENT |= {"scale_panel": {"loss"}}  # here the peak is the last exchange of gradients
# The picture moves by less than its numbers show.
ALIKE = {("great_panel", "attention"), ("great_panel", "gradient_accumulation_steps")}


@pytest.fixture(params=MAKERS)
def panel(request):
    made = MAKERS[request.param]()
    yield request.param, made
    made.buttons["reset"].click()


def options(control):
    """Return what a learner can choose, as pairs of the label that is shown and the value."""
    if hasattr(control, "options"):
        pairs = (each if isinstance(each, tuple) else (str(each), each) for each in control.options)
        return list(pairs)
    if isinstance(control, ipywidgets.Checkbox):
        return [("", True), ("", False)]
    return [(str(n), n) for n in {control.min, (control.min + control.max) // 3, control.max}]


def test_every_lesson_s_panel_is_tried_here():
    notebooks = (Path(__file__).parent.parent / "notebooks").glob("*.ipynb")
    used = {re.search(r"(\w+_panel)\(", path.read_text(encoding="utf-8"))[1] for path in notebooks}
    assert used == set(MAKERS)


def test_every_control_has_a_label_with_the_unit_of_its_numbers(panel):
    _, panel = panel
    for control in panel.controls.values():
        label, shown = control.description, options(control)
        assert label
        assert len(label) <= 22  # more is cut
        numbers = [text for text, value in shown if isinstance(value, int | float) and text]
        bare = [text for text in numbers if re.fullmatch(r"[\d.e-]+", text)]
        assert not bare or label in BARE or re.search(r" \(\w+\)$", label), label


@pytest.mark.extra
def test_each_value_of_each_control_is_answered_in_the_text_or_the_picture(panel):
    name, panel = panel
    for what, control in panel.controls.items():
        start, seen = control.value, set()
        for _, value in options(control):
            before = panel._drawn[:2]
            control.value = value
            text, picture, _ = panel._drawn
            seen.add((text, picture))
            assert "Traceback" not in picture
            if picture != before[1] and picture and before[1] and (name, what) not in ALIKE:
                alts = [re.search('alt="([^"]*)"', each)[1] for each in (picture, before[1])]
                assert alts[0] != alts[1] or text != before[0], f"{what}: the same words"
            if what in SILENT.get(name, ()) and value != start:
                assert re.search("text and picture stay|nothing changes|still ", panel.moved)
        assert (len(seen) == 1) == (what in SILENT.get(name, ())), what
        control.value = start


def test_no_single_key_of_the_notebook_acts_while_a_menu_has_the_keyboard():
    lab = pytest.importorskip("jupyterlab.commands")
    folder = Path(lab.get_app_dir()) / "schemas" / "@jupyterlab" / "notebook-extension"
    schema = json.loads((folder / "tracker.json").read_text(encoding="utf-8"))
    with_more = re.compile("Ctrl|Accel|Alt|Shift")
    single = {
        tuple(each["keys"])
        for each in schema["jupyter.lab.shortcuts"]
        if each["selector"].endswith(" :focus") and each["keys"]
        if not with_more.search(" ".join(each["keys"]))
    }
    ours = json.loads((SETTINGS / "labconfig/default_setting_overrides.json").read_bytes())
    shortcuts = ours["@jupyterlab/shortcuts-extension:shortcuts"]["shortcuts"]
    off = {tuple(each["keys"]) for each in shortcuts if each.get("disabled")}
    on = {tuple(each["keys"]) for each in shortcuts if each["selector"].endswith(":not(select)")}
    assert off == on == single
    assert ("ArrowDown",) in single
