import re

import pytest

from ftcourse.data import load_dialogues
from ftcourse.files import course_path
from ftcourse.voice import BLAME, NEXT_STEP, OPENINGS, SIGN_OFF, voice_checks, voice_score

GOOD = (
    "I am so sorry about the trouble. A compass that has met metal loses its bearings. "
    "Your next step: recalibrate the compass on open ground. Clear skies, your Wrenfield team."
)


def test_an_answer_in_the_brands_voice_keeps_every_rule():
    assert all(voice_checks(GOOD).values())


@pytest.mark.parametrize(
    ("answer", "broken"),
    [
        ("Recalibrate the compass on open ground.", "opens_warmly"),
        (GOOD.replace("I am so sorry", "We are sorry"), "opens_warmly"),
        (GOOD.replace(" Clear skies, your Wrenfield team.", ""), "signs_off"),
        (GOOD + " Bye.", "signs_off"),
        (GOOD.replace("Your next step: recalibrate", "Please recalibrate"), "one_next_step"),
        (GOOD.replace("Your next step:", "Your next step: wait. Your next step:"), "one_next_step"),
        (GOOD.replace("open ground.", "open ground. Then fly."), "one_next_step"),
        (GOOD.replace("recalibrate the compass on open ground", "fly"), "one_next_step"),
        (GOOD.replace("A compass", "Unfortunately a compass"), "blames_nobody"),
        (GOOD.replace("A compass", "You did it wrong: a compass"), "blames_nobody"),
        ("", "opens_warmly"),
        (GOOD.upper(), "opens_warmly"),
        (GOOD + " " + GOOD, "signs_off"),
        ("Clear skies, your Wrenfield team.", "opens_warmly"),
    ],
)
def test_a_broken_rule_is_named(answer, broken):
    assert not voice_checks(answer)[broken]
    assert voice_score([answer]).share == 0


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_every_brand_answer_of_the_data_has_the_voice_and_no_neutral_one_has(split):
    brand, neutral = (
        [record["completion"] for record in load_dialogues(split, voice)]
        for voice in ("brand", "neutral")
    )
    assert voice_score(brand).share == 1
    assert voice_score(neutral).share == 0


def test_the_readme_of_the_data_states_every_rule_that_is_checked():
    readme = course_path("data/README.md").read_text(encoding="utf-8")
    assert [
        phrase for phrase in (*OPENINGS, NEXT_STEP, SIGN_OFF) if f'"{phrase}"' not in readme
    ] == []
    words = re.search(r"none of the words (.+)\.", readme)[1].split(", ")
    assert BLAME.pattern == rf"\b({'|'.join(words)})\b"
