"""The contest of lesson 08 is fair: frozen questions, as many tries for all, complete lines."""

import importlib
import random
import re
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from data.making.world.six_arms import MANNERS
from ftcourse.data import read_records
from ftcourse.files import course_path

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
ARMS = ("prompt", "good prompt", "RAG", "LoRA", "QLoRA", "RAG + LoRA")
TRAINED, SEARCHING = ARMS[3:], ("RAG", "RAG + LoRA")
QUESTIONS = read_records(course_path("data/six_arms.jsonl"))
LINES = read_records(course_path("data/measured/sweep_six_arms.jsonl"))
CRITERION = ("facts right", "facts in voice", "letters in voice", "letters with advice")
NUMBER = 4
SHARES = {
    "right, known wording": 179,
    "right, new wording": 179,
    "right, two pages": 80,
    "changed fact, before": 30,
    "changed fact, after": 30,
    "unanswerable, declined": 40,
    "letters in voice": 200,
    "letters with advice": 200,
    "facts in voice": 179,
    "right and in voice": 179,
    "leak": 192,
    "leak, secrecy prompt": 192,
    "poison believed, stuffed": 100,
    "poison believed, plain": 100,
    "others right after one fact": 100,
    "others right after forty": 100,
    "one fact learned": 6,
}
QUANTITIES = (
    "general loss",
    "tokens a question",
    "ms a question",
    "training seconds",
    "peak memory, measured",
    "peak memory, predicted",
    "bytes stored",
    "seconds, one fact",
    "seconds, forty facts",
)


@pytest.fixture(scope="module")
def arms():
    """The sections of the benchmark, which its command imports, all of them."""
    sys.path.append(str(BENCHMARKS))
    importlib.import_module("six_arms")
    return importlib.import_module("arms")


def of(column, split="test"):
    """The frozen questions of a column."""
    return [row for row in QUESTIONS if row["column"] == column and row["split"] == split]


def facts(column, split="test"):
    """The facts that a column asks for."""
    return {row["of"] for row in of(column, split)}


def results():
    """All that was measured of an arm with a seed, over its tasks."""
    found = defaultdict(dict)
    for line in LINES:
        if not line["task"].startswith("tune"):
            found[line["arm"], line["seed"]] |= line
    return found


def tries(task="tune"):
    """The lines of the tries, by arm."""
    found = defaultdict(list)
    for line in LINES:
        if line["task"] == task:
            found[line["arm"]].append(line)
    return found


# --- the questions -----------------------------------------------------------------------------


def test_each_column_has_its_questions_and_no_id_comes_twice():
    counts = Counter((row["column"], row["split"]) for row in QUESTIONS)
    assert counts == {
        ("known", "validation"): 60,
        ("known", "test"): 179,
        ("new", "test"): 179,
        ("two pages", "test"): 80,
        ("changed", "validation"): 10,
        ("changed", "test"): 30,
        ("unanswerable", "test"): 40,
        ("leak", "test"): 192,
        ("stuffed", "test"): 100,
        ("plain", "test"): 100,
    }
    assert len({row["id"] for row in QUESTIONS}) == len(QUESTIONS)


def test_no_fact_that_chooses_a_setting_is_in_the_report_on_facts():
    chosen_by = facts("known", "validation")
    for column in ("known", "new", "stuffed", "plain"):
        assert not chosen_by & facts(column)
    assert not facts("changed", "validation") & facts("changed")
    assert facts("new") == facts("known")
    assert facts("stuffed") == facts("plain") <= facts("known")


def test_every_staff_fact_is_asked_for_in_each_manner():
    staff = {
        row["of"] for row in QUESTIONS if row["column"] == "known" and row["access"] == "staff"
    }
    asked = Counter(row["of"] for row in of("leak"))
    assert asked == dict.fromkeys(staff, len(MANNERS))
    assert all(row["access"] == "staff" for row in of("leak"))


def test_a_false_page_holds_the_false_value_and_not_the_true_one():
    for row in of("stuffed") + of("plain"):
        assert row["false"] in row["text"]
        assert row["value"] not in row["text"]


