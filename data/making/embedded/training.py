"""Pre-training: warm up, hold the rate, decay a copy for export; a killed run can continue."""

import csv
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import LlamaConfig, LlamaForCausalLM

from data.making.embedded.abilities import Exam, copying, share_right
from data.making.embedded.batches import Batches, BatchShape
from data.making.embedded.circuits import draft_copying_heads

torch.set_float32_matmul_precision("high")


@dataclass(frozen=True)
class Recipe:
    """Everything besides the data that decides the result."""

    hidden_size: int = 128
    intermediate_size: int = 384
    layers: int = 5
    heads: int = 4
    rope_theta: float = 5e5  # as Llama 3: slow angles, so far tokens can be found by content
    matrix_rate: float = 1.5e-3
    embedding_rate: float = 1e-3
    warmup_steps: int = 100  # and no higher rates: they overrun the drafted heads
    noise_steps: int = 40
    compiled: bool = True
    seed: int = 0


def new_model(recipe: Recipe, tokenizer) -> LlamaForCausalLM:
    """Return a small Llama with random weights."""
    torch.manual_seed(recipe.seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=1024,
        rope_parameters={"rope_type": "default", "rope_theta": recipe.rope_theta},
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    model = LlamaForCausalLM(config)
    draft_copying_heads(model, recipe.seed)
    return model


class Run:
    """A training run that lives in a folder: model, optimizers, step, and a log of its progress.

    Started by torchrun it runs as n processes: each takes every n-th batch, and their
    gradients are averaged. A step is one batch, so processes that work side by side take several.
    """

    def __init__(self, folder: Path, data: Path, tokenizer, recipe: Recipe, shape: BatchShape):
        """Begin a run in `folder`, or continue the one that is there."""
        self.folder, self.tokenizer, self.recipe, self.shape = folder, tokenizer, recipe, shape
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = new_model(recipe, tokenizer).to(self.device)
        self.optimizers = optimizers(self.model, recipe)
        self.rank, self.world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        self.step, self.seconds = 0, 0.0
        self.exam = {name: probes[::4] for name, probes in Exam(data).sets().items()}
        self.load()

    def load(self) -> None:
        """Continue where the last run in this folder stopped, if there was one."""
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.seconds = state["step"], state["seconds"]

    def save(self) -> None:
        """Write the checkpoint completely or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "seconds": self.seconds,
            "recipe": asdict(self.recipe),
        }
        torch.save(state, self.folder / "checkpoint.new")
        os.replace(self.folder / "checkpoint.new", self.folder / "checkpoint.pt")

    @property
    def tokens(self) -> int:
        """Tokens seen so far."""
        return self.step * self.shape.rows * self.shape.length

    def hold(self, last_step: int, every: int = 400) -> None:
        """Train at the full rate up to `last_step`; save and measure on the way."""
        self.steps(range(self.step, last_step), lambda step: 1.0, every, keep=True)

    def decay(self, steps: int) -> None:
        """Let the rate fall to zero over `steps` further steps; the checkpoint stays as it was."""
        first = self.step
        self.steps(
            range(first, first + steps),
            lambda step: 1 - (step - first + 1) / steps,
            200,
            keep=False,
        )

    def steps(self, steps: range, share, every: int, keep: bool) -> None:
        """Train on the batches of `steps`, at `share(step)` of the full rate."""
        own = steps[self.rank :: self.world]
        data = Batches(self.tokenizer, self.shape, own, self.recipe.noise_steps, self.recipe.seed)
        loader = DataLoader(data, batch_size=None, num_workers=1, prefetch_factor=16)
        loss_of = torch.compile(self.loss, dynamic=False) if self.recipe.compiled else self.loss
        mean = None
        for ids, weights in loader:
            start = time.perf_counter()
            self.set_rate(share(self.step) * min(1.0, (self.step + 1) / self.recipe.warmup_steps))
            loss = loss_of(ids.to(self.device), weights.to(self.device))
            loss.backward()
            self.average_gradients()
            for optimizer in self.optimizers:
                optimizer.step()
                optimizer.zero_grad()
            self.step += self.world
            self.seconds += time.perf_counter() - start
            mean = loss.item() if mean is None else mean + 0.05 * (loss.item() - mean)
            is_due = self.step % every < self.world or self.step >= steps.stop
            if is_due and self.rank == 0:
                self.report(mean, "hold" if keep else "decay")
                if keep:
                    self.save()

    def average_gradients(self) -> None:
        """Give every process the mean of all processes' gradients."""
        if self.world > 1:
            gradients = [p.grad for p in self.model.parameters()]
            mean = torch.cat([g.flatten() for g in gradients]) / self.world
            torch.distributed.all_reduce(mean)
            for gradient, part in zip(
                gradients, mean.split([g.numel() for g in gradients]), strict=True
            ):
                gradient.copy_(part.view_as(gradient))

    def loss(self, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Return the weighted mean of the next-token loss."""
        with torch.autocast(self.device, torch.bfloat16):
            logits = self.model(input_ids=ids, use_cache=False).logits
        losses = F.cross_entropy(
            logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none"
        )
        flat = weights[:, 1:].flatten()
        return (losses * flat).sum() / flat.sum()

    def set_rate(self, share: float) -> None:
        """Set every optimizer to a share of its own full rate."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["full_rate"] * share

    def report(self, loss: float, phase: str) -> None:
        """Append one line to the log: the loss and what the model can do now."""
        shares = {
            name: share_right(self.model, self.tokenizer, probes)
            for name, probes in self.exam.items()
        }
        row = {
            "phase": phase,
            "step": self.step,
            "tokens": self.tokens,
            "seconds": round(self.seconds),
            "loss": round(loss, 4),
        } | {name: round(share, 3) for name, share in shares.items()}
        row["copying"] = round(copying(self.model, len(self.tokenizer)), 3)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "log.csv"
        is_new = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, row, lineterminator="\n")
            if is_new:
                writer.writeheader()
            writer.writerow(row)
        print(row, flush=True)


def optimizers(model: LlamaForCausalLM, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices of the layers, AdamW for the embedding and the norms."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "layers" in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "layers" not in name]
    muon = torch.optim.Muon(
        matrices, lr=recipe.matrix_rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"
    )
    adam = torch.optim.AdamW(others, lr=recipe.embedding_rate, betas=(0.9, 0.95), weight_decay=0.0)
    for optimizer in (muon, adam):
        for group in optimizer.param_groups:
            group["full_rate"] = group["lr"]
    return [muon, adam]
