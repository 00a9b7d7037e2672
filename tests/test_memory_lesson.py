"""Lesson 04: ledgers side by side, and wrong answers to its exercises, each with its question."""

import inspect
from dataclasses import replace

import pytest

from ftcourse import check
from ftcourse.config import FinetuneConfig
from ftcourse.errors import CourseError
from ftcourse.hardware import CARDS, Card
from ftcourse.memory import Step, predict_memory
from ftcourse.memory.compare import compare, sizes
from ftcourse.memory.layer import Layer
from ftcourse.memory.ledger import Ledger, Row
from ftcourse.memory.operations import Operations
from ftcourse.memory.published import kept_by_a_layer
from ftcourse.shape import load_shape
from ftcourse.widgets.great import great_panel

CPU = Card("CPU", 2**34)
RUN = FinetuneConfig(model="embedded", dtype="float32", batch_size=2, max_length=16)

# --- ledgers side by side -----------------------------------------------------------------------


def test_a_ledger_beside_itself_differs_nowhere_and_has_all_its_bytes():
    ledger = predict_memory(RUN, CPU).ledger
    found = compare({"one": ledger, "two": ledger})
    assert found.sums == 2 * (sum(ledger.parts.values()),)
    assert found.differs.rows == ()
    assert "no tensor differs" in repr(found.differs)
    assert "no tensor differs" in found.differs._repr_html_()


def test_a_row_that_one_ledger_lacks_is_found_with_its_counts():
    ledger = predict_memory(RUN, CPU).ledger
    lacking = Ledger.of([replace(ledger[0], count=ledger[0].count - 1), *ledger[1:]])
    ((row, counts),) = compare({"mine": lacking, "theirs": ledger}).differs.rows
    assert (row.name, row.shape) == (ledger[0].name, ledger[0].shape)
    assert counts == (ledger[0].count - 1, ledger[0].count)


def test_the_largest_difference_comes_first():
    rows = [Row.of(f"row {n}", (n,), "float32", "weights") for n in (1, 3, 2)]
    found = compare({"mine": Ledger(), "theirs": Ledger.of(rows)}).differs
    assert [row.name for row, _ in found.rows] == ["row 3", "row 2", "row 1"]
    assert [row.name for row, _ in found.top(1).rows] == ["row 3"]


def test_equal_names_in_two_formats_are_two_rows():
    rows = [Row.of("same", (4,), dtype, "activations") for dtype in ("float32", "bfloat16")]
    found = compare({"narrow": Ledger.of(rows[1:]), "wide": Ledger.of(rows[:1])})
    assert [counts for _, counts in found.rows] == [(0, 1), (1, 0)]


def test_one_part_can_be_compared_alone():
    predicted = predict_memory(RUN, CPU)
    found = compare({"one": predicted.ledger}, "activations")
    assert found.sums == (predicted.activations,)
    assert {row.part for row, _ in found.rows} == {"activations"}


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_table_has_at_most_80_columns(count):
    ledger = predict_memory(RUN, CPU).ledger
    names = ["mine", "predicted", "simulated", "measured"][:count]
    table = repr(compare(dict.fromkeys(names, ledger)))
    assert max(map(len, table.splitlines())) <= 80


def test_the_table_for_a_notebook_has_whole_names_and_no_html_of_them():
    row = Row.of("<b>a name that is much longer than a column</b>", (2,), "float32", "weights")
    page = compare({"mine": Ledger.of([row])})._repr_html_()
    assert "&lt;b&gt;a name that is much longer than a column" in page


@pytest.mark.parametrize("ledgers", [{}, {"mine": [1, 2]}, {"mine": None}])
def test_what_is_no_ledger_is_refused(ledgers):
    with pytest.raises(CourseError, match="takes ledgers by their names"):
        compare(ledgers)


@pytest.mark.parametrize("shown", [Layer.gated, Operations.mul, Operations.divide_by_rms])
def test_what_the_lesson_shows_fits_a_narrow_page(shown):
    assert max(map(len, inspect.getsource(shown).splitlines())) <= 64


# --- the steps of several runs ------------------------------------------------------------------


def test_a_table_of_one_field_has_the_steps_of_the_config_with_each_value():
    found = sizes(RUN, CPU, rank=[1, 4])
    steps = {rank: predict_memory(replace(RUN, rank=rank), CPU) for rank in (1, 4)}
    assert found.bytes == {rank: step.allocated for rank, step in steps.items()}
    assert found.steps == steps
    assert len(repr(found).splitlines()) == 2