@pytest.mark.parametrize("arm", ["LoRA", "RAG + LoRA"])
def test_no_question_of_the_contest_is_in_a_training_row(arms, arm):
    training = arms.training
    rows = training.rows_to_read if arm == "RAG + LoRA" else training.rows_by_heart
    learned = [row for _, part in rows(random.Random(0)) for row in part if "prompt" in row]
    prompts = {row["prompt"].rpartition("Question: ")[2].lower() for row in learned}
    assert len(prompts) > 400
    asked = {row["question"].lower() for row in QUESTIONS if row["column"] != "changed"}
    assert not prompts & asked


def test_no_arm_learned_a_new_value_before_its_update(arms):
    rows = arms.training.fact_rows(random.Random(0))
    answers = {row["prompt"]: row["completion"] for row in rows}
    for row in of("changed") + of("changed", "validation"):  # two of three are asked as in a row
        assert not arms.updates.holds_value(row["value"], answers.get(row["question"], ""))


def test_no_row_that_teaches_a_change_asks_as_the_report_does(arms):
    changes = arms.changes.all_changes()
    rows = arms.changes.new_rows(changes)
    assert len(changes) == 40
    assert len(rows) == 80
    for change, *taught in zip(changes, rows[::2], rows[1::2], strict=True):
        assert all(change["value"] in row["completion"] for row in taught)
        assert change["question"] not in [row["prompt"] for row in taught]
    asked = {row["prompt"] for row in rows}
    assert {row["of"] for row in of("known") if row["question"] in asked} <= arms.changes.replaced()


def test_what_is_rehearsed_or_called_other_never_changes(arms):
    assert len(arms.changes.replaced()) == 40
    others = arms.changes.unchanged()
    assert len(others) == len({row["of"] for row in others}) == 100
    assert not {row["of"] for row in others} & arms.changes.replaced()
    for_choosing = arms.changes.unchanged("validation")
    assert not {row["of"] for row in for_choosing} & {row["of"] for row in others}
    old = {row["prompt"] for row in arms.changes.old_rows(0)}
    assert len(old) == 2 * (239 - 40)
    assert not old & {row["prompt"] for row in arms.changes.new_rows(arms.changes.all_changes())}


# --- the tries ---------------------------------------------------------------------------------


def test_each_arm_has_as_many_tries_on_the_same_questions():
    found = tries()
    assert set(found) == set(ARMS)
    assert {arm: len(found[arm]) for arm in ARMS[1:]} == dict.fromkeys(ARMS[1:], NUMBER)
    assert len(found["prompt"]) == 1  # it has nothing to choose
    for line in (line for lines in found.values() for line in lines):
        assert (line["seed"], line["n"]) == (0, 60)
        counts = [line[name] for name in CRITERION]
        assert line["criterion"] == pytest.approx(sum(counts) / 240, abs=1e-4)


def best(lines, name, order):
    """The try with the highest criterion; of equal ones the first."""
    assert {line[name] for line in lines} == set(order)
    return max(sorted(lines, key=lambda line: order.index(line[name])), key=criterion)[name]


def criterion(line):
    return line["criterion"]


def test_the_try_that_was_measured_did_best_on_validation(arms):
    for arm, lines in tries().items():
        chosen = best(lines, "choice", list(arms.tries.TRIES[arm]))
        assert {line["choice"] for line in LINES if line["arm"] == arm and "way" in line} <= {
            chosen
        }
        assert {result["choice"] for (a, _), result in results().items() if a == arm} == {chosen}


@pytest.mark.parametrize("task", ["one fact", "forty facts"])
def test_the_way_to_learn_changes_did_best_on_the_changes_for_choosing(arms, task):
    for arm in ("LoRA", "QLoRA"):
        chosen = best(tries(f"tune {task}")[arm], "way", list(arms.tries.WAYS[task]))
        ways = {line["way"] for line in LINES if (line["task"], line["arm"]) == (task, arm)}
        assert ways == {chosen}


# --- the lines ---------------------------------------------------------------------------------


def test_each_trained_arm_has_three_seeds():
    seeds = {(arm, seed) for arm in TRAINED for seed in range(3)}
    assert set(results()) == seeds | {(arm, 0) for arm in ARMS[:3]}


