import pytest
import torch

from ftcourse.hardware import CARDS, GIB, Card, choose_dtype, detect


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("T4", "float16"),
        ("V100 16GB", "float16"),
        ("RTX 3060", "bfloat16"),
        ("A100 40GB", "bfloat16"),
        ("H100 80GB", "bfloat16"),
    ],
)
def test_the_dtype_goes_by_compute_capability(name, dtype):
    assert choose_dtype(CARDS[name]).dtype == dtype


def test_a_t4_gets_float16_although_torch_says_that_it_supports_bfloat16(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
    choice = choose_dtype(CARDS["T4"])
    assert choice.dtype == "float16"
    assert "7.5" in choice.reason


@pytest.mark.parametrize("card", [Card("CPU", 8 * GIB), Card("GTX 1080", 8 * GIB, (6, 1))])
def test_without_tensor_cores_the_number_format_is_float32(card):
    assert choose_dtype(card).dtype == "float32"


def test_every_choice_gives_its_reason():
    for card in [*CARDS.values(), Card("CPU", 8 * GIB)]:
        dtype, _, reason = repr(choose_dtype(card)).partition(": ")
        assert dtype in ("float32", "float16", "bfloat16")
        assert ("CPU" if card.device == "cpu" else "compute capability") in reason


def test_usable_memory_is_below_what_the_box_says_and_above_nine_tenths_of_it():
    box = {"T4": 16, "RTX 3060": 12, "V100 16GB": 16, "L4": 24, "RTX 4090": 24}
    box |= {"A100 40GB": 40, "A100 80GB": 80, "H100 80GB": 80}
    assert box.keys() == CARDS.keys()
    for name, gib in box.items():
        assert 0.9 * gib < CARDS[name].memory / GIB < gib


def test_a_card_without_capability_is_a_cpu_and_any_other_is_cuda():
    assert Card("CPU", GIB).device == "cpu"
    assert CARDS["T4"].device == "cuda"
    assert repr(CARDS["T4"]) == "Tesla T4 (14.6 GiB usable)"


@pytest.fixture
def fresh_detect():
    """``detect`` keeps its answer: clear it before and after a test that imitates a card."""
    detect.cache_clear()
    yield detect
    detect.cache_clear()


def test_no_gpu_is_an_answer_and_not_an_error(fresh_detect, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    card = fresh_detect()
    assert card.device == "cpu"
    assert card.memory > 0


def test_a_gpu_is_described_by_what_the_driver_reports(fresh_detect, monkeypatch):
    class Facts:
        name, total_memory, major, minor = "Tesla T4", 15_640_000_000, 7, 5

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: Facts)
    t4 = CARDS["T4"]
    assert fresh_detect() == Card("Tesla T4", 15_640_000_000, t4.capability, t4.context)
    fresh_detect.cache_clear()
    Facts.name = "Tesla T5"  # of which nobody measured the context
    assert fresh_detect().context is None
