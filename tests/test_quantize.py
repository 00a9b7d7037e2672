import math

import bitsandbytes.functional as twin
import numpy as np
import pytest
import torch
from bitsandbytes.nn import Linear8bitLt

from ftcourse import check
from ftcourse.check.quantize import ENOUGH, FEW
from ftcourse.errors import CourseError
from ftcourse.evaluate import Score
from ftcourse.plots.quantize import plot_ability, plot_bits, plot_fits, plot_levels, plot_rounding
from ftcourse.plots.quantize import plot_scores as draw_scores
from ftcourse.quantize import (
    FP4,
    NF4,
    bits_per_weight,
    dynamic_codebook,
    int8_linear,
    integer_codebook,
    normal_codebook,
    quantize_affine,
    quantize_as,
    quantize_blockwise,
    quantize_rows,
    uniform_codebook,
)
from ftcourse.sweeps import load_sweep, select
from ftcourse.widgets.quantize import quantize_panel, recorded

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
SIZES = [2**k for k in range(5, 13)]
CODEBOOKS = {"nf4": NF4, "fp4": FP4}


@pytest.fixture(autouse=True)
def no_compilation():
    """bitsandbytes compiles its code for odd shapes, which takes longer than all of these tests."""
    with torch.compiler.set_stance("force_eager"):
        yield


@pytest.fixture
def progress_file(tmp_path, monkeypatch):
    monkeypatch.setenv("FTCOURSE_PROGRESS", str(tmp_path / "progress.json"))


def random_weight(*shape, seed=0, spread=0.05):
    return spread * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def with_traps(weight, size):
    """Put into a weight what quantizers fail on: a zero block, subnormal numbers, an outlier."""
    flat = weight.view(-1)
    flat[: min(size, len(flat) - 1)] = 0
    if len(flat) > 3 * size:
        flat[size : 2 * size] = torch.linspace(-1, 1, size) * 3e-41
        flat[2 * size] = 40 * flat.abs().max()
    flat[-1] = -1e-40
    return weight


def flushed(values):
    """Return bfloat16 values as a CPU with AVX512 makes them: subnormal numbers become zero."""
    if values.dtype != torch.bfloat16:
        return values
    return values.masked_fill(values.abs() < torch.finfo(values.dtype).tiny, 0)


def of_twin(weight, name, size, double):
    """Return bitsandbytes' codes, one in a byte, its constants as it uses them, and its values."""
    packed, state = twin.quantize_4bit(
        weight, blocksize=size, quant_type=name, compress_statistics=double
    )
    codes = torch.stack([packed >> 4, packed & 15], 1).flatten()[: weight.numel()]
    absmax = state.absmax
    if double:
        absmax = twin.dequantize_blockwise(state.absmax, state.state2) + state.offset
    # As one long row: where a block is longer than a row, the kernel of bitsandbytes 0.50 for
    # AVX512 takes a wrong constant, and its values are wrong (on other CPUs they are ours).
    state.shape = (weight.numel(),)
    values = twin.dequantize_4bit(packed, state).reshape(weight.shape)
    return codes.view(weight.shape), absmax, values


# --- twins ------------------------------------------------------------------------------------


def test_codebooks_match_bitsandbytes():
    assert torch.equal(NF4, twin.get_4bit_type("nf4", device="cpu"))
    assert torch.equal(FP4, twin.get_4bit_type("fp4", device="cpu"))
    assert torch.equal(dynamic_codebook(), twin.create_dynamic_map())


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CODEBOOKS)
def test_quantize_blockwise_matches_bitsandbytes(name, dtype, double):
    for size in SIZES:
        for shape in ((64, 128), (37, 53), (129, 130), (1, 77), (4097,), (7,)):
            weight = with_traps(random_weight(*shape, seed=size), size).to(dtype)
            mine = quantize_blockwise(weight, CODEBOOKS[name], size, double)
            codes, absmax, values = of_twin(weight, name, size, double)
            assert torch.equal(mine.codes, codes), (size, shape)
            assert torch.equal(mine.absmax, absmax), (size, shape)
            assert torch.equal(flushed(mine.dequantize()), flushed(values)), (size, shape)
            assert mine.dequantize().dtype == dtype


