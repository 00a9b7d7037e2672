"""What made the files of ``data/``: the world of texts, the embedded model, and its measurements.

Five scripts, run from the repository's root with ``python -m``:

    python -m data.making.make_world          the handbook, the dialogues, the questions, the texts
    python -m data.making.make_model          the embedded model, from text that ``world`` generates
    python -m data.making.make_adapters       the shipped adapters of that model, and their figures
    python -m data.making.evaluate_model      what the model can do
    python -m data.making.evaluate_tuning     what fine-tuning does to it

``world`` holds the facts and the sentences, ``embedded`` the training. Nothing of this folder is in
the wheel.
"""

from pathlib import Path

DATA = Path(__file__).resolve().parents[1]
