"""The arms, and what each of them tries on validation."""

from sweep import Run

from ftcourse.voice import NEXT_STEP, SIGN_OFF

OPENING = "Thank you for writing to us."
RULES = (
    "You answer for Wrenfield. Begin with a warm sentence. Say why it happened. "
    f'Then write "{NEXT_STEP}" and one sentence with what to do. Blame nobody. '
    f'End with "{SIGN_OFF}"'
)
ORDERED = f'Begin every answer with: "{OPENING}" End every answer with: "{SIGN_OFF}"'
TRAINED, SEARCHING = ("LoRA", "QLoRA", "RAG + LoRA"), ("RAG", "RAG + LoRA")
HIGH, LOW = (1e-3, 2e-3, 4e-3, 8e-3), (4e-4, 8e-4, 1.6e-3, 3.2e-3)
TRIES: dict[str, dict[str, Run]] = {
    "prompt": {"the question alone": {}},
    "good prompt": {
        "rules in words": {"system": RULES, "shots": 0},
        "opening and sign-off": {"system": ORDERED, "shots": 0},
        "opening and sign-off, 3 examples": {"system": ORDERED, "shots": 3},
        "rules in words, 1 example": {"system": RULES, "shots": 1},
    },
    "RAG": {
        "dense, k=1": {"how": "dense", "k": 1, "order": "best last"},
        "hybrid, k=3": {"how": "hybrid", "k": 3, "order": "best last"},
        "hybrid, k=3, one by one": {"how": "hybrid", "k": 3, "order": "one by one"},
        "dense, k=3, one by one": {"how": "dense", "k": 3, "order": "one by one"},
    },
    "LoRA": {f"rate {rate}": {"learning_rate": rate} for rate in HIGH},
    "QLoRA": {f"rate {rate}": {"learning_rate": rate} for rate in HIGH},
    "RAG + LoRA": {f"rate {rate}": {"learning_rate": rate} for rate in LOW},
}
"""What each arm tries on validation. RAG + LoRA searches as RAG does best.

The fourth one came for all of them when LoRA's best rate stood at the end of its grid.
"""
RATES_OF_ANY = (5e-5, 1e-4, 2e-4, 4e-4)
"""The rates that a trained arm tries with another model: ours bears far higher ones."""
WAYS: dict[str, dict[str, Run]] = {
    "one fact": {
        "rate 0.0001, new rows": {"rate": 1e-4, "new": 8, "old": 0, "steps": 20},
        "rate 0.0001, half old rows": {"rate": 1e-4, "new": 4, "old": 4, "steps": 20},
        "rate 0.0003, half old rows": {"rate": 3e-4, "new": 4, "old": 4, "steps": 20},
    },
    "forty facts": {
        f"{steps} steps": {"rate": 1e-3, "new": 8, "old": 8, "steps": steps}
        for steps in (60, 120, 240)
    },
}
"""What the closed-book arms try, to learn changed facts: rows of a step, and how many steps."""