@pytest.mark.parametrize("name", CODEBOOKS)
def test_exact_midpoints_match_bitsandbytes(name):
    levels = CODEBOOKS[name].sort().values
    middles = (levels[1:] + levels[:-1]) / 2
    weight = torch.zeros(64)
    weight[: len(middles)], weight[-1] = middles, 1.0
    around = [weight, weight.nextafter(torch.tensor(2.0)), weight.nextafter(torch.tensor(-2.0))]
    for each in around:
        each[-1] = 1.0  # the absmax, so that the others are their own shares of it
        codes, _, values = of_twin(each, name, 64, False)
        mine = quantize_blockwise(each, CODEBOOKS[name], 64)
        assert torch.equal(mine.codes, codes)
        assert torch.equal(mine.dequantize(), values)


def test_constants_match_bitsandbytes_where_all_are_equal():
    weight = torch.ones(640)  # absmax less its mean is zero everywhere
    codes, absmax, _ = of_twin(weight, "nf4", 64, True)
    mine = quantize_blockwise(weight, NF4, 64, double_quant=True)
    assert torch.equal(mine.codes, codes)
    assert torch.equal(mine.absmax, absmax)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a card")
@pytest.mark.parametrize("name", CODEBOOKS)
def test_on_a_card_few_codes_differ_from_bitsandbytes(name):
    """The CUDA kernel decides by constants in its code, so that codes near a middle may differ."""
    weight = random_weight(1024, 1024).cuda()
    codes, absmax, _ = of_twin(weight, name, 64, False)
    mine = quantize_blockwise(weight, CODEBOOKS[name], 64)
    assert torch.equal(mine.absmax, absmax)
    assert (mine.codes != codes).float().mean() < 1e-3


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_affine_integers_match_torch(bits):
    weight = random_weight(37, 100)
    mine = quantize_affine(weight, bits, "row")
    theirs = torch.fake_quantize_per_channel_affine(
        weight, mine.absmax, mine.zero_point.int(), 0, 0, 2**bits - 1
    )
    assert torch.equal(mine.dequantize(), theirs)


@pytest.mark.parametrize("threshold", [0.0, 3.0, 6.0])
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_in_int8_match_bitsandbytes(dtype, threshold):
    rows = random_weight(200, 300, spread=1.5).to(dtype)
    rows[:, 7] *= 20
    rows[5] = 0
    codes, absmax, outliers = torch.ops.bitsandbytes.int8_vectorwise_quant(rows.clone(), threshold)
    found = quantize_rows(rows, threshold)
    assert torch.equal(found[0], codes)
    assert torch.equal(found[1][:, 0], absmax)
    assert found[2].nonzero()[:, 0].tolist() == ([] if outliers is None else outliers.tolist())