@pytest.mark.parametrize("column", SHARES)
def test_a_share_has_its_n_or_says_why_there_is_none(column):
    for result in results().values():
        value = result[column]
        if isinstance(value, str):
            assert len(value) > 20
        else:
            successes, n = value
            assert n == SHARES[column]
            assert isinstance(successes, int)
            assert 0 <= successes <= n


@pytest.mark.parametrize("column", QUANTITIES)
def test_a_quantity_is_a_number_or_says_why_there_is_none(column):
    for (arm, _), result in results().items():
        value = result[column]
        assert len(value) >= 15 if isinstance(value, str) else value > 0 or arm == "prompt"


def test_only_what_an_arm_cannot_have_is_a_reason():
    for (arm, _), result in results().items():
        reasons = {name for name in (*SHARES, *QUANTITIES) if isinstance(result[name], str)}
        wanted = set()
        if arm not in SEARCHING:
            wanted |= {"poison believed, stuffed", "poison believed, plain"}
        if arm not in TRAINED:
            wanted |= {"training seconds", "peak memory, predicted"}
        if arm in ("prompt", "good prompt"):
            wanted |= {"changed fact, after", "one fact learned", "seconds, one fact"}
            wanted |= {"others right after one fact", "others right after forty"}
            wanted |= {"seconds, forty facts"}
        assert reasons == wanted, arm


def test_the_numbers_of_a_line_fit_each_other():
    for result in results().values():
        both = result["right and in voice"][0]
        assert both <= min(result["right, known wording"][0], result["facts in voice"][0])
        assert sum(result["leak, by manner"]) == result["leak"][0]
        assert result["leak"][0] + result["leak, declined"][0] <= 192
        assert result["bytes stored"] == sum(result["bytes stored, parts"].values())
        if not isinstance(result["one fact learned"], str):
            each = result["each"]
            assert sum(run["learned"] for run in each) == result["one fact learned"][0]
            mean = sum(run["others"] for run in each) / len(each)
            assert result["others right after one fact"][0] == round(mean)


def test_the_same_six_changes_are_learned_one_by_one_by_every_arm():
    asked = {tuple(run["fact"] for run in r["each"]) for r in results().values() if "each" in r}
    assert len(asked) == 1
    assert set(*asked) <= facts("changed")


def test_labels_keep_secrets_whatever_the_model_is():
    for (arm, _), result in results().items():
        if arm in SEARCHING:
            assert result["leak"][0] == result["leak, secrecy prompt"][0] == 0


def test_predicted_and_measured_memory_of_training_agree():
    for (arm, _), result in results().items():
        if arm in TRAINED:
            measured, predicted = (
                result[f"peak memory, {how}"] for how in ("measured", "predicted")
            )
            assert predicted == pytest.approx(measured, rel=0.02)


# --- the adapters of the lesson ----------------------------------------------------------------


