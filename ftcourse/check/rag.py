"""The exercises of lesson 07 that ask no code: two on lesson 06, the best page last, the panel."""

from typing import Any

from ftcourse.check.exercise import Verdict, a_type, exercise, judge_number


@exercise(
    hints=(
        "Which tokens does the model have to say itself?",
        "The customer's words are read, and the loss leaves them out.",
        "The answer's 30 tokens count, and so does the one that ends it.",
    ),
    solution="mine = 30 + 1",
)
def tokens_with_loss(mine: Any) -> Verdict:
    """Judge how many tokens of a dialogue are supervised: 50 asked, 30 answered, one ends it."""
    bugs = {
        81: "Those are all tokens. Does the model learn to write the customer's letter?",
        80: "Is the customer's letter in it? And how does a model learn to stop?",
        30: "Nearly. How does the model learn where an answer ends?",
        50: "Those are the customer's. Who has to learn to speak?",
        51: "Those are the customer's. Who has to learn to speak?",
    }
    praise = "The answer and its end; the letter is read and not learned."
    return judge_number(mine, 31, bugs, praise, "Which tokens carry the loss?", within=1e-6)


@exercise(
    hints=(
        "What did the adapter see in its training, and what is it asked now?",
        "It has seen letters, and never an answer from passages in the voice.",
        "In lesson 6 not one of these answers kept the four rules.",
    ),
    solution="mine = 0",
)
def voice_on_passages(mine: Any) -> Verdict:
    """Judge how many of 100 answers from passages a letters-only adapter gives in the voice."""
    bugs = {
        100: "That is what it does with letters. Was it trained on answers from passages, too?",
        50: "Half of them? What does such an answer begin with, if it never saw one in the voice?",
        99: "That is what it does with letters. Was it trained on answers from passages, too?",
    }
    praise = (
        "None: what it learned belongs to letters. So its training needs answers from passages."
    )
    return judge_number(mine, 0, bugs, praise, "Which kind of text was it trained on?")


@exercise(
    hints=(
        "Each of the three runs changes one thing. Which of them are mostly read right?",
        "The share of a run is its sum of right answers divided by its sum of n.",
        "Two of the three heal it. Three passages that are as long as five pages do not.",
    ),
    solution='mine = {"place", "tokens"}',
)
def what_makes_it_miss(mine: Any) -> Verdict:
    """Judge what heals a missed page if it alone is changed: passages, place or tokens."""
    if not isinstance(mine, (str, set, frozenset, list, tuple)):
        return Verdict(False, f'Words are asked for, such as {{"place"}}. Is yours {a_type(mine)}?')
    words = mine.replace(" and ", ",").split(",") if isinstance(mine, str) else mine
    names = {"token": "tokens", "passage": "passages"}
    found = {str(word).strip().lower().removesuffix(".") for word in words} - {"none", ""}
    found = frozenset(names.get(word, word) for word in found)
    asks = {
        frozenset(): "None of them? Look at the same five pages with the right one last.",
        frozenset({"place"}): "It does. Does anything else? Try few tokens at the first place.",
        frozenset({"tokens"}): "They do. Does anything else? Try five whole pages, another place.",
    }
    if found == {"place", "tokens"}:
        return Verdict(
            True,
            "Each of the two heals it alone, so neither is the one cause. Nor are tokens all: 15 "
            "short passages have fewer than five pages, and the first is read worse. Number, place "
            "and length act together, beyond what the training had.",
        )
    if not found <= {"passages", "place", "tokens"}:
        return Verdict(False, 'Choose among "passages", "place" and "tokens".')
    stretched = "Three stretched passages are as long as five pages. How many of those are right?"
    return Verdict(False, asks.get(found, stretched))


@exercise(
    hints=(
        "Which search finds known wordings best? Begin with `how`.",
        "What is to read grows with the chunk and with k. Short chunks need a larger k.",
        "by sentence, how dense, k 5.",
    ),
    solution="""
from ftcourse.widgets.rag import rag_panel

panel = rag_panel()
panel.controls["by"].value = "sentence"
panel.controls["how"].value = "dense"
panel.controls["k"].value = 5
mine = panel
""",
)
def much_from_little(mine: Any) -> Verdict:
    """Judge a panel: 90 % of the known wordings get their value, from 70 tokens or fewer."""
    from ftcourse.widgets.rag import reached

    if not {"by", "how", "reader", "wordings"} <= set(getattr(mine, "controls", ())):
        return Verdict(False, "The panel itself is asked for: check.much_from_little(panel).")
    values = mine.values
    if values["wordings"] != "known" or values["similar"] or values["reader"] != "public":
        return Verdict(False, "Known wordings, the public, and no similar names: is it all set so?")
    _, held, tokens = reached(**values)
    share = held[values["k"] - 1].share
    asks = {
        "Both are missed. Begin with `how`: which search knows these wordings?": (
            share < 0.9 and tokens > 70
        ),
        "Few tokens, and too few values. Does a passage more help, or another search?": share < 0.9,
        "The value is there, and too much with it. Which chunks are shorter?": tokens > 70,
    }
    ask = next((ask for ask, asked in asks.items() if asked), "")
    praise = f"{share:.0%} from {tokens:.0f} tokens. Now set wordings to new: what is left of it?"
    return Verdict(not ask, ask or praise)
