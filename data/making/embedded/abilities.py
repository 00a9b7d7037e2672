"""What the model can do, measured on the handbook, which it has never read."""

import json
import random
from dataclasses import dataclass
from pathlib import Path

import torch

from data.making.embedded.batches import repeated_noise
from data.making.world.corpus import SILENT, UNREAD
from data.making.world.handbook import Fact, editions, pages
from ftcourse.handbook import one_line, question_prompt


@dataclass(frozen=True)
class Probe:
    """One prompt and the answer that a reader of the passages gives."""

    messages: list[dict[str, str]]
    answer: str
    value: str | None = None


def ask_about(question: str, passages: list[str]) -> list[dict[str, str]]:
    """Return the dialogue that asks a question about passages."""
    return [{"role": "user", "content": question_prompt(question, passages)}]


class Exam:
    """Every probe of the ability table, from the questions and the first edition's pages."""

    def __init__(self, data: Path, seed: int = 0):
        """Read the questions of the folder `data`."""
        lines = (data / "questions.jsonl").read_text(encoding="utf-8").splitlines()
        self.questions = [json.loads(line) for line in lines]
        self.facts = editions()[0]
        self.bodies = {name: one_line(text) for name, text in pages(self.facts, 1).items()}
        self.owner: dict[str, Fact] = {fact.page: fact for fact in self.facts}
        self.seed = seed

    def sets(self) -> dict[str, list[Probe]]:
        """Return the probes of each ability."""
        stated = [q for q in self.questions if q["value"] and q["edition"] == 1]
        open_ones = [q for q in self.questions if q["value"] is None]
        rng = random.Random(f"exam {self.seed}")
        return {
            "one passage": [self.probe(rng, q, 0) for q in stated],
            "three passages": [self.probe(rng, q, 2) for q in stated],
            "silent passages": [self.silent(rng, q) for q in stated + open_ones],
            "closed book": [
                Probe(ask_about(q["question"], []), UNREAD, q["value"]) for q in stated
            ],
        }

    def probe(self, rng: random.Random, question: dict, others: int) -> Probe:
        """Return a question with its page among `others` wrong ones."""
        names = [question["page"], *rng.sample(self.neighbours(question["page"]), others)]
        rng.shuffle(names)
        passages = [self.bodies[name] for name in names]
        return Probe(
            ask_about(question["question"], passages), question["answer"], question["value"]
        )

    def silent(self, rng: random.Random, question: dict) -> Probe:
        """Return a question with one to three pages that do not answer it."""
        page = question["page"]
        pool = self.neighbours(page) if page else self.mentions(question["question"])
        names = rng.sample(pool, rng.randint(1, 3))
        passages = [self.bodies[name] for name in names]
        return Probe(ask_about(question["question"], passages), SILENT, question["value"])

    def neighbours(self, page: str) -> list[str]:
        """Return pages that a search could mistake for this one: same subject, or same topic."""
        own = self.owner[page]
        return [
            name
            for name, fact in self.owner.items()
            if name != page
            and fact.kind == own.kind
            and (fact.subject == own.subject or fact.entry["page"] == own.entry["page"])
        ]

    def mentions(self, question: str) -> list[str]:
        """Return pages whose subject the question names, or all pages of drones if none does."""
        drones = [name for name, fact in self.owner.items() if fact.kind == "drone"]
        named = [name for name in drones if self.owner[name].subject in question]
        return named or drones


@torch.no_grad()
def copying(model, vocabulary: int, rows: int = 32, length: int = 128) -> float:
    """Return the share of repeated noise tokens that the model predicts after their first time."""
    rng = random.Random("copying")
    made = [repeated_noise(rng, length, vocabulary) for _ in range(rows)]
    ids, weights = (torch.tensor(part, device=model.device) for part in zip(*made, strict=True))
    hits = model(input_ids=ids).logits[:, :-1].argmax(-1) == ids[:, 1:]
    return ((hits * weights[:, 1:]).sum() / weights[:, 1:].sum()).item()


@torch.no_grad()
def share_right(model, tokenizer, probes: list[Probe], batch: int = 32) -> float:
    """Return the share of probes whose whole answer is the greedy one, token for token.

    Fast: one forward pass over prompt and answer is enough, nothing is generated.
    """
    right = 0
    for start in range(0, len(probes), batch):
        right += sum(whole_answers(model, tokenizer, probes[start : start + batch]))
    return right / len(probes)


def whole_answers(model, tokenizer, probes: list[Probe]) -> list[bool]:
    """Return, for each probe, whether every token of its answer is the likeliest one."""
    rows, starts = [], []
    for probe in probes:
        prompt = tokenizer.apply_chat_template(
            probe.messages, add_generation_prompt=True, return_dict=False
        )
        answer = tokenizer(probe.answer, add_special_tokens=False).input_ids
        starts.append(len(prompt))
        rows.append([*prompt, *answer, tokenizer.eos_token_id])
    longest = max(map(len, rows))
    padded = torch.tensor([row + [tokenizer.pad_token_id] * (longest - len(row)) for row in rows])
    guesses = model(input_ids=padded.to(model.device)).logits.argmax(-1).cpu()
    return [
        guesses[i, start - 1 : len(row) - 1].tolist() == row[start:]
        for i, (row, start) in enumerate(zip(rows, starts, strict=True))
    ]