def test_a_table_of_two_fields_has_a_line_for_each_value_of_the_first():
    found = sizes(RUN, CPU, "weights", method=["full", "lora", "qlora"], max_length=[8, 16])
    assert set(found.bytes) == {(m, n) for m in ("full", "lora", "qlora") for n in (8, 16)}
    assert found.bytes["full", 8] == found.bytes["full", 16] > found.bytes["qlora", 8]
    assert [line.split()[0] for line in repr(found).splitlines()[1:]] == ["full", "lora", "qlora"]


@pytest.mark.parametrize("fields", [{}, {"rank": [1], "bits": [4], "batch_size": [1]}])
def test_no_field_or_three_are_refused(fields):
    with pytest.raises(CourseError, match="one field of a config, or two"):
        sizes(RUN, CPU, **fields)


# --- wrong answers, each with its question ------------------------------------------------------

LOGITS = 4 * 2048 * 128256
PROMPT = 20 * 4096
WRONG = {
    "unmergeable": ("a LoRA adapter", "(IA)3", "prefix", 3),
    "prompt_bytes": (
        PROMPT, 4 * PROMPT, 8 * PROMPT, 12 * PROMPT, 16 * 4096, 320, 512 * PROMPT, 1.25, 7, "x"
    ),
    "logits_gib": (
        LOGITS / 2**30, LOGITS / 2**29, 4 * LOGITS / 10**9, 4 * LOGITS, 4 * LOGITS / 2**20,
        12 * LOGITS / 2**30, 2**27 / 2**30, 16 * LOGITS / 2**30, 0.01, "4",
    ),
    "paged_rank": (9, 10, 16, 25, 32, 48, 48.83, 50, 12, 24, 100_000, 7, "49"),
}  # fmt: skip
RIGHT = {
    "unmergeable": "A bottleneck adapter.",
    "prompt_bytes": 1310720,
    "logits_gib": 3.9,
    "paged_rank": 49,
}


@pytest.mark.parametrize("name", RIGHT)
def test_each_wrong_answer_gets_a_question_of_its_own(name):
    judge = getattr(check, name)
    assert judge(RIGHT[name])
    verdicts = [judge(answer) for answer in WRONG[name]]
    assert not any(verdicts)
    assert len({verdict.says for verdict in verdicts}) == len(verdicts)


def mlp(x=1, inner=3, last=1, width=4, frozen=None):
    """Return a function for the bytes that an MLP saves, or one with a mistake in it."""

    def saves(tokens, hidden, wide, trained):
        trained = trained if frozen is None else frozen
        return width * tokens * (inner * wide + trained * (x * hidden + last * wide))

    return saves


WRONG_MLPS = {
    "one tensor or two": mlp(x=2),
    "keep of silu": mlp(inner=2),
    "gradient of its own weight": mlp(last=0),
    "gradients of their weights": mlp(x=0),
    "What changes if the weights are frozen": mlp(frozen=True),
    "That is what a frozen MLP keeps": mlp(frozen=False),
    "How many bytes": mlp(width=1),
    "Weights are no activations": lambda t, h, i, trained: mlp()(t, h, i, trained) + 12 * h * i,
    "besides silu's own input": mlp(inner=1),
    "Is that trained?": lambda t, h, i, trained: 4 * t * (4 * i + trained * h),
    "Are they trained?": lambda t, h, i, trained: 4 * t * (3 * i + h + trained * i),
    "the other way round": lambda t, h, i, trained: mlp()(t, h, i, not trained),
    "in MiB": lambda *case: mlp()(*case) / 2**20,
    "one tensor twice": lambda t, h, i, trained: (
        4 * (t * (3 * i + trained * (2 * h + i)) + 3 * h * i)
    ),
    "keep nothing at all": lambda t, h, i, trained: mlp()(t, h, i, True) if trained else 0,
    "Where do they part": lambda t, h, i, trained: t,
    "One number is asked for": lambda t, h, i, trained: [t, h],
    "What does yours return": lambda *case: str(mlp()(*case)),
    "four arguments": lambda t: t,
    "returned None": lambda *case: None,
}


@pytest.mark.parametrize("asks", WRONG_MLPS)
def test_a_wrong_function_gets_a_question_of_its_own(asks):
    verdict = check.mlp_saves(WRONG_MLPS[asks])
    assert not verdict
    assert asks in verdict.says


@pytest.mark.parametrize("trained", [True, False])
def test_the_right_function_counts_what_pytorch_saves(trained):
    import torch
    from torch.autograd.graph import saved_tensors_hooks
    from torch.nn import functional

    x = (torch.ones(6, 8) * 2).requires_grad_()
    gate, up = (torch.ones(12, 8, requires_grad=trained) for _ in range(2))
    down, kept = torch.ones(8, 12, requires_grad=trained), {}
    with saved_tensors_hooks(lambda t: kept.setdefault(t.data_ptr(), t), lambda t: t):
        inner = functional.silu(functional.linear(x, gate)) * functional.linear(x, up)
        functional.linear(inner, down)
    weights = {t.data_ptr() for t in (gate, up, down)}
    found = sum(t.nbytes for place, t in kept.items() if place not in weights)
    assert found == mlp()(6, 8, 12, trained)
    assert check.mlp_saves(mlp())