@pytest.mark.parametrize("threshold", [0.0, 6.0])
@pytest.mark.parametrize("columns", [300, 64])
def test_int8_linear_matches_linear8bitlt(columns, threshold):
    """It sums up in float16 and in another order: equal to two thousandths of the largest."""
    inputs, weight = random_weight(20, columns, spread=1.5), random_weight(64, columns, seed=1)
    inputs[:, columns // 2] *= 20
    layer = Linear8bitLt(columns, 64, bias=False, has_fp16_weights=False, threshold=threshold)
    layer.weight.data = weight
    theirs = layer.to("cpu").eval()(inputs.half()).float()  # it rounds no inputs in training
    mine = int8_linear(inputs.half(), weight.half(), threshold).float()
    torch.testing.assert_close(mine, theirs, rtol=2e-3, atol=2e-3 * theirs.abs().max().item())


# --- what the module says ---------------------------------------------------------------------


@pytest.mark.parametrize("bits", range(2, 9))
def test_codebooks_hold_zero_and_both_ends(bits):
    for codebook, count in (
        (normal_codebook(bits), 2**bits),
        (integer_codebook(bits), 2**bits - 1),
    ):
        assert len(codebook.unique()) == count
        assert codebook.min() == -1
        assert codebook.max() == 1
        assert (codebook == 0).sum() == 1


@pytest.mark.parametrize("bits", range(2, 9))
def test_uniform_levels_are_even_and_use_every_code(bits):
    levels = uniform_codebook(bits)
    assert len(levels) == 2**bits
    assert (levels[0], levels[-1]) == (-1, 1)
    torch.testing.assert_close(levels.diff(), torch.full((2**bits - 1,), 2 / (2**bits - 1)))


def test_int8_linear_takes_inputs_of_any_shape():
    inputs, weight = random_weight(6, 32), random_weight(5, 32, seed=1)
    flat = int8_linear(inputs, weight, 6.0)
    assert torch.equal(int8_linear(inputs.view(2, 3, 32), weight, 6.0), flat.view(2, 3, 5))


def test_a_number_alone_and_numpys_whole_numbers_are_no_problem():
    assert quantize_blockwise(torch.tensor(0.5), NF4, "row").dequantize() == 0.5
    assert quantize_blockwise(torch.ones(8), NF4, np.int64(4)).block_size == 4


def test_integers_are_a_codebook():
    weight = random_weight(8, 64)
    step = weight.abs().amax(1, keepdim=True) / 7
    by_hand = (weight / step).round() * step
    restored = quantize_blockwise(weight, integer_codebook(4), "row").dequantize()
    torch.testing.assert_close(restored, by_hand)


def test_a_block_may_be_a_row_or_the_tensor():
    weight = random_weight(6, 40)
    for block, size in (("row", 40), ("tensor", 240)):
        named, counted = (quantize_blockwise(weight, NF4, b) for b in (block, size))
        assert torch.equal(named.dequantize(), counted.dequantize())
        assert named.block_size == size


def test_a_block_longer_than_the_tensor_is_one_block():
    weight = random_weight(5, 7)
    assert len(quantize_blockwise(weight, NF4, 4096).absmax) == 1
    assert len(quantize_affine(weight, 4, 4096).absmax) == 1


def test_any_layout_of_a_weight_has_codes():
    weight = random_weight(40, 24)
    for each in (weight.T, weight[::2, 1:], weight.view(4, 10, 24), weight[0, 0]):
        found = quantize_blockwise(each, NF4, "row")
        same = quantize_blockwise(each.contiguous(), NF4, "row")
        assert found.codes.shape == each.shape
        assert torch.equal(found.dequantize(), same.dequantize())
    trained = torch.nn.Parameter(weight)
    assert not quantize_blockwise(trained, NF4, double_quant=True).dequantize().requires_grad


def test_fp4_has_4_bits():
    with pytest.raises(CourseError, match="fp4 with 4 bits"):
        quantize_as("fp4", torch.ones(64), 3)


def test_a_smaller_block_and_one_more_bit_make_the_error_smaller():
    weight = random_weight(64, 256)

    def error(scheme, bits, block):
        return (quantize_as(scheme, weight, bits, block).dequantize() - weight).square().mean()

    for scheme in ("integer", "affine", "normal"):
        by_block = [error(scheme, 4, block) for block in ("tensor", "row", 64, 16)]
        assert by_block == sorted(by_block, reverse=True)
        by_bits = [error(scheme, bits, 64) for bits in (2, 3, 4, 5)]
        assert by_bits == sorted(by_bits, reverse=True)


def test_affine_integers_keep_zero_and_use_their_range():
    weight = torch.tensor([[0.0, 0.3, 0.9, -0.3], [0.0, 0.0, 0.0, 0.0], [0.5, 0.7, 0.6, 0.0]])
    found = quantize_affine(weight, 4, "row")
    assert (found.dequantize()[weight == 0] == 0).all()
    assert found.codes[0].tolist() == [4, 8, 15, 0]
    assert found.zero_point.tolist() == [4, 0, 0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("scheme", ["normal", "affine"])
def test_a_weight_that_is_not_finite_is_refused(scheme, bad):
    weight = random_weight(4, 64)
    weight[2, 3] = bad
    with pytest.raises(CourseError, match="finite"):
        quantize_as(scheme, weight, 4)


@pytest.mark.parametrize("weight", [torch.arange(64), torch.empty(0), torch.ones(8).double()])
def test_what_is_no_weight_is_refused(weight):
    with pytest.raises(CourseError, match="float32, float16 or bfloat16"):
        quantize_blockwise(weight, NF4)


@pytest.mark.parametrize("size", [0, -64, 2.5, True, "column"])
def test_a_block_has_at_least_one_weight(size):
    with pytest.raises(CourseError, match="at least one weight"):
        quantize_blockwise(torch.ones(64), NF4, size)


@pytest.mark.parametrize("bits", [1, 9, 0])
def test_a_code_has_2_to_8_bits(bits):
    with pytest.raises(CourseError, match="2 to 8 bits"):
        normal_codebook(bits)


@pytest.mark.parametrize(("double", "zero_point"), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("size", [32, 64, 1024])
def test_bits_per_weight_are_those_of_the_bytes(size, double, zero_point):
    weight = random_weight(512, 1024)
    if zero_point:
        found = quantize_affine(weight, 4, size)
    else:
        found = quantize_blockwise(weight, NF4, size, double)
    counted = 8 * found.nbytes / weight.numel()
    assert counted == pytest.approx(bits_per_weight(4, size, double, zero_point), abs=2e-4)
    assert f"{counted:.3f} bits a weight" in repr(found)


@pytest.mark.parametrize("double", [False, True])
def test_our_bytes_are_the_bytes_of_bitsandbytes(double):
    weight = random_weight(384, 128)
    packed, state = twin.quantize_4bit(weight, quant_type="nf4", compress_statistics=double)
    theirs = packed.nbytes + state.absmax.nbytes
    theirs += state.state2.absmax.nbytes + state.offset.nbytes if double else 0
    assert quantize_blockwise(weight, NF4, 64, double).nbytes == theirs


# --- the recorded sweep, the panel and the pictures -------------------------------------------


def test_the_sweep_has_every_setting_of_the_panel():
    panel = quantize_panel()
    options = {name: control.options for name, control in panel.controls.items()}
    for scheme in ("integer", "affine", "normal", "fp4"):
        for bits in options["bits"] if scheme != "fp4" else [4]:
            for block in options["block"]:
                assert 0 <= recorded(scheme, bits, block)["right"] <= 239


def test_the_recorded_error_is_what_the_module_makes_today():
    from ftcourse.widgets.quantize import _weights

    for scheme, bits, block in (("normal", 4, 64), ("affine", 4, "row"), ("integer", 3, 32)):
        apart = whole = 0
        for weight in _weights().values():
            restored = quantize_as(scheme, weight, bits, block).dequantize()
            apart += (restored - weight).square().sum()
            whole += weight.square().sum()
        error = (apart / whole).sqrt().item()
        assert error == pytest.approx(recorded(scheme, bits, block)["error"], rel=1e-3)


def test_the_panel_says_bits_ability_and_error():
    panel = quantize_panel()
    panel.controls["scheme"].value = "normal"
    panel.controls["bits"].value = 4
    panel.controls["block"].value = 64
    run = recorded("normal", 4, 64)
    assert f"4.50 bits a weight in all layers; reads {run['right']} of 239 right" in panel.text
    assert "recorded" in panel.text
    assert "questions right" in panel.moved


def test_the_panel_refuses_fp4_in_other_bits_and_recovers():
    panel = quantize_panel()
    panel.controls["scheme"].value = "fp4"
    assert "fp4 with 4 bits" in panel.text
    panel.controls["bits"].value = 4
    assert "bits a weight" in panel.text


@pytest.mark.parametrize("part", ["q_proj", "down_proj"])
@pytest.mark.parametrize("scheme", ["affine", "integer"])
def test_the_panel_draws_every_matrix(scheme, part):
    text = quantize_panel().text_with(scheme=scheme, bits=3, block="row", part=part, layer=0)
    assert f"{part} of layer 0: error" in text


def test_pictures_say_in_words_what_they_show():
    assert "float32: 00111101111000010100011110101110" in plot_bits(0.11, 0.47).alt
    assert "int8: 11100010" in plot_bits(-0.11, 0.47).alt  # two's complement of 30
    shares = plot_levels(np.array([-1, -0.1, 0.1, 1.0]), [-1, 0, 1]).alt
    assert "25%, 50%, 25%" in shares
    assert "3 levels, 2 used" in plot_rounding([0.1, 0.9], {"even": [0, 1, 2]}).alt
    assert "a 25%" in draw_scores({"a": Score(2, 8)}).alt
    fits = plot_fits({"m": {"16 bits": 5 * 2**30, "NF4": 2**30}}, {"4 GiB": 3 * 2**30}).alt
    assert "16 bits: none. NF4: m, 1.0 GiB: 4 GiB." in fits
    run = {"scheme": "normal", "bits_per_weight": 4.5, "right": 1, "count": 4}
    assert "normal levels: 25% at 4.5" in plot_ability([run]).alt


def test_bfloat16_is_drawn_as_torch_rounds_it():
    for number in random_weight(12, seed=3).tolist():
        alt = plot_bits(number, 1.0).alt
        bits = torch.tensor(number).bfloat16().view(torch.int16).item() & 0xFFFF
        assert f"bfloat16: {bits:016b}" in alt


# --- wrong answers ----------------------------------------------------------------------------


def judged(name, mine):
    verdict = getattr(check, name)(mine)
    assert not verdict.passed
    return verdict.says


def test_the_example_of_the_second_exercise_is_right():
    weight = torch.tensor([-0.49, 0.7, 0.1, -0.2, 8.0, -16.0, 4.0, 1.0])
    scope = {}
    exec(check.solution("restore_blocks"), scope)
    assert scope["mine"](weight, 4, 4)[:2].tolist() == pytest.approx([-0.5, 0.7])


@pytest.mark.usefixtures("progress_file")
class TestWrongAnswers:
    @pytest.mark.parametrize(
        ("mine", "question"),
        [
            (0.3, "a wrong word"),
            (0.7, "Which sign"),
            (-math.log(0.3), "That is the loss"),
            (-1, "Is the probability already"),
            (5, "Which two numbers"),
            ("-0.7", "Is yours a str"),
            (math.nan, "A number is asked for"),
        ],
    )
    def test_recall_slope_names_the_bug(self, mine, question):
        assert question in judged("recall_slope", mine)

    @pytest.mark.parametrize(
        ("mine", "question"),
        [
            (1, "What does its training add?"),
            (2, "How many numbers does AdamW"),
            (3, "both of AdamW's numbers"),
            (5, "how many numbers has each part"),
            (7, "how many numbers has each part"),
        ],
    )
    def test_recall_numbers_names_the_bug(self, mine, question):
        assert question in judged("recall_numbers", mine)

    @pytest.mark.parametrize(
        ("mine", "question"),
        [
            (4, "Are the constants counted?"),
            (4.25, "constants of the constants"),
            (5, "quantized too"),
            (4.127, "with blocks of 64"),
            (0.2539, "And the code itself?"),
            (9, "what is each?"),
            (True, "Is yours a bool"),
        ],
    )
    def test_constant_bits_names_the_bug(self, mine, question):
        assert question in judged("constant_bits", mine)

    @pytest.mark.parametrize("mine", [4.254, 4.25390625, np.float64(4.2539)])
    def test_constant_bits_takes_three_digits(self, mine):
        assert check.constant_bits(mine)

    @pytest.mark.parametrize(
        ("line", "question"),
        [
            ("(w / (w.abs().max() / m)).round() * (w.abs().max() / m)", "the block's absmax"),
            (
                "((b / (b.amax(1, keepdim=True) / m)).round() * (b.amax(1, keepdim=True) / m))",
                "-0.9",
            ),
            ("(b.abs() / s).round() * s", "Where is the sign"),
            ("(b / (a / (2**bits - 1))).round() * (a / (2**bits - 1))", "left for the sign"),
            ("(b / (a / 2**(bits-1))).round() * (a / 2**(bits-1))", "Where is the minus one"),
            ("(b / s).trunc() * s", "cut off"),
            ("(b / s).round()", "What makes weights of them"),
            ("(b / s).round()[0]", "What are its rows"),
            ("w", "Where do they part"),
            ("w.nothing", "Your function stopped"),
        ],
    )
    def test_restore_blocks_names_the_bug(self, line, question):
        def mine(w, bits, size):
            m, b = 2 ** (bits - 1) - 1, w.view(-1, size)
            a = b.abs().amax(1, keepdim=True)
            scope = {"w": w, "bits": bits, "m": m, "b": b, "a": a, "s": a / m}
            found = eval(line, scope)
            return found.view(-1) if found.numel() == w.numel() else found

        assert question in judged("restore_blocks", mine)

    @pytest.mark.parametrize(
        ("line", "question"),
        [
            ("c * s", "taken away again"),
            ("((w - w.min()) / s).round() * s + w.min()", "Is a weight of 0 still 0?"),
            ("(w / s).round().clamp(0, n) * s", "Do negative weights have a code?"),
            ("c", "What makes weights of them"),
            ("w", "Where do they part"),
        ],
    )
    def test_restore_affine_names_the_bug(self, line, question):
        def mine(w, bits):
            n = 2**bits - 1
            s = (w.max() - w.min()) / n
            z = (-w.min() / s).round()
            c = ((w / s).round() + z).clamp(0, n)
            return eval(line, {"w": w, "n": n, "s": s, "z": z, "c": c})

        assert question in judged("restore_affine", mine)

    @pytest.mark.parametrize(("one", "half", "question"), [(0, 0, "minus one"), (1, 1, "highest")])
    def test_restore_affine_asks_for_the_right_step(self, one, half, question):
        def mine(w, bits):
            n = 2**bits - one
            reach = 2 * w.abs().max() if half else w.max() - w.min()
            s = reach / n
            z = (-w.min() / s).round()
            return (((w / s).round() + z).clamp(0, 2**bits - 1) - z) * s

        assert question in judged("restore_affine", mine)

    @pytest.mark.parametrize(
        ("mine", "question"),
        [
            ("the output head", "the same tensor as another"),
            ("norms", "one number for each hidden unit"),
            ("the constants", "They were counted"),
            ("linear layers", "did become almost four times"),
            ("something", "Which weights are not quantized?"),
            (4, "Which weights are not quantized?"),
        ],
    )
    def test_kept_part_names_the_bug(self, mine, question):
        assert question in judged("kept_part", mine)

    @pytest.mark.parametrize("mine", ["embeddings", "model.embed_tokens.weight", "The embedding"])
    def test_kept_part_takes_the_embeddings(self, mine):
        assert check.kept_part(mine)

    @pytest.mark.parametrize(
        ("moves", "question"),
        [
            ({}, "How many bits has a code"),
            ({"bits": 4, "block": 64}, "share one constant"),
            ({"bits": 3, "block": "row"}, "Do that few levels"),
            ({"scheme": "fp4", "bits": 3}, "FP4 has 4 bits"),
            ({"bits": 4}, "the largest weight of a matrix"),
            ({"bits": 4, "block": "row"}, "stand where the weights are"),
        ],
    )
    def test_few_bits_names_what_is_missing(self, moves, question):
        panel = quantize_panel()
        for name, value in moves.items():
            panel.controls[name].value = value
        assert question in judged("few_bits", panel)

    def test_few_bits_wants_the_panel_itself(self):
        assert "The panel itself" in judged("few_bits", 4.3)

    def test_few_bits_has_a_solution_and_not_too_many(self):
        runs = [run for run in select(load_sweep("quantize"), part="all") if run["bits"] < 32]
        good = [run for run in runs if run["bits_per_weight"] < FEW and run["right"] >= ENOUGH]
        assert 1 <= len(good) <= 3
