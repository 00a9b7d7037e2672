"""The exercises of lesson 06: products and merges, tokens that teach, a mixture, old texts."""

from typing import Any

from ftcourse.check.exercise import Verdict, exercise, judge_number


@exercise(
    hints=(
        "Storage and products are two switches. Which one did the bare option leave alone?",
        "The trace of the bare layer showed what enters and what multiplies.",
        "bfloat16 came in, and float32 multiplied.",
    ),
    solution="mine = 32",
)
def bits_of_products(mine: Any) -> Verdict:
    """Judge the bits of a number in the products of a bare load_in_4bit model."""
    bugs = {
        4: "The codes have 4 bits. Did any product happen between codes?",
        16: "That is what enters. Does bitsandbytes multiply in the format that enters, by itself?",
        8: "Which setting would give 8? The option was load_in_4bit.",
        2: "Is that in bytes?",
    }
    praise = "Float32, unless you ask for another format: half of a card's speed is given away."
    return judge_number(mine, 32, bugs, praise, "In which format did the trace see products?")


@exercise(
    hints=(
        "An adapter fits exactly the weights that it was trained beside.",
        "Two of the three are other weights than those: one before rounding, one rounded again.",
        "Restored in 16 bits: number 1.",
    ),
    solution="mine = 1",
)
def merge_into(mine: Any) -> Verdict:
    """Judge the number of the weights into which a QLoRA adapter is merged without loss."""
    bugs = {
        2: "They are more exact. But are they what the adapter was trained beside?",
        3: "The sum is rounded again there. To which weights does that lead?",
        0: "They are numbered from 1. Which one did the adapter see?",
        4: "There are three. Which one did the adapter see?",
    }
    praise = "The restored ones: nothing moves away from under the adapter."
    return judge_number(mine, 1, bugs, praise, "Which weights did the adapter see in training?")


@exercise(
    hints=(
        "A record is its question, then its answer. The cut takes what is behind max_length.",
        "300 of the 320 places are the question's, and they teach nothing.",
        "320 - 300 places are left for the answer.",
    ),
    solution="mine = 320 - 300",
)
def tokens_that_teach(mine: Any) -> Verdict:
    """Judge how many tokens teach: a question of 300, an answer of 80, cut at 320."""
    bugs = {
        80: "Does the whole answer lie before place 320?",
        320: "Do the question's tokens teach?",
        380: "Those are all tokens before the cut. Which of them are left, and which teach?",
        60: "Those are the ones that are cut away. How many of the answer's are left?",
    }
    praise = "Twenty, and the token that ends the answer is not among them: it was cut away."
    return judge_number(mine, 20, bugs, praise, "Which places are the answer's, after the cut?")


@exercise(
    hints=(
        "Old texts help ordinary text. Which rows bring the voice to the answers about pages?",
        "Only branded answers about pages do. Two mixtures with them reach both shares.",
        "4 letters + 6 branded answers about pages + 2 old texts, with rows validation.",
    ),
    solution="""
from ftcourse.widgets.finetune import finetune_panel

panel = finetune_panel()
panel.controls["rows"].value = "validation"
panel.controls["mixture"].value = (
    "4 letters + 6 branded answers about pages + 2 old texts"
)
mine = panel
""",
)
def keeps_reading(mine: Any) -> Verdict:
    """Judge a panel whose mixture must keep reading, in the voice, and hurt old texts least."""
    from ftcourse.effects import effects, general_loss, mixtures

    if not {"mixture", "beside", "rows"} <= set(getattr(mine, "controls", ())):
        return Verdict(False, "The panel itself is asked for: check.keeps_reading(panel).")
    runs, chosen = mixtures(), mine.values
    found = {name: effects(each, "validation") for name, each in runs.items()}
    wish = {"letters: in voice": 0.95, "pages: both": 0.7}
    good = [n for n in runs if all(found[n][what].mean >= least for what, least in wish.items())]
    best = min(good, key=lambda name: general_loss(runs[name], "validation").mean)
    own = found[chosen["mixture"]]
    asks = {
        "Which rows may choose? What does the third control say?": chosen["rows"] != "validation",
        "Do enough letters have the voice?": own["letters: in voice"].mean < 0.95,
        "Is any answer about a page in the voice? Which rows would show it how?": (
            own["pages: in voice"].mean < 0.5
        ),
        "Right and in the voice, both at once: is it 70 %?": own["pages: both"].mean < 0.7,
        "Both shares are reached. Is there a mixture with a lower loss of general text?": (
            chosen["mixture"] != best
        ),
    }
    ask = next((ask for ask, asked in asks.items() if asked), "")
    return Verdict(not ask, ask or "It speaks, it reads, and it remembers the old texts.")


@exercise(
    hints=(
        "Compare two runs that differ in one thing. What has the mixture beside its 8 letters?",
        "mixtures() has '8 letters': as many letters and updates as the mixture, no old texts.",
        "100 * (share of '8 letters + 4 old texts' - share of '8 letters'), of 'pages: right'.",
    ),
    solution="""
from ftcourse.effects import effects, mixtures

names = ("8 letters", "8 letters + 4 old texts")
without, mixed = (effects(mixtures()[n])["pages: right"].mean for n in names)
mine = 100 * (mixed - without)
""",
)
def due_to_old_texts(mine: Any) -> Verdict:
    """Judge by how many points old texts raise the share of right answers about pages."""
    from ftcourse.effects import effects, mixtures

    names = ("8 letters", "12 letters", "12 letters, 80 steps", "8 letters + 4 old texts")
    few, alone, short, mixed = (
        100 * effects(mixtures()[name])["pages: right"].mean for name in names
    )
    bugs = {
        mixed - alone: "That run has 12 letters: two things differ. Which run has 8 as well?",
        mixed - short: "That run has fewer updates, too. Which one differs in the old texts only?",
        (mixed - few) / 100: "Is that a share? Points of 100 are asked for.",
        few - mixed: "Which of the two is better?",
        mixed: "That is the share itself. Compared with which run?",
    }
    praise = (
        f"About {mixed - few:.0f} points. Fewer letters alone change {few - alone:+.0f} (three "
        "seeds each, so roughly): your friend is wrong. Rows that need what the model could do "
        "before hold it where it is."
    )
    return judge_number(mine, mixed - few, bugs, praise, "Which two runs did you use?", within=0.04)
