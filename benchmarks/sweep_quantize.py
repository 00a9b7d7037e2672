"""How well the embedded model reads its handbook when its weights have few bits.

Run ``python benchmarks/sweep_quantize.py``. It measures each setting that the recorded file lacks,
about three CPU seconds each. Nothing in it is random, so a setting has one run and no seed.

Run ``python benchmarks/sweep_quantize.py --twins 200`` to hold our codes, constants and values
against bitsandbytes' on 200 million random weights, which takes a few minutes.
"""

import argparse
from collections.abc import Iterator
from itertools import cycle, product
from typing import Any

import torch
from sweep import sweep

from ftcourse.config import FinetuneConfig
from ftcourse.data import read_records
from ftcourse.evaluate import answer_all, text_loss
from ftcourse.files import course_path
from ftcourse.handbook import fact_score, load_questions
from ftcourse.models import load_base, load_tokenizer
from ftcourse.quantize import FP4, NF4, bits_per_weight, quantize_as, quantize_blockwise

BITS = (4, 3, 5, 6, 8, 2)
BLOCKS = ("tensor", "row", 64, 32)
PARTS = ["layers.0.", "layers.1.", "layers.2.", "layers.3.", "layers.4."]
PARTS += ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# Bits of the integers in layers 0 to 4.
MIXTURES = ("33333", "44444", "55555", "55333", "54333", "53333", "45333", "33355", "55444")


def settings() -> list[dict[str, Any]]:
    """Return all settings: whole models, parts of one, mixtures; what matters most first."""
    begin = [{"scheme": "none", "bits": 32, "block": "tensor", "part": "all"}]
    begin += [{"scheme": "fp4", "bits": 4, "block": b, "part": "all"} for b in BLOCKS]
    parts = [{"scheme": "integer", "bits": 3, "block": 64, "part": part} for part in PARTS]
    mixed = [{"scheme": "integer", "bits": bits, "block": 64, "part": "mix"} for bits in MIXTURES]
    mixed += [{"scheme": "normal", "bits": b, "block": 64, "part": "mix"} for b in MIXTURES[3:5]]
    whole = [
        {"scheme": scheme, "bits": bits, "block": block, "part": "all"}
        for bits, scheme, block in product(BITS, ("integer", "affine", "normal"), BLOCKS)
    ]
    return begin + whole[:24] + parts + mixed + whole[24:]


class Reader:
    """The embedded model, which reads with other weights."""

    def __init__(self) -> None:
        """Load the model, all questions, and the plain texts of its loss."""
        self.model = load_base(FinetuneConfig(model="embedded", method="full"))
        self.tokenizer, self.questions = load_tokenizer("embedded"), load_questions()
        texts = read_records(course_path("data/general.jsonl"))
        self.texts = [record["text"] for record in texts]
        state = self.model.state_dict()
        self.weights = {name: w.clone() for name, w in state.items() if "proj" in name}

    def measure(self, scheme: str, bits: int | str, block: int | str, part: str) -> dict[str, Any]:
        """Return how many pages are read right, the loss, the error and the bits a weight."""
        restored = {
            name: self.restore(name, weight, scheme, bits, block, part)
            for name, weight in self.weights.items()
        }
        self.model.load_state_dict(restored, strict=False)
        answers = answer_all(self.model, self.tokenizer, self.questions)
        apart = sum((restored[n] - w).square().sum().item() for n, w in self.weights.items())
        whole = sum(w.square().sum().item() for w in self.weights.values())
        return {
            "right": fact_score(answers, self.questions).successes,
            "count": len(answers),
            "loss": round(text_loss(self.model, self.tokenizer, self.texts), 4),
            "error": round((apart / whole) ** 0.5, 5),
            "bits_per_weight": round(self.bits_of(scheme, bits, block, part), 4),
        }

    def restore(self, name, weight, scheme, bits, block, part) -> torch.Tensor:
        """Return a weight as it is after rounding, or as it was if the setting spares it."""
        if scheme == "none" or (part not in ("all", "mix") and part not in name):
            return weight
        return quantize_as(scheme, weight, self.bits_in(name, bits), block).dequantize()

    def bits_in(self, name: str, bits: int | str) -> int:
        """Return the bits of a weight; in a mixture, the bits of its layer."""
        return int(bits[int(name.split("layers.")[1][0])]) if isinstance(bits, str) else bits

    def bits_of(self, scheme, bits, block, part) -> float:
        """Return the bits of a weight with its share of constants, the mean over all weights."""
        total = 0
        for name, weight in self.weights.items():
            spared = scheme == "none" or (part not in ("all", "mix") and part not in name)
            size = {"row": weight.shape[-1], "tensor": weight.numel()}.get(block, block)
            own = bits_per_weight(self.bits_in(name, bits), size, zero_point=scheme == "affine")
            total += weight.numel() * (32 if spared else own)
        return total / sum(weight.numel() for weight in self.weights.values())


def twins(millions: float) -> dict[str, int]:
    """Return how many weights were compared with bitsandbytes, and how many differed in what."""
    import bitsandbytes.functional as twin

    generator = torch.Generator().manual_seed(0)
    counts = dict.fromkeys(("weights", "codes", "constants", "values", "flushed"), 0)
    for codebook, dtype, size, double in cycle(_cases()):
        name = "nf4" if codebook is NF4 else "fp4"
        weight = _random_weight(generator).to(dtype)
        mine = quantize_blockwise(weight, codebook, size, double)
        packed, state = twin.quantize_4bit(
            weight, blocksize=size, quant_type=name, compress_statistics=double
        )
        # One row: for a block longer than a row, its kernel for AVX512 takes a wrong constant.
        state.shape = (weight.numel(),)
        theirs = twin.dequantize_4bit(packed, state).reshape(weight.shape)
        codes = torch.stack([packed >> 4, packed & 15], 1).flatten()[: weight.numel()]
        absmax = state.absmax
        if double:
            absmax = twin.dequantize_blockwise(state.absmax, state.state2) + state.offset
        counts["weights"] += weight.numel()
        counts["codes"] += int((codes != mine.codes.flatten()).sum())
        counts["constants"] += int((absmax != mine.absmax).sum())
        values = mine.dequantize()
        differ = theirs != values
        # Where a CPU has AVX512, its kernel makes zeros of subnormal bfloat16 values.
        tiny = (values.abs() < torch.finfo(dtype).tiny) & (theirs == 0) & differ
        counts["flushed"] += int(tiny.sum())
        counts["values"] += int((differ & ~tiny).sum())
        if counts["weights"] >= 1e6 * millions:
            break
    return counts


def _cases() -> Iterator[tuple]:
    dtypes = torch.float32, torch.float16, torch.bfloat16
    return product((NF4, FP4), dtypes, [2**k for k in range(5, 13)], (False, True))


def _random_weight(generator: torch.Generator) -> torch.Tensor:
    """Return about a million weights of some size and spread, with zeros, outliers and others."""
    rows, columns = torch.randint(500, 1500, (2,), generator=generator).tolist()
    spread = 10 ** (6 * torch.rand(1, generator=generator).item() - 4)
    weight = spread * torch.randn(rows, columns, generator=generator)
    weight.view(-1)[:4096] = 0
    weight[7] *= 1e-39 / spread  # subnormal numbers
    weight[8, :50] *= 30
    return weight


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--twins", type=float, metavar="MILLIONS")
    if millions := parser.parse_args().twins:
        print(twins(millions))
    else:
        reader = Reader()
        sweep("quantize", settings(), reader.measure)
