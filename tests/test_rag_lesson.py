"""The files of lesson 07: its pictures, its exercises, its panel."""

import random
from fractions import Fraction

import pytest

from data.making.world import corpus
from ftcourse import check
from ftcourse.errors import CourseError
from ftcourse.evaluate import Score
from ftcourse.files import course_path
from ftcourse.handbook import load_questions, load_wordings
from ftcourse.lookups import find_all, page_recall, recall_over_forms, recorded_shares
from ftcourse.models import load_tokenizer
from ftcourse.plots.rag import plot_lookup, plot_recall, plot_shares
from ftcourse.retrieval import Page, open_store, read_pages, recall_at_k
from ftcourse.sweeps import load_sweep, select
from ftcourse.widgets.rag import rag_panel, reached


def test_pictures_say_their_numbers_in_words():
    assert "the 3 best" in plot_lookup("How fast?", 3).alt
    shares = {"a": Score(1, 2), "b": {"one": Score(1, 4), "two": Score(3, 4)}}
    assert "two: highest b 75%." in plot_shares(shares, "%").alt
    line = [Score(n, 4) for n in (1, 3)]
    assert "page at 1: 25% of 4" in plot_recall({"page": line}, 2).alt


# --- the exercises -----------------------------------------------------------------------------

NAMES = ["tokens_with_loss", "voice_on_passages", "first_k_recall", "overlapping_chunks"]
NAMES += ["without_a_leak", "what_makes_it_miss", "much_from_little"]


@pytest.mark.parametrize("name", NAMES)
def test_the_solutions_pass_and_three_hints_help(name):
    scope = {}
    exec(check.solution(name), scope)
    assert getattr(check, name)(scope["mine"])
    assert len({str(check.hint(name, number)) for number in (1, 2, 3)}) == 3


@pytest.mark.parametrize(
    ("name", "mutant", "question"),
    [
        ("tokens_with_loss", 81, "Does the model learn to write the customer's letter"),
        ("tokens_with_loss", 80, "how does a model learn to stop"),
        ("tokens_with_loss", 30, "where an answer ends"),
        ("tokens_with_loss", 50, "Who has to learn to speak"),
        ("tokens_with_loss", 7, "Which tokens carry the loss"),
        ("tokens_with_loss", [31], "Is yours a list"),
        ("voice_on_passages", 100, "Was it trained on answers from passages"),
        ("voice_on_passages", 99, "Was it trained on answers from passages"),
        ("voice_on_passages", 50, "What does such an answer begin with"),
        ("voice_on_passages", 20, "Which kind of text"),
        ("voice_on_passages", "none", "Is yours a str"),
        ("what_makes_it_miss", "passages", "Three stretched passages"),
        ("what_makes_it_miss", {"passages", "place", "tokens"}, "Three stretched passages"),
        ("what_makes_it_miss", {"place"}, "few tokens at the first place"),
        ("what_makes_it_miss", ["Tokens"], "five whole pages, another place"),
        ("what_makes_it_miss", "none", "the right one last"),
        ("what_makes_it_miss", "the model", "Choose among"),
        ("what_makes_it_miss", 3, "Is yours an int"),
    ],
)
def test_a_wrong_answer_gets_its_own_question(name, mutant, question):
    verdict = getattr(check, name)(mutant)
    assert not verdict
    assert question in verdict.says


def share(hit):
    """Return recall with this idea of a hit."""

    def recall(found, wanted, k):
        hits = [hit(ids, page, k) for ids, page in zip(found, wanted, strict=True)]
        return sum(hits) / len(hits)

    return recall


