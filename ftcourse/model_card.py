"""What goes along with a tuned model: its card, and the commands that take it to other programs."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from shlex import quote

from huggingface_hub import ModelCard, ModelCardData

from ftcourse.config import FinetuneConfig, check_run
from ftcourse.errors import CourseError
from ftcourse.evaluate import Score
from ftcourse.files import user_path, write_whole
from ftcourse.source import Text

_OURS = "<!-- written by ftcourse -->"
_FREE = (_OURS, "[More Information Needed]")  # ours, or peft's form that nobody has filled in
_NOT_FOR = (
    "Anything that was not measured above. It may state false facts in a sure voice, and it keeps "
    "no secrets: whatever was in its data can come out again."
)
_CARD = f"""---
{{{{ card_data }}}}
---
{_OURS}
# {{{{ name }}}}

{{{{ kind }}}} of `{{{{ base }}}}`, made with ftcourse.

## Data
{{{{ data }}}}

## How well it does
Shares of answers that were not trained on, with 95 % intervals (Wilson). An interval is about these
answers of this one run: a run with another seed may lie outside.

| what | share | interval | answers |
| --- | --- | --- | --- |
{{% for row in rows %}}| {{{{ row | join(" | ") }}}} |
{{% endfor %}}
{{% if notes %}}{{{{ notes }}}}

{{% endif %}}## What it must not be used for
{{{{ not_for }}}}

## How it was trained
```json
{{{{ config }}}}
```
"""

# From the programs' documentation; none of them is installed with the course.
_MERGED = """\
vLLM
  vllm serve {folder}
llama.cpp: one file, then that file in 4 bits
  python convert_hf_to_gguf.py {folder} \\
    --outtype f16 --outfile {name}.gguf
  llama-quantize {name}.gguf {name}-q4.gguf Q4_K_M
  llama-cli -m {name}-q4.gguf
ollama: from that file
  echo "FROM ./{name}-q4.gguf" > Modelfile
  ollama create {name} -f Modelfile
  ollama run {name}"""
_ADAPTER = """\
vLLM: the base, with the adapter beside it
  vllm serve {base} --enable-lora \\
    --max-lora-rank {rank} --lora-modules {name}={folder}
llama.cpp: BASE is the folder of the base model, base.gguf its file
  python convert_lora_to_gguf.py {folder} \\
    --base BASE --outfile {name}.gguf
  llama-cli -m base.gguf --lora {name}.gguf
ollama: merge_adapter first; the commands of a merged model follow"""
_VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what --max-lora-rank may be


def write_model_card(
    folder: str | Path,
    config: FinetuneConfig,
    data: str,
    scores: Mapping[str, Score],
    license: str = "other",
    not_for: str = _NOT_FOR,
    notes: str = "",
) -> Path:
    """Write README.md beside a tuned model, in the form that the Hugging Face Hub reads.

    ``data`` says in words what it was trained on and where that came from; ``scores`` are what was
    measured, and ``notes`` what is no share, such as a loss. ``license`` is the Hub's word for it,
    such as ``apache-2.0``; the base model's own licence decides. A card that somebody else wrote is
    never overwritten.
    """
    check_run(config)
    folder = user_path(folder)
    _check_card(folder, data, scores)
    kind = "A full fine-tune" if (folder / "config.json").is_file() else "A LoRA adapter"
    hub = "/" in config.model and not user_path(config.model).exists()
    facts = ModelCardData(
        license=license,
        base_model=config.model if hub else None,
        library_name="transformers" if kind == "A full fine-tune" else "peft",
        pipeline_tag="text-generation",
    )
    card = ModelCard.from_template(
        facts,
        template_str=_CARD,
        name=folder.resolve().name,
        kind=kind,
        base=config.model,
        data=data,
        rows=[_row(name, score) for name, score in scores.items()],
        not_for=not_for,
        notes=notes,
        config=json.dumps(asdict(config), indent=1),
    )
    write_whole(folder / "README.md", str(card))
    return folder / "README.md"


def _row(name: str, score: Score) -> tuple[str, ...]:
    low, high = score.interval
    return name, f"{score.share:.0%}", f"{low:.0%} to {high:.0%}", f"{score.count}"


def _check_card(folder: Path, data: object, scores: object) -> None:
    """Refuse a card without a model, without figures, or in the place of somebody's own."""
    names = [name for name in ("adapter_config.json", "config.json") if (folder / name).is_file()]
    if not names:
        do = "Give the output_dir of a finished run, or of merge_adapter."
        raise CourseError("A card lies beside a tuned model.", f"{folder} has no model", do)
    if not isinstance(data, str) or not data.strip():
        must = "A card says in words what the model was trained on."
        raise CourseError(must, f"data={data!r}"[:200], "Name the data, its size and its source.")
    kept = isinstance(scores, Mapping) and all(isinstance(s, Score) for s in scores.values())
    if not kept or not scores:
        do = "Give {'advice': advice_score(answers, records)}, measured on held-out records."
        raise CourseError("A card holds measured scores.", f"scores={scores!r}"[:200], do)
    card = folder / "README.md"
    if card.exists() and not any(mark in card.read_text(encoding="utf-8") for mark in _FREE):
        must = "A card that somebody wrote is kept."
        raise CourseError(must, f"{card} exists", "Move it away, or add to it by hand.")


def export_commands(folder: str | Path) -> Text:
    """Return the commands that run a tuned model in vLLM, llama.cpp and ollama.

    A merged model and an adapter have other commands. They are not run here: the programs are not
    part of the course.
    """
    folder = user_path(folder)
    names = {"folder": quote(folder.as_posix()), "name": quote(folder.resolve().name)}
    if (folder / "config.json").is_file():
        return Text(_MERGED.format(**names))
    try:
        found = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        rank, base = found["r"], found["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        do = "Give the output_dir of a finished run, or of merge_adapter."
        raise CourseError("A tuned model has a folder.", f"{folder}: {error}", do) from error
    most = next((size for size in _VLLM_RANKS if size >= rank), rank)
    return Text(_ADAPTER.format(**names, base=quote(str(base)), rank=most))
