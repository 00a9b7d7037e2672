"""The model card: figures from the log and from the measured abilities, a curve, raw samples."""

import csv
import json
from pathlib import Path

import matplotlib.pyplot as plt

TEMPLATE = Path(__file__).with_suffix(".md")


def write_card(folder: Path, report: dict) -> None:
    """Write README.md and curve.png beside the model, from its training.json and training.csv."""
    rows = [
        f"| {name} | {row['right']} | {row['n']} | {row['right'] / row['n']:.1%} | "
        f"{row['interval'][0]:.1%} to {row['interval'][1]:.1%} |"
        for name, row in report["abilities"].items()
    ]
    samples = "\n".join(
        f"{i}. *{sample['prompt']}*<br>{sample['answer']}"
        for i, sample in enumerate(report["samples"], 1)
    )
    story = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    text = TEMPLATE.read_text(encoding="utf-8").format(
        table="\n".join(rows), samples=samples, **story
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
    plot_curve(folder / "training.csv", folder / "curve.png")


def plot_curve(log: Path, path: Path) -> None:
    """Abilities over tokens, from the log of the run."""
    with log.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    tokens = [int(row["tokens"]) / 1e6 for row in rows]
    figure, ax = plt.subplots(figsize=(7, 3.5), layout="constrained")
    for name in ("copying", "one passage", "three passages", "silent passages"):
        shares = [100 * float(row[name]) for row in rows]
        (line,) = ax.plot(tokens, shares)
        ax.annotate(f" {name}", (tokens[-1], shares[-1]), va="center", color=line.get_color())
    ax.set(xlabel="million tokens", ylabel="right, %", ylim=(0, 102))
    ax.margins(x=0.02)
    ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=80)
    plt.close(figure)