right = share(lambda ids, page, k: page in ids[:k])
RECALLS = {
    "Only place k": share(lambda ids, page, k: page in ids[k - 1 : k]),
    "all that was found": share(lambda ids, page, k: page in ids),
    "only at the first page": share(lambda ids, page, k: page in ids[:1]),
    "One too few": share(lambda ids, page, k: page in ids[: k - 1]),
    "One too many": share(lambda ids, page, k: page in ids[: k + 1]),
    "Is that a share": lambda f, w, k: right(f, w, k) * len(w),
    "Is that in percent": lambda f, w, k: 100 * right(f, w, k),
    "You divide by k": lambda f, w, k: right(f, w, k) / k,
    "found for another question": lambda f, w, k: (
        sum(any(page in ids[:k] for ids in f) for page in w) / len(w)
    ),
    "fewer than k pages, or none": share(lambda ids, page, k: ids[k - 1] == page),
    "end with a return": lambda f, w, k: None,
}


@pytest.mark.parametrize("question", RECALLS)
def test_a_wrong_recall_gets_its_own_question(question):
    verdict = check.first_k_recall(RECALLS[question])
    assert not verdict
    assert question in verdict.says


def cut(words, length, begins):
    return [" ".join(words[i : i + length]) for i in begins]


CHUNKS = {
    "Do neighbours share words": lambda t, n, o: cut(t.split(), n, range(0, len(t.split()), n)),
    "Is it needed": lambda t, n, o: cut(t.split(), n, range(0, len(t.split()), n - o)),
    "Where are the last words": lambda t, n, o: cut(
        t.split(), n, range(0, len(t.split()) - n + 1, n - o)
    ),
    "every `overlap` words": lambda t, n, o: cut(
        t.split(), n, range(0, max(len(t.split()) - o, 1), o or n)
    ),
    "Are your chunks of characters": lambda t, n, o: [
        t[i : i + n] for i in range(0, max(len(t) - o, 1), n - o)
    ],
    "one word too many": lambda t, n, o: cut(
        t.split(), n, range(0, max(len(t.split()) - o, 1), max(n - o - 1, 1))
    ),
    "one word too few": lambda t, n, o: cut(
        t.split(), n, range(0, max(len(t.split()) - o, 1), n - o + 1)
    ),
    "Is yours one text": lambda t, n, o: " ".join(
        cut(t.split(), n, range(0, max(len(t.split()) - o, 1), n - o))
    ),
    "are its words joined": lambda t, n, o: [t.split()[i : i + n] for i in range(0, 9, n - o)],
    "end with a return": lambda t, n, o: None,
}


@pytest.mark.parametrize("question", CHUNKS)
def test_a_wrong_chunker_gets_its_own_question(question):
    verdict = check.overlapping_chunks(CHUNKS[question])
    assert not verdict
    assert question in verdict.says


def best_first(scores):
    return sorted(range(len(scores)), key=lambda i: -scores[i])


def ids(pages, places):
    return [pages[i]["id"] for i in places]


def leaky(pages, scores, k, allowed):
    best = best_first(scores)
    may = [i for i in best if pages[i].get("access", "public") in allowed]
    return ids(pages, (may or best)[:k])


def labelled(pages, scores, allowed):
    return [i for i in best_first(scores) if pages[i].get("access") in allowed]


LEAKS = {
    "From where": lambda p, s, k, a: ids(p, (labelled(p, s, a) or best_first(s))[:k]),
    "Who may read it in yours": lambda p, s, k, a: ids(
        p, [i for i in best_first(s) if p[i].get("access", "public") in a][:k]
    ),
    "goes to the whole staff in yours": lambda p, s, k, a: ids(
        p, [i for i in best_first(s) if p[i].get("access", "staff") in a][:k]
    ),
    "Two holes are open": leaky,
    "before the k best are chosen": lambda p, s, k, a: ids(
        p, [i for i in best_first(s)[:k] if p[i].get("access") in a]
    ),
    "What is it compared with": lambda p, s, k, a: ids(
        p, [i for i in best_first(s) if p[i].get("access") != "staff"][:k]
    ),
    "What is `allowed` for": lambda p, s, k, a: ids(
        p, [i for i in best_first(s) if p[i].get("access") == "public"][:k]
    ),
    "The best page comes first": lambda p, s, k, a: ids(p, sorted(labelled(p, s, a))[:k]),
    "At most k": lambda p, s, k, a: ids(p, labelled(p, s, a)),
    "no label at all": lambda p, s, k, a: ids(
        p, [i for i in best_first(s) if p[i]["access"] in a][:k]
    ),
    "end with a return": lambda p, s, k, a: None,
}


