"""What an arm costs: seconds and tokens, memory, bytes."""

import tempfile
from functools import cache
from pathlib import Path
from statistics import median
from types import SimpleNamespace

from sweep import Run
from torch import nn

from arms.answering import dialogue, look_up, model_of, prompt_of, prompts_from
from arms.choosing import search_of
from arms.questions import allowed, questions, store, stored
from arms.recording import clock
from arms.subject import of_subject, subject, tokenizer
from arms.training import config_of, folder_of, training_seconds
from arms.tries import SEARCHING, TRAINED
from ftcourse.chat import encode_prompt, reply_all
from ftcourse.data import Record
from ftcourse.files import course_path
from ftcourse.live import LiveBytes
from ftcourse.measure import measure_memory
from ftcourse.memory import predict_memory
from ftcourse.models import load_finetuned
from ftcourse.rag import answer

TIMED = 30
NO_PREDICTION = (
    "the course predicts training steps, and nothing is trained; to answer, the weights alone take "
    "{} bytes"
)


def cost(arm: str, choice: str, seed: int) -> Run:
    """Return seconds of training, memory, and the bytes that the arm adds."""
    return (
        {"training seconds": training_seconds(arm, choice, seed)}
        | memory(arm, choice, seed)
        | {"bytes stored": sum(parts_of(arm, choice, seed).values())}
        | {"bytes stored, parts": parts_of(arm, choice, seed)}
    )


def parts_of(arm: str, choice: str, seed: int) -> dict[str, int]:
    """Return the bytes of what the arm adds to the model."""
    found = {}
    if arm == "good prompt":
        settings = prompt_of(arm, choice)
        shots = [m["content"] for m in dialogue("", **settings)[:-1]]
        found["prompt"] = sum(len(text.encode()) for text in shots)
    if arm in SEARCHING:
        with tempfile.TemporaryDirectory() as folder:
            stored(Path(folder, "pages.sqlite")).close()  # closing empties the write-ahead log
            found["index"] = sum(file.stat().st_size for file in Path(folder).iterdir())
        found["encoder"] = course_path("data/encoder/encoder.safetensors").stat().st_size
    if arm in TRAINED:
        weights = folder_of(arm, choice, seed) / "adapter_model.safetensors"
        found["adapter"] = weights.stat().st_size
    return found


def memory(arm: str, choice: str, seed: int) -> Run:
    """Return the peak of training by measurement and by prediction, and the peak of answering."""
    live, weights = answering_peak(arm, choice, seed), predict_memory(subject().plain).weights
    found = {"peak memory, measured": live, "peak memory, predicted": NO_PREDICTION.format(weights)}
    if arm in TRAINED:
        found["peak memory, measured"], found["peak memory, predicted"] = training_peak(arm, choice)
    return found | {"peak memory, answering": live}


@of_subject
@cache
def training_peak(arm: str, choice: str) -> tuple[int, int]:
    """Return the peak of a training step in bytes, measured and predicted; no seed changes it."""
    config = config_of(arm, choice, 0)
    return measure_memory(config).allocated, predict_memory(config).allocated


def answering_peak(arm: str, choice: str, seed: int) -> int:
    """Return the most bytes of tensors alive while the arm answers its longest question."""
    model = model_of(arm, choice, seed)
    columns = ("known", "new", "two pages", "changed", "unanswerable", "leak")
    rows = [row for column in columns for row in questions(column)]
    row = max(rows, key=lambda row: served_length(arm, choice, row))
    live = LiveBytes(model.device.type)
    live.note_residents(model, SimpleNamespace(state={}))
    live.history.mark("answering")
    with live:
        served(arm, choice, model, row)
    return sum(live.history.peaks()["answering"].parts.values())


def served_length(arm: str, choice: str, row: Record) -> int:
    """Return the tokens of the longest prompt of a question."""
    prompts = [row["question"]]
    if arm in SEARCHING:
        prompts = prompts_from(row, look_up(row, search_of(arm)), search_of(arm)["order"])
    asked = [dialogue(prompt, **prompt_of(arm, choice)) for prompt in prompts]
    return max(len(encode_prompt(each, tokenizer())) for each in asked)


def timed(arm: str, choice: str, seed: int) -> Run:
    """Return the medians of 30 questions, asked one after another: whole answers, with search.

    LoRA and RAG + LoRA answer with the adapter merged into the weights, as one would serve them.
    QLoRA answers beside its 4-bit base, which is what it saves memory with.
    """
    model = model_of(arm, choice, seed)
    if arm in ("LoRA", "RAG + LoRA"):
        config, folder = config_of(arm, choice, seed), folder_of(arm, choice, seed)
        model = load_finetuned(config, folder).merge_and_unload().eval()
    asked = [row for row in questions("known") if row["access"] == "public"][:TIMED]
    served(arm, choice, model, asked[0])  # what is loaded or cached once does not count
    spent, tokens, written = [], [], []
    for row in asked:
        begin = clock()
        text, count = served(arm, choice, model, row)
        spent.append(1000 * (clock() - begin))
        tokens.append(count)
        written.append(len(tokenizer()(text).input_ids))
    whole = median(a + b for a, b in zip(tokens, written, strict=True))
    parts = {"tokens read": median(tokens), "tokens written": median(written)}
    return {"tokens a question": whole, "ms a question": round(median(spent), 1)} | parts


def served(arm: str, choice: str, model: nn.Module, row: Record) -> tuple[str, int]:
    """Return an arm's answer to one question, and how many tokens were read for it."""
    if arm not in SEARCHING:
        asked = dialogue(row["question"], **prompt_of(arm, choice))
        text = reply_all(model, tokenizer(), [asked])[0]
        return text, len(encode_prompt(asked, tokenizer()))
    how = dict(search_of(arm))
    said = answer(
        model,
        tokenizer(),
        store(),
        row["question"],
        how.pop("k"),
        allowed(row),
        how.pop("order"),
        subject().declines,
        **how,
    )
    return said.text, said.tokens
