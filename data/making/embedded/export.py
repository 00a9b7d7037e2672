"""Write a trained model as a folder of the Hub's format."""

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import torch
from transformers import GenerationConfig

from data.making.embedded.training import Run
from ftcourse.files import write_whole


def export(run: Run, folder: Path) -> None:
    """Save weights, configs, tokenizer, and the record of the training under `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    run.model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=64,
        bos_token_id=run.tokenizer.bos_token_id,
        eos_token_id=run.tokenizer.eos_token_id,
        pad_token_id=run.tokenizer.pad_token_id,
    )
    run.model.save_pretrained(folder)
    os.chmod(folder / "model.safetensors", 0o644)  # readable by all who install the course
    run.tokenizer.save_pretrained(folder)
    shutil.copy(run.folder / "log.csv", folder / "training.csv")
    text = json.dumps(training_report(run), indent=1) + "\n"
    write_whole(folder / "training.json", text)


def training_report(run: Run) -> dict:
    """Return what the model card says about the training."""
    gpu = torch.cuda.get_device_name() if run.device == "cuda" else None
    return {
        "parameters": sum(p.numel() for p in run.model.parameters()),
        "steps": run.step,
        "tokens": run.tokens,
        "seconds": round(run.seconds),
        "device": gpu or f"{run.world} CPU cores",
        "recipe": asdict(run.recipe),
        "shape": asdict(run.shape),
    }
