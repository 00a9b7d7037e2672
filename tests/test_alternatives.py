import inspect
import re
from functools import cache
from importlib import import_module
from pathlib import Path

import nbformat
import pytest
from pictures import PICTURES

ROOT = Path(__file__).parent.parent
LONGEST = 350  # characters: half a minute of a screen reader
DIAGRAMS = {"a training step", "places", "the way of a file", "a lookup"}  # they show no numbers


@cache
def words_of(name):
    return PICTURES[name]().alt


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_says_what_is_seen_in_few_words_with_its_numbers(name):
    words = words_of(name)
    assert 40 < len(words) <= LONGEST, (len(words), words)
    assert words == " ".join(words.split())
    assert words[-1] == "."
    assert name in DIAGRAMS or re.search(r"\d", words), words


def test_every_function_that_draws_is_among_the_pictures():
    code = inspect.getsource(import_module("pictures"))
    plots = (ROOT / "ftcourse/plots").glob("*.py")
    drawing = re.compile(r"(?m)^def (plot_\w+)")
    functions = {f for file in plots for f in drawing.findall(file.read_text(encoding="utf-8"))}
    assert {name for name in functions if f".{name}" not in code} == set()


@pytest.mark.parametrize(
    ("name", "finding"),
    {
        "bars that fit and do not": "full: 119.71 GiB (optimizer 59.83, weights 29.92, ",
        "one bar": "(weights 5.47, activations 3.47), below. All at the loss. Capacity: ",
        "longer texts": "At 4096: ",
        "a step": "At the peak, after",
        "three steps": "Their peaks: full, ",
        "losses": "3.22 at step 29, lowest, 1.00, at step 9.",
        "longest texts": "qlora: 6 of 6 fit, last llama-3.1-8b ",
        "golf": "of which 1 count, the best with ",
        "many levels": " of 255 levels used, the fullest, ",
        "scores": "Answered right. highest ",
        "ability by bits": "normal levels: 0% at 2, 95% at 9, across a half at 4",
        "ability by error": "integers: 95% at ",
        "sizes in formats": "NF4: 8 B, 3.8 GiB: 4 GiB.",
        "facts over ranks": "LoRA at rank 16 is nearest.",
        "rates": "Lowest validation loss and its rate, the best method first: ",
        "a rate": "Marked: rate 0.01, loss 2.23.",
        "effects": "pages: in voice: highest 4 letters + 8 branded answers about pages 98%, lowest",
        "shares": "false value: highest beside: statements 98%, lowest ",
        "arms": "right: RAG + LoRA 96 %. ",
        "voice over ranks": "voice. LoRA: 0.137, 0.097",
        "several GPUs": "From 1 to 8 GPUs one of them goes from ",
        "computing and sending": "Sending takes longer in 3 of 9 rows. full, ddp computes 2.1 s",
        "healing": "int4 tensor: 57 before, [228, 226, 221] after.",
    }.items(),
)
def test_the_words_hold_the_finding(name, finding):
    assert finding in words_of(name)


def test_a_decision_is_said_first_and_then_what_is_dropped():
    assert words_of("a decision").startswith("Recommended: RAG. Dropped: prompt, LoRA. The best: ")


@pytest.mark.parametrize("path", sorted(ROOT.glob("notebooks/*.ipynb")), ids=lambda p: p.stem)
def test_stored_pictures_have_words_of_that_length(path):
    found = {}
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                found[cell.id] = len(output.metadata.get("image/png", {}).get("alt", ""))
    assert found
    assert {cell: size for cell, size in found.items() if not 40 < size <= LONGEST} == {}
