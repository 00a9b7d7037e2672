"""A lesson as the learner gets it: no outputs, no guesses, and the seconds of this machine."""

import ast
import hashlib
import json
import re
import time
from typing import Any

RECORDED, HERE = "on two cores without a GPU", "on this machine"
SECONDS = re.compile(rf"\A# about (\d+) s (?:{RECORDED}|{HERE})(?:\n|\Z)")
"""The first line of a code cell that takes more than ten seconds."""
REFERENCE_SECONDS = 0.035  # the fastest step of measure_pace on two cores without a GPU


def unanswered(notebook: bytes | str, pace: float | None = None) -> str:
    """Return a notebook without outputs, in which names that begin with "guess" are ``...``.

    With a pace (see measure_pace), the stated seconds become those of this machine. A text that is
    no notebook is returned as it is.
    """
    if (lesson := _parse(notebook)) is None:
        return notebook if isinstance(notebook, str) else notebook.decode()
    for cell in lesson["cells"]:
        if cell["cell_type"] == "code":
            source = _without_guesses(cell["source"])
            if pace and (stated := SECONDS.match(source)):
                seconds = round_seconds(int(stated[1]) * pace)
                source = f"# about {seconds} s {HERE}\n{source[stated.end() :]}"
            cell |= {"source": source, "outputs": [], "execution_count": None}
        cell["source"] = cell["source"].splitlines(keepends=True)
    return json.dumps(lesson, indent=1, ensure_ascii=False) + "\n"


def fingerprint(content: bytes) -> str:
    """Return the SHA-256 of what a learner can change: sources, pictures in them, outputs, counts.

    What JupyterLab adds when it saves changes nothing, nor do other seconds at the top of a cell.
    A file that is no notebook counts with all its bytes.
    """
    if (lesson := _parse(content)) is not None:
        keys = ("cell_type", "attachments", "outputs", "execution_count")
        cells = [
            [SECONDS.sub("", cell["source"]), *(cell.get(key) or None for key in keys)]
            for cell in lesson["cells"]
        ]
        content = json.dumps(cells, sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()


def round_seconds(seconds: float) -> int:
    """Return seconds to expect: in steps of 5 below a minute, of 10 above, and at least 5."""
    return max(5, 5 * round(seconds / 5) if seconds < 60 else 10 * round(seconds / 10))


def measure_pace() -> float:
    """Return how much longer small training steps take here than on the reference: 2.0 is twice."""
    import torch  # here: if a folder's pace is known, it opens without waiting for torch
    from torch.nn import Linear, SiLU

    from ftcourse.hardware import detect

    layers = [Linear(128, 384), SiLU(), Linear(384, 128), SiLU()] * 5
    model = torch.nn.Sequential(*layers, Linear(128, 1536)).to(detect().device)
    tokens = torch.ones(512, 128, device=detect().device)

    def step() -> float:
        start = time.perf_counter()
        model(tokens).log_softmax(-1).mean().backward()
        layers[0].weight.grad.sum().item()  # waits until a GPU is done
        return time.perf_counter() - start

    step()  # the first one also loads kernels
    return min(step() for _ in range(12)) / REFERENCE_SECONDS


def _parse(content: bytes | str) -> dict[str, Any] | None:
    """Return a notebook as JSON, each source as one text; None for what is no notebook."""
    try:
        lesson = json.loads(content)
        for cell in lesson["cells"]:
            cell["source"] = "".join(cell["source"])
    except (ValueError, TypeError, KeyError):
        return None
    return lesson


def _without_guesses(source: str) -> str:
    """Return a cell's source with ``...`` as the value of each guess; comments stay.

    A cell with a line that only IPython understands is returned as it is.
    """
    try:
        nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Assign)]
    except SyntaxError:
        return source
    lines = source.encode().splitlines(keepends=True)  # the columns of ast count bytes
    for node in sorted(nodes, key=lambda node: (node.lineno, node.col_offset), reverse=True):
        if any(getattr(name, "id", "").startswith("guess") for name in node.targets):
            name, end = node.targets[-1], node.end_lineno
            before = lines[name.end_lineno - 1][: name.end_col_offset]
            after = lines[end - 1][node.end_col_offset :]
            lines[name.end_lineno - 1 : end] = [before + b" = ..." + after]
    return b"".join(lines).decode()