@pytest.mark.parametrize("question", LEAKS)
def test_a_search_with_a_hole_gets_its_own_question(question):
    verdict = check.without_a_leak(LEAKS[question])
    assert not verdict
    assert question in verdict.says


def test_what_is_no_function_is_no_answer():
    for name in ("first_k_recall", "overlapping_chunks", "without_a_leak"):
        assert "A function is asked for" in getattr(check, name)(0.5).says
        assert "No answer so far" in getattr(check, name)(lambda *arguments: ...).says


def test_each_setting_was_measured_once():
    sweep = load_sweep("rag")
    results = {"right", "found", "declined", "followed", "clean", "believed", "met", "kept", "n"}
    results |= {"leaked", "tied", "new first", "mrr", "right and found", "silent", "conflicts"}
    results |= {"update_ms", "answer_ms", "search_ms", "cpu_seconds", "versions", "tokens"}
    results |= {"date", "device", "public", "written", "right from both", "reading slower"}
    results |= {
        f"{way}_{what}" for way in ("base", "reading", "facts") for what in ("ms", "written")
    }
    settings = [
        str({k: v for k, v in run.items() if k not in results and "@" not in k}) for run in sweep
    ]
    assert len(set(settings)) == len(settings)


def test_runs_that_are_not_alike_are_never_added():
    runs = select(load_sweep("rag"), task="leaks")
    with pytest.raises(CourseError, match="several seeds of one setting"):
        recorded_shares(runs, "all", leaked="leaked")


def test_the_model_learned_from_shorter_prompts_than_five_pages():
    tokenizer, rng = load_tokenizer("embedded"), random.Random(0)
    texts = [" ".join(p.quoted(rng) for p in corpus.passages(rng)) for _ in range(300)]
    longest = max(len(tokenizer(text).input_ids) for text in texts)
    five = select(load_sweep("rag"), task="place", k=5, at=1, texts="whole")[0]["tokens"]
    assert 100 < longest < 350 < five


def test_what_the_exercise_says_of_the_cause_is_in_the_recorded_runs():
    sweep = load_sweep("rag")

    def placed(texts, k, at):
        runs = select(sweep, task="place", k=k, texts=texts, at=at)
        share = sum(run["right"] for run in runs) / sum(run["n"] for run in runs)
        return share, sum(run["tokens"] for run in runs) / len(runs)

    share, tokens = placed("whole", 5, 1)
    assert share < 0.4
    assert placed("whole", 5, 5)[0] > 0.9  # the place alone
    assert placed("short", 5, 1)[0] > 0.9  # the tokens alone
    stretched, as_many = placed("stretched", 3, 1)  # the number alone
    assert stretched < 0.2
    assert abs(as_many / tokens - 1) < 0.05
    many, fewer = placed("short", 15, 1)
    assert (many < share / 1.5, fewer < tokens) == (True, True)
    assert placed("stretched", 3, 3)[0] > 0.7  # read, where it stands last


def test_right_answers_in_other_forms_pass():
    assert check.what_makes_it_miss("Token and place")
    assert check.what_makes_it_miss(["tokens", "place"])
    assert check.first_k_recall(lambda f, w, k: Fraction(round(right(f, w, k) * len(w)), len(w)))
    assert check.first_k_recall(recall_at_k)


def test_a_search_that_looks_a_little_further_or_compares_beginnings_is_refused():
    def further(pages, scores, k, allowed):
        best = best_first(scores)[: k + 3]
        return ids(pages, [i for i in best if pages[i].get("access") in allowed][:k])

    def begins(pages, scores, k, allowed):
        first = {label[0] for label in allowed}
        may = [i for i in best_first(scores) if pages[i].get("access", "?")[0] in first]
        return ids(pages, may[:k])

    assert not check.without_a_leak(further)
    assert not check.without_a_leak(begins)


