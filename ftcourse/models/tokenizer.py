"""The tokenizer of a model, and whether its chat template can be trusted with a dialogue."""

import json
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ftcourse.errors import CourseError
from ftcourse.models.folder import locate
from ftcourse.models.quiet import explained, libraries_quiet
from ftcourse.shape.hub import download

_SECONDS = 20  # for a short dialogue; a template needs milliseconds, and the import about two
_CHARACTERS = 100_000
_MEMORY = 2 * 2**30


@libraries_quiet()
def load_tokenizer(model: str) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a model.

    Raises CourseError if it is missing or damaged, or if its chat template cannot write dialogues.
    """
    place = locate(model)
    if place == model and not Path(place).is_dir():
        download(place, "config.json")  # says in seconds if the Hub is out of reach
    must, do = "A model comes with its tokenizer.", "Copy the tokenizer's files from there as well."
    with explained(must, model, do):
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
    if tokenizer.chat_template is None:
        raise CourseError(
            "Fine-tuning on dialogues needs a tokenizer with a chat template.",
            f"{model!r} has none; it is probably a base model",
            "Use the instruct edition of the model.",
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if model != "embedded":
        _check_template(tokenizer, model)
    return tokenizer


def _check_template(tokenizer: PreTrainedTokenizerBase, model: str) -> None:
    """Refuse a template that fails, takes too long, or does not end an answer.

    It is a program that came with the model. A first dialogue is written in a process of its own,
    with limits, so that a template that never ends or fills the memory does no harm.
    """
    special = {name: str(value) for name, value in tokenizer.special_tokens_map.items()}
    problem, text = _write_dialogue(json.dumps([tokenizer.chat_template, special]))
    if not problem:
        answer = text.rpartition("An answer.")[2]
        added = [str(t) for t in tokenizer.added_tokens_decoder.values() if t.special]
        if not any(token in answer for token in [*added, *special.values()]):
            problem = "no special token follows an answer, so a model never learns to stop"
    if problem:
        raise CourseError(
            "A chat template writes a question and its answer, and then the end of the answer.",
            f"{model}: {problem}",
            "Use the chat template of the model's original edition.",
        )


@lru_cache
def _write_dialogue(template: str) -> tuple[str, str]:
    """Return what is wrong, and the text that a template makes of a short dialogue."""
    command = [sys.executable, "-c", _CHILD.format(memory=_MEMORY, characters=_CHARACTERS)]
    options = {"input": template, "capture_output": True, "text": True, "encoding": "utf-8"}
    try:
        child = subprocess.run(command, timeout=_SECONDS, **options)
    except subprocess.TimeoutExpired:
        return f"the template wrote nothing within {_SECONDS} seconds", ""
    problem = child.stderr.strip().splitlines()[-1:] if child.returncode else []
    return (f"the template failed: {problem[0][:200]}" if problem else ""), child.stdout


_CHILD = """
import json, sys
from transformers.utils.chat_template_utils import render_jinja_template
try:
    import resource
    resource.setrlimit(resource.RLIMIT_DATA, ({memory}, {memory}))
except (ImportError, ValueError, OSError):  # not on every system
    pass
template, special = json.load(sys.stdin)
dialogue = [dict(role="user", content="A question?"), dict(role="assistant", content="An answer.")]
text = render_jinja_template([dialogue], chat_template=template, **special)[0][0]
if len(text) > {characters}:
    sys.exit(f"it wrote {{len(text):,}} characters for six words")
sys.stdout.buffer.write(text.encode())
"""
