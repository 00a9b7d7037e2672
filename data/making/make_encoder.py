"""Make the small encoder of lesson 07: train it, measure it beside bm25, write data/encoder/.

    python -m data.making.make_encoder

Run it from the repository's root; it takes some minutes on one core. Eight encoders are trained
with one recipe: the one that is shipped learns every wording of every attribute; three others
each leave one wording of each attribute out, four others a quarter of the attributes. These are
only measured, on what they left out. A killed run continues when you give the command again: each
training has a checkpoint in build/encoder/.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save

from data.making import DATA
from data.making.encoder.measure import Ranker, by_bm25, by_encoder, find, probes, recalls
from data.making.encoder.pairs import Asks, all_asks
from data.making.encoder.training import Recipe, train
from data.making.world.names import table
from ftcourse.evaluate import Score
from ftcourse.files import write_whole
from ftcourse.handbook import load_wordings
from ftcourse.models import load_tokenizer
from ftcourse.retrieval.encoder import Embedder, fingerprint

BUILD = DATA.parent / "build" / "encoder"
CARD = Path(__file__).parent / "encoder" / "card.md"
QUARTERS = 4


def main(recipe: Recipe, folder: Path) -> None:
    """Train all encoders, measure them, and write the one that is shipped."""
    torch.set_num_threads(1)
    shipped = train(recipe, BUILD / "shipped.pt")
    weights = {name: value.half() for name, value in shipped.state_dict().items()}
    shipped.load_state_dict({name: value.float() for name, value in weights.items()})
    known, new, by = probes(), load_wordings(), ranker(shipped)
    figures = {
        "bm25": recalls(find(by_bm25, known), known),
        "encoder, wordings that it learned": recalls(find(by, known), known),
        "encoder, a wording left out": left_out(recipe, "wording", wording_left_out()),
        "encoder, attributes left out": left_out(recipe, "attribute", attributes_left_out()),
        "bm25, wordings of another hand": recalls(find(by_bm25, new), new),
        "encoder, wordings of another hand": recalls(find(by, new), new),
        "bm25, among similar names": recalls(find(by_bm25, known, ("similar",)), known),
        "encoder, among similar names": recalls(find(by, known, ("similar",)), known),
    }
    write(folder, recipe, weights, figures)


def ranker(encoder: torch.nn.Module) -> Ranker:
    """Return the ranking by an encoder."""
    return by_encoder(Embedder(encoder, load_tokenizer("embedded"), "in training"))


Fold = tuple[Asks, list[dict]]


def wording_left_out() -> Iterator[Fold]:
    """Yield, for each wording, the questions without it, and the probes that ask in it."""
    for left in range(3):

        def others(kind: str, attribute: str, left: int = left) -> list[str]:
            return [ask for n, ask in enumerate(all_asks(kind, attribute)) if n != left]

        yield others, [row for row in probes() if row["wording"] == left]


def attributes_left_out() -> Iterator[Fold]:
    """Yield, for each quarter of the attributes, the questions without it, and its probes."""
    names = [f"{kind}.{name}" for kind, rows in table("facts").items() for name in rows]
    for quarter in range(QUARTERS):
        left = set(names[quarter::QUARTERS])

        def others(kind: str, attribute: str, left: set[str] = left) -> list[str]:
            return [] if f"{kind}.{attribute}" in left else all_asks(kind, attribute)

        yield others, [row for row in probes() if row["attribute"] in left]


def left_out(recipe: Recipe, what: str, folds: Iterator[Fold]) -> dict[str, Score]:
    """Return the recall of encoders on what each has left out, all questions together."""
    found, rows = [], []
    for number, (asks, own) in enumerate(folds):
        encoder = train(recipe, BUILD / f"without-{what}-{number}.pt", asks)
        found += find(ranker(encoder), own)
        rows += own
    return recalls(found, rows)


def write(folder: Path, recipe: Recipe, weights: dict, figures: dict) -> None:
    """Write the weights, what the loader must know, the figures and the card."""
    folder.mkdir(parents=True, exist_ok=True)
    vocab_size, hidden_size = weights["tokens.weight"].shape
    config = {"name": "embedded encoder", "tokenizer": "embedded", "vocab_size": vocab_size}
    config |= {"hidden_size": hidden_size, "width": recipe.width, "recipe": asdict(recipe)}
    write_whole(folder / "encoder.safetensors", save(weights))
    write_whole(folder / "config.json", json.dumps(config, indent=2) + "\n")
    lines = [
        f"| {name} | " + " | ".join(str(score) for score in scores.values()) + " |"
        for name, scores in figures.items()
    ]
    card = CARD.read_text(encoding="utf-8").format(
        table="\n".join(lines),
        parameters=sum(value.numel() for value in weights.values()),
        fingerprint=fingerprint(weights),
        **asdict(recipe),
    )
    write_whole(folder / "README.md", card)


if __name__ == "__main__":
    main(Recipe(), DATA / "encoder")