# --- the panel's target -------------------------------------------------------------------------


@pytest.fixture
def panel():
    panel = great_panel(card="RTX 3060")
    scope = {"panel": panel}
    exec(check.solution("fit_3060"), scope)
    assert check.fit_3060(scope["mine"])
    return panel


@pytest.mark.parametrize(
    ("changes", "asks"),
    [
        ({"gradient_checkpointing": False}, "keep all that it computed"),
        ({"attention": "eager"}, "a score for each pair"),
        ({"loss": "full"}, "scores of all words"),
        ({"batch_size": 4, "gradient_accumulation_steps": 1}, "at once?"),
        ({"upcast": True}, "norms and embeddings"),
        ({"optimizer": "adamw_torch_fused"}, "which optimizer keeps fewer"),
        ({"gradient_accumulation_steps": 1}, "learn from 4 texts"),
        ({"rank": 16}, "rank is 16"),
        ({"max_length": 2048}, "max_length is 2048"),
        ({"card": "T4"}, "card is T4"),
        ({"bits": 8}, "bits is 8"),
        ({"method": "lora"}, "method is lora"),
    ],
)
def test_a_panel_that_misses_the_target_is_asked_for_what_is_in_the_way(panel, changes, asks):
    for name, value in changes.items():
        panel.controls[name].value = value
    verdict = check.fit_3060(panel)
    assert not verdict
    assert asks in verdict.says


def test_no_answer_and_odd_answers_never_raise():
    for name in [*RIGHT, "mlp_saves", "fit_3060"]:
        for answer in (..., None, [1], float("nan"), object(), lambda: 1, "", {}, True):
            assert not getattr(check, name)(answer)


def test_three_hints_and_a_solution_that_passes():
    for name in [*RIGHT, "mlp_saves"]:
        assert len({check.hint(name, number) for number in (1, 2, 3)}) == 3
        scope = {}
        exec(check.solution(name), scope)
        assert getattr(check, name)(scope["mine"])


# --- what the lesson says -----------------------------------------------------------------------


def test_a_layer_of_a_wide_model_keeps_a_quarter_of_its_weights_for_512_tokens():
    run = FinetuneConfig(model="llama-3.1-8b", method="full", dtype="bfloat16", batch_size=1)
    run = replace(run, max_length=512, gradient_checkpointing=False)
    step = Step(run, load_shape(run.model), CARDS["A100 80GB"])
    weights = 2 * sum(inputs * outputs for inputs, outputs in step.shape.linears.values())
    assert kept_by_a_layer(step) / weights == pytest.approx(0.24, abs=0.01)


def test_several_passes_bring_the_gradients_back_to_the_peak():
    run = FinetuneConfig(model="llama-3.1-8b", rank=64, max_length=4096, batch_size=1)
    gradients = [
        predict_memory(replace(run, gradient_accumulation_steps=n), CARDS["RTX 3060"]).gradients
        for n in (1, 4)
    ]
    assert gradients[0] == 0
    assert gradients[1] / 2**30 == pytest.approx(0.6, abs=0.05)


def test_states_of_wider_matrices_are_paged_at_a_lower_rank():
    run = FinetuneConfig(model="llama-2-7b", dtype="bfloat16", batch_size=1, max_length=1024)
    ranks, optimizers = [9, 10, 24, 25], ["adamw_torch_fused", "paged_adamw_32bit"]
    found = sizes(run, CARDS["A100 80GB"], "optimizer", optimizer=optimizers, rank=ranks).bytes
    plain, paged = ([found[name, rank] for rank in ranks] for name in optimizers)
    assert plain == sorted(plain)
    assert paged[0] == pytest.approx(plain[0], rel=0.01)
    assert 0 < paged[1] < paged[0]
    assert paged[3] < 0.01 * plain[3] < paged[2]


def test_states_are_paged_from_the_rank_of_the_exercise_on():
    run = FinetuneConfig(
        model="llama-3.2-1b", optimizer="paged_adamw_32bit", target_modules=("q_proj",)
    )
    kept = {
        rank: predict_memory(replace(run, rank=rank), CARDS["A100 80GB"]).optimizer
        for rank in (48, 49)
    }
    assert kept[48] > 0
    assert kept[49] == 0