def test_an_empty_list_is_said_as_a_list():
    def without_a_least(text, length, overlap):
        words = text.split()
        return cut(words, length, range(0, len(words) - overlap, length - overlap))

    assert "it gives [], and ['Wren'] is right" in check.overlapping_chunks(without_a_least).says


def test_what_the_lesson_says_of_declines_is_in_the_recorded_runs():
    sweep = load_sweep("rag")

    def declined(**setting):
        [run] = select(sweep, **setting)
        return run["declined"] / run["n"]

    lost = {k: declined(task="withheld", how="hybrid", k=k) for k in (3, 5)}
    assert 0.7 < lost[3] < 0.8
    assert 0.6 < lost[5] < 0.7
    assert declined(task="both given", kind="comparisons") > 0.9
    assert declined(task="both given", kind="chains") > 0.6
    assert all(run["search_ms"] < 10 for run in select(sweep, task="cost"))


def test_an_interval_over_forms_is_up_to_three_times_as_wide():
    folder = course_path("data/handbook")
    store = open_store(":memory:")
    store.add([*read_pages(folder / "edition-1"), *read_pages(folder / "staff")])
    asked = {"known": load_questions(passages=False, wording=1), "new": load_wordings(False)}
    wider = {}
    for name, rows in asked.items():
        found = find_all(store, rows, 1, {"public", "staff"})
        _, low, high = recall_over_forms(found, rows, 1)
        ends = page_recall(found, rows, 1).interval
        wider[name] = (high - low) / (ends[1] - ends[0])
    assert 1.3 < wider["known"] < wider["new"] < 3.1


def test_scores_tell_a_little_about_pages_that_may_not_be_read():
    def page(name, text, access="public"):
        return Page(name, name, text, access, 1)

    store = open_store(":memory:")
    store.add([page(f"p{n}", f"Drone number {n} and wind.") for n in range(6)])
    store.add([page("x", "The merger talks are a rumour.")])
    before = store.search("merger", 1)[0]
    store.add([page("s", "The merger is signed.", "staff"), page("t", "merger price", "staff")])
    after = store.search("merger", 1)[0]
    assert before.page == after.page == "x"
    assert after.score < before.score


# --- the panel ---------------------------------------------------------------------------------


def test_the_panel_says_what_is_found_and_how_much_is_to_read():
    panel = rag_panel()
    before = panel.text
    assert "of 60 questions get a passage with the value" in before
    panel.controls["by"].value = "page"
    assert panel.text != before
    assert "tokens of passages" in panel.text
    assert panel.controls["length"].disabled


def test_more_passages_find_more_and_cost_more():
    values = rag_panel().values | {"by": "sentence"}
    few, many = (reached(**values | {"k": k}) for k in (1, 5))
    assert few[0] == many[0]
    assert few[1][4].share > few[1][0].share
    assert many[2] > 4 * few[2]


def test_the_button_asks_the_model_and_marks_the_passage_that_holds_the_value():
    panel = rag_panel()
    panel.controls["by"].value, panel.controls["how"].value = "page", "dense"
    panel.buttons["answer"].click()
    assert "✓ holds the value" in panel._view.value
    assert "Answered, from a prompt of" in panel._view.value


@pytest.mark.parametrize(
    ("moves", "question"),
    [
        ({"wordings": "new"}, "Known wordings, the public"),
        ({"reader": "staff"}, "Known wordings, the public"),
        ({"how": "lexical", "by": "page", "k": 2}, "Both are missed"),
        ({"k": 1}, "Few tokens, and too few values"),
        ({"by": "page", "k": 1}, "and too much with it"),
    ],
)
def test_a_wrong_choice_in_the_panel_gets_its_own_question(moves, question):
    scope = {}
    exec(check.solution("much_from_little"), scope)
    for name, value in moves.items():
        scope["mine"].controls[name].value = value
    verdict = check.much_from_little(scope["mine"])
    assert not verdict
    assert question in verdict.says


def test_another_thing_than_the_panel_is_no_answer():
    for wrong in (8, "panel", {"by": "page"}):
        assert "The panel itself" in check.much_from_little(wrong).says
