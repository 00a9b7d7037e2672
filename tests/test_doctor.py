import importlib.util
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
OLD_NUMPY = "1.26.4"  # below our floor, so never the one that is installed


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


@pytest.fixture
def old_torchao(monkeypatch, versions):
    """Pretend that Colab's torchao is installed."""
    versions["torchao"] = "0.10.0"
    there, spec = peft.import_utils.is_torchao_available, importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: name == "torchao" or spec(name, *rest)
    )
    there.cache_clear()
    yield
    there.cache_clear()


@pytest.fixture
def everything_wrong(monkeypatch, modules, versions, old_torchao):
    """Pretend that a machine has all of the traps that a kernel can survive."""
    modules |= {"kernels", "google.colab"}
    versions |= {"ipywidgets": "8.1.9", "peft": "0.19.0"}
    monkeypatch.setattr(numpy, "__version__", OLD_NUMPY)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(doctor.torch.version, "cuda", None)
    broken = types.SimpleNamespace(quantize_4bit=broken_kernel, dequantize_4bit=broken_kernel)
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", broken)


def broken_kernel(*_, **__):
    raise OSError("libcudart.so: cannot open shared object file: No such file")


def find(report, word):
    """Return the one trap that speaks of a word."""
    (trap,) = [trap for trap in report.traps if word in trap.what]
    return trap


@pytest.mark.parametrize(
    ("card", "words"),
    [
        (CARDS["T4"], ["Tesla T4, 14.6 GiB, compute capability 7.5", "float16: compute"]),
        (CARDS["A100 40GB"], ["A100 40GB, 39.4 GiB, compute capability 8.0", "bfloat16: comp"]),
        (CPU, ["no GPU, and none is needed: CPU, 16.0 GiB\n", "float32: on a CPU"]),
    ],
)
def test_the_report_names_card_memory_capability_and_dtype_with_the_reason(card, words):
    text = repr(doctor.examine(card))
    for word in words:
        assert word in text


def test_the_report_is_short_and_narrow_and_names_every_tested_library():
    lines = repr(doctor.examine(CARDS["T4"])).splitlines()
    assert len(lines) <= 20
    assert max(map(len, lines)) <= 80
    for library in ("torch", "transformers", "peft", "bitsandbytes", "numpy"):
        assert f"{library} {metadata.version(library)}" in " ".join(lines)


def test_the_main_memory_of_this_machine_is_shown_with_what_is_free_of_it(monkeypatch):
    free = types.SimpleNamespace(available=7 * GIB)
    monkeypatch.setattr(doctor, "detect", lambda: CPU)
    monkeypatch.setattr(doctor.psutil, "virtual_memory", lambda: free)
    lines = repr(doctor.examine()).splitlines()
    assert lines[0] == "card     no GPU, and none is needed: CPU, 7.0 of 16.0 GiB free"
    assert not any("main memory" in line for line in lines)


def test_the_gpu_of_this_machine_is_shown_with_what_other_programs_leave_free(monkeypatch):
    card = Card("Tesla T4", 15 * GIB, (7, 5))
    monkeypatch.setattr(doctor, "detect", lambda: card)
    monkeypatch.setattr(doctor.torch.cuda, "mem_get_info", lambda index: (6 * GIB, 15 * GIB))
    text = repr(doctor.examine())
    assert text.startswith("card     Tesla T4, 6.0 of 15.0 GiB free, compute capability 7.5\n")
    assert "GiB of main memory and" in text


def test_no_line_has_two_colons():
    for card in (CPU, *CARDS.values()):
        for line in repr(doctor.examine(card)).splitlines():
            assert line.count(":") <= 1


def test_when_everything_is_wrong_lines_are_narrow_and_none_has_two_colons(everything_wrong):
    report = doctor.examine(CARDS["T4"])
    assert len(report.traps) == 8
    for line in repr(report).splitlines():
        assert line.count(":") <= 1
        assert len(line) <= 100


def test_a_real_4bit_kernel_ran_and_was_compared():
    report = doctor.examine(CPU)
    assert "restores 4096 numbers" in report.facts["4-bit"]
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


def test_an_old_torchao_is_found_through_peft_itself(old_torchao):
    trap = find(doctor.examine(CPU), "torchao")
    assert trap.blocks
    assert "0.10.0" in trap.what
    assert trap.fix == "pip uninstall -y torchao"


def test_without_the_old_torchao_peft_works_again_in_the_same_kernel(old_torchao, versions):
    with pytest.raises(ImportError, match="incompatible version of torchao"):
        peft.import_utils.is_torchao_available()
    versions["torchao"] = None  # uninstalled
    assert not peft.import_utils.is_torchao_available()
    assert not any("torchao" in trap.what for trap in doctor.examine(CPU).traps)


def test_a_numpy_that_was_replaced_under_the_running_kernel_is_found(monkeypatch):
    monkeypatch.setattr(numpy, "__version__", OLD_NUMPY)
    trap = find(doctor.examine(CPU), "is loaded")
    assert trap.what.startswith(f"numpy {OLD_NUMPY} is loaded")
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
    versions["ipywidgets"] = "8.1.9"
    monkeypatch.setattr(numpy, "__version__", OLD_NUMPY)
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
