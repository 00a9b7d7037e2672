"""The tokenizer: byte-level BPE on the training text, each digit a token, a chat template."""

import random
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from data.making.world.corpus import document

BEGIN, END, PAD = "<|begin|>", "<|end|>", "<|pad|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
SIZE = 1536
ONE_DIGIT = Regex(" ?[0-9]")  # with its space: the first digit of a number looks like a first digit
TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + eos_token }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def make_tokenizer(size: int = SIZE, texts: int = 20_000, seed: int = 0) -> PreTrainedTokenizerFast:
    """Train the tokenizer on `texts` documents of the training text."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(ONE_DIGIT, "isolated"), pre_tokenizers.ByteLevel(False)]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[PAD, BEGIN, END, *ROLES],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rng = random.Random(f"tokenizer {seed}")
    bpe.train_from_iterator((plain(document(rng)) for _ in range(texts)), trainer)
    return wrap(bpe)


def plain(doc: str | list[dict[str, str]]) -> str:
    """Return a document as plain text, without the marks of a chat."""
    return doc if isinstance(doc, str) else "\n".join(message["content"] for message in doc)


def wrap(bpe: Tokenizer) -> PreTrainedTokenizerFast:
    """Return the tokenizer as transformers expects it."""
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=list(ROLES),
        chat_template=TEMPLATE,
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Return the tokenizer of `folder`; make it and save it there if it is missing."""
    if not (folder / "tokenizer.json").exists():
        make_tokenizer().save_pretrained(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)
