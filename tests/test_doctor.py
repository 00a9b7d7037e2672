import sys
import types
from importlib import metadata

import numpy
import peft.import_utils
import pytest

from ftcourse import doctor
from ftcourse.cli import main
from ftcourse.errors import CourseError
from ftcourse.hardware import CARDS, GIB, Card

CPU = Card("CPU", 16 * GIB)


@pytest.fixture
def versions(monkeypatch):
    """Pretend that some packages have other versions; None means that one is not installed."""
    pretended = {}
    real = metadata.version

    def version(name):
        if pretended.get(name, "real") is None:
            raise metadata.PackageNotFoundError(name)
        return pretended.get(name) or real(name)

    monkeypatch.setattr(metadata, "version", version)
    return pretended


@pytest.fixture
def modules(monkeypatch):
    """Pretend that some modules are installed."""
    pretended = set()
    real = doctor._is_there
    monkeypatch.setattr(doctor, "_is_there", lambda name: name in pretended or real(name))
    return pretended


def find(report, word):
    """Return the one trap that speaks of a word."""
    (trap,) = [trap for trap in report.traps if word in trap.what]
    return trap


@pytest.mark.parametrize(
    ("card", "words"),
    [
        (CARDS["T4"], ["Tesla T4 (14.6 GiB usable)", "capability 7.5", "float16: compute"]),
        (CARDS["A100 40GB"], ["A100 40GB (39.4 GiB usable)", "capability 8.0", "bfloat16: comp"]),
        (CPU, ["no GPU, and none is needed", "CPU (16.0 GiB usable)", "float32: on a CPU"]),
    ],
)
def test_the_report_names_card_memory_capability_and_dtype_with_the_reason(card, words):
    text = repr(doctor.examine(card))
    for word in words:
        assert word in text


def test_the_report_is_short_and_narrow_and_names_every_tested_library():
    lines = repr(doctor.examine(CARDS["T4"])).splitlines()
    assert len(lines) <= 20
    assert max(map(len, lines)) <= 100
    for library in ("torch", "transformers", "peft", "bitsandbytes", "numpy"):
        assert f"{library} {metadata.version(library)}" in " ".join(lines)


def test_no_line_has_a_colon_after_a_colon():
    for card in (CPU, *CARDS.values()):
        for line in repr(doctor.examine(card)).splitlines():
            assert line.count(": ") <= 1


def test_a_real_4bit_kernel_ran_and_was_compared():
    report = doctor.examine(CPU)
    assert "stores and restores 4096 numbers" in report.facts["4-bit"]
    assert "off by more than 0.15" in report.facts["4-bit"]


def test_a_bitsandbytes_that_does_not_import_blocks(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", None)
    report = doctor.examine(CPU)
    assert not report.ok
    assert "pip install" in find(report, "4-bit kernel does not run").fix


def test_a_4bit_kernel_that_gives_wrong_numbers_blocks(monkeypatch):
    wrong = types.SimpleNamespace(
        quantize_4bit=lambda numbers, quant_type: (numbers, None),
        dequantize_4bit=lambda codes, state: codes * 0,
    )
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", wrong)
    report = doctor.examine(CPU)
    assert not report.ok
    assert "off by 1.00" in find(report, "4-bit numbers").what


def test_a_missing_embedded_model_blocks(monkeypatch):
    def missing(name):
        raise CourseError("It is here.", "nothing", "Install ftcourse again.")

    monkeypatch.setattr(doctor, "course_path", missing)
    report = doctor.examine(CPU)
    assert not report.ok
    assert find(report, "embedded model").fix == "Install ftcourse again."


def test_an_old_torchao_is_found_through_peft_itself(monkeypatch, versions):
    versions["torchao"] = "0.10.0"
    spec = peft.import_utils.importlib.util.find_spec
    monkeypatch.setattr(
        peft.import_utils.importlib.util,
        "find_spec",
        lambda name, *rest: name == "torchao" or spec(name, *rest),
    )
    peft.import_utils.is_torchao_available.cache_clear()
    trap = find(doctor.examine(CPU), "torchao")
    peft.import_utils.is_torchao_available.cache_clear()
    assert trap.blocks
    assert "0.10.0" in trap.what
    assert trap.fix.startswith("pip uninstall -y torchao")


def test_a_numpy_that_was_replaced_under_the_running_kernel_is_found(monkeypatch):
    monkeypatch.setattr(numpy, "__version__", "2.1.3")
    trap = find(doctor.examine(CPU), "is loaded")
    assert trap.what.startswith("numpy 2.1.3 is loaded")
    assert trap.fix == "restart the kernel"


def test_an_installed_kernels_package_is_found_and_does_not_block(modules):
    modules.add("kernels")
    trap = find(doctor.examine(CPU), "kernels")
    assert trap.fix == "pip uninstall -y kernels"
    assert not trap.blocks


@pytest.mark.parametrize(
    ("colab", "version", "found"),
    [(True, "8.1.9", True), (True, "7.7.1", False), (False, "8.1.9", False)],
)
def test_ipywidgets_8_is_a_trap_on_colab_only(modules, versions, colab, version, found):
    versions["ipywidgets"] = version
    if colab:
        modules.add("google.colab")
    assert any("panels" in trap.what for trap in doctor.examine(CPU).traps) is found


@pytest.mark.parametrize(("name", "found"), [("T4", True), ("A100 40GB", False)])
def test_emulated_bfloat16_is_a_trap_on_cards_below_8_0_only(name, found):
    report = doctor.examine(CARDS[name])
    assert any("is_bf16_supported" in trap.what for trap in report.traps) is found


def test_a_driver_without_a_cuda_torch_is_found(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(doctor.torch.version, "cuda", None)
    assert "pytorch.org" in find(doctor.examine(CPU), "NVIDIA driver").fix


def test_a_version_outside_its_range_is_a_trap_that_does_not_block(versions):
    versions["peft"] = "0.19.0"
    report = doctor.examine(CPU)
    trap = find(report, "peft 0.19.0 is outside")
    assert trap.fix.startswith('pip install "peft')
    assert not trap.blocks
    assert "all in the tested ranges" not in repr(report)


def test_a_library_that_is_not_installed_blocks(versions):
    versions["bitsandbytes"] = None
    trap = find(doctor.examine(CPU), "bitsandbytes is not installed")
    assert trap.blocks
    assert trap.fix.startswith('pip install "bitsandbytes')


def test_a_package_that_pip_never_saw_is_no_error(monkeypatch):
    def unknown(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", unknown)
    assert "not installed by pip" in doctor.examine(CPU).facts["versions"]


def test_many_traps_at_once_still_fit_on_a_screen(versions, modules, monkeypatch):
    modules |= {"kernels", "google.colab"}
    monkeypatch.setattr(numpy, "__version__", "2.1.3")
    report = doctor.examine(CARDS["T4"])
    assert len(report.traps) >= 4
    assert len(repr(report).splitlines()) <= 20


@pytest.mark.parametrize(("blocks", "code"), [(True, 1), (False, 0)])
def test_the_command_prints_the_report_and_its_exit_code_says_whether_lessons_run(
    monkeypatch, capsys, blocks, code
):
    report = doctor.examine(CPU)
    trap = doctor.Trap("Something is wrong.", "fix it", blocks)
    imitated = doctor.Report(report.card, report.dtype, report.facts, (trap,))
    monkeypatch.setattr(doctor, "examine", lambda: imitated)
    assert main(["doctor"]) == code
    assert capsys.readouterr().out == f"{imitated!r}\n"
