"""Write a trained model as a folder of the Hub's format."""

from pathlib import Path

from transformers import GenerationConfig


def export(run, folder: Path) -> None:
    """Save weights, config, generation config and tokenizer under `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    run.model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=64,
        bos_token_id=run.tokenizer.bos_token_id,
        eos_token_id=run.tokenizer.eos_token_id,
        pad_token_id=run.tokenizer.pad_token_id,
    )
    run.model.save_pretrained(folder)
    run.tokenizer.save_pretrained(folder)