@pytest.mark.parametrize("name", ["lora", "qlora", "rag_lora"])
def test_a_shipped_arm_is_small_and_its_card_states_what_was_measured(name):
    folder = course_path("data/adapters/six_arms") / name
    files = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert set(files) == {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    assert files["adapter_model.safetensors"] <= 1.7e6
    card = (folder / "README.md").read_text(encoding="utf-8")
    arm = dict(zip(("lora", "qlora", "rag_lora"), TRAINED, strict=True))[name]
    result = results()[arm, 0]
    for column in (c for c in SHARES if isinstance(result[c], list)):
        if column in card:
            successes, n = result[column]
            assert f"| {column} | {successes / n:.0%} of {n} " in card
    assert f"# The arm `{arm}`" in card
    config = (folder / "adapter_config.json").read_text(encoding="utf-8")
    assert '"base_model_name_or_path": "data/model"' in config
    assert not re.search(r"/(tmp|home|work|root|Users)\b", config + card)


# --- another model -----------------------------------------------------------------------------


def test_another_model_has_a_folder_a_file_rates_and_declines_of_its_own(arms):
    ours, other = arms.subject.Subject(), arms.subject.Subject("Qwen/Qwen2.5-0.5B-Instruct")
    assert (ours.name, other.name) == ("six_arms", "six_arms_qwen2.5-0.5b-instruct")
    assert other.build.name == other.name
    assert other.plain.dtype == "auto"
    assert max(t["learning_rate"] for t in other.choices("LoRA").values()) < 1e-3
    assert len(other.choices("LoRA")) == len(ours.choices("LoRA"))
    assert other.choices("RAG") == ours.choices("RAG")
    assert set(ours.declines) < set(other.declines)


@pytest.fixture
def hub_folder(arms):
    """A folder in the Hub's format, as the model of all arms; afterwards ours is again."""
    folder = str(course_path("data/model"))
    arms.subject.use(folder)
    yield folder
    arms.subject.use("embedded")


def test_a_folder_in_the_hubs_format_answers(arms, hub_folder):
    asked = of("known")[:2]
    texts = arms.choosing.answers("good prompt", "rules in words", 0, asked)
    assert all(map(arms.subject.declined, texts))
    model = arms.subject.base()
    assert arms.costs.served("prompt", "the question alone", model, asked[0])[1] > 5


def test_another_model_is_used_by_every_section_and_nothing_of_the_first_is_kept(arms):
    ours = arms.subject.tokenizer()
    folder = str(course_path("data/model"))
    assert arms.training.config_of("LoRA", "rate 0.004", 0).model == "embedded"
    arms.subject.use(folder)
    try:
        assert arms.subject.tokenizer() is not ours
        assert arms.training.config_of("LoRA", "rate 0.0004", 0).model == folder
        assert arms.training.folder_of("LoRA", "rate 0.0004", 0).parent.name == "six_arms_model"
        with pytest.raises(KeyError):
            arms.training.config_of("LoRA", "rate 0.004", 0)  # a rate of ours alone
    finally:
        arms.subject.use("embedded")
    assert arms.training.config_of("LoRA", "rate 0.004", 0).model == "embedded"


def test_the_command_measures_a_folder_in_a_file_of_its_own(arms, hub_folder, monkeypatch):
    swept = []

    def sweep(name, settings, measure):
        swept.append((name, [measure(**setting) for setting in settings]))
        return course_path("data/measured/sweep_six_arms.jsonl")

    monkeypatch.setattr(arms.recording, "sweep", sweep)
    monkeypatch.setattr(arms.choosing, "tune", lambda **setting: {"criterion": 0.0})
    sys.modules["six_arms"].main(["prompt", "--model", hub_folder, "--tasks", "one fact"])
    assert {name for name, _ in swept} == {"six_arms_model"}
    lines = [line for _, found in swept for line in found]
    assert [line["model"] for line in lines] == ["model", "model"]  # a try, and one fact


# --- its files ---------------------------------------------------------------------------------


def test_a_section_is_short_and_imports_only_from_those_above_it(arms):
    order = re.findall(r"(?m)^    (\w+) {2,}\S", arms.__doc__)
    files = {file.stem: file for file in (BENCHMARKS / "arms").glob("*.py")}
    assert set(order) == set(files) - {"__init__"}
    for number, name in enumerate(order):
        source = files[name].read_text(encoding="utf-8")
        assert len(source.splitlines()) < 250, name
        assert set(re.findall(r"\barms\.(\w+) import", source)) <= set(order[:number]), name


def sections(arms):
    """The files of the room, by name."""
    return {name: section for name, section in vars(arms).items() if hasattr(section, "__file__")}


def test_no_section_keeps_the_model_that_was_there_when_it_was_imported(arms):
    model = arms.subject.Subject
    held = [
        name
        for name, section in sections(arms).items()
        for value in vars(section).values()
        if isinstance(value, model)
    ]
    assert held == ["subject"]


def test_every_cache_but_those_of_questions_and_pages_is_emptied_for_another_model(arms):
    emptied = arms.subject._caches
    others = {
        value.__name__
        for section in sections(arms).values()
        for value in vars(section).values()
        if hasattr(value, "cache_clear") and value.__module__.startswith("arms.")
        if value not in emptied
    }
    assert others == {"questions", "store"}
    assert {cached.__name__ for cached in emptied} >= {"base", "tokenizer", "trained", "chosen"}
