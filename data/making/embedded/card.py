"""The model card: figures from the log and from the measured abilities, a curve, raw samples."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt

from ftcourse.files import write_whole

TEMPLATE = Path(__file__).with_suffix(".md")
COLORS = {  # colour-blind readers can tell them apart (Okabe and Ito, 2008)
    "copying": "#999999",
    "one passage": "#0072B2",
    "three passages": "#D55E00",
    "silent passages": "#009E73",
}
REPORTS = ("abilities", "tuning", "training")


def write_card(folder: Path) -> None:
    """Write README.md and curve.png beside the model, from the reports in the folder."""
    abilities, tuning, training = (read(folder / f"{name}.json") for name in REPORTS)
    samples = (
        f"{i}. *{sample['prompt']}*<br>{sample['answer']}"
        for i, sample in enumerate(abilities["samples"], 1)
    )
    text = TEMPLATE.read_text(encoding="utf-8").format(
        table="\n".join(score_row(*pair) for pair in abilities["abilities"].items()),
        tuning="\n".join(tuning_rows(tuning)),
        samples="\n".join(samples),
        **training,
    )
    write_whole(folder / "README.md", text)
    plot_curve(folder / "training.csv", folder / "curve.png")


def read(path: Path) -> dict:
    """Return a report, or an empty one if the file is missing."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def score_row(name: str, row: dict) -> str:
    """Return a line of a table: right answers, how many in all, their share and its interval."""
    low, high = row["interval"]
    share = row["right"] / row["n"]
    return f"| {name} | {row['right']} | {row['n']} | {share:.1%} | {low:.1%} to {high:.1%} |"


def tuning_rows(tuning: dict) -> Iterator[str]:
    """Yield what each tuning brought and what it cost, one line for each figure."""
    for name, run in tuning.items():
        loss = run["general loss after"] / run["general loss before"] - 1
        yield f"| {name}: general loss | | | {loss:+.1%} | {run['seconds']:.0f} s of training |"
        yield from (score_row(f"{name}: {k}", v) for k, v in run.items() if isinstance(v, dict))


def plot_curve(log: Path, path: Path) -> None:
    """Draw the abilities over the tokens seen, from the log of the run."""
    with log.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    tokens = [int(row["tokens"]) / 1e6 for row in rows]
    figure, ax = plt.subplots(figsize=(7, 3.5), layout="constrained")
    room = 102.0  # each name stands beside its curve's end, or below the name above it
    for name in sorted(COLORS, key=lambda name: -float(rows[-1][name])):
        shares = [100 * float(row[name]) for row in rows]
        ax.plot(tokens, shares, color=COLORS[name])
        room = min(shares[-1], room - 6)
        ax.annotate(f" {name}", (tokens[-1], room), color=COLORS[name], va="center")
    ax.set(xlabel="million tokens", ylabel="right, %", ylim=(0, 102))
    ax.margins(x=0.02)
    ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=80)
    plt.close(figure)
