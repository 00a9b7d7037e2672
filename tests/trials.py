"""The trials of claims that a lesson's stored outputs hold."""

import re

TRIED = re.compile(r'try_claim\(\s*"([\w-]+)"')


def stored_trials(notebook):
    """Return each claim that a cell tries: its evidence and its verdict, as they are stored."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return {
        found[1]: read_trial(output.data["text/plain"])
        for cell in cells
        if (found := TRIED.search(cell.source))
        for output in cell.outputs
        if output.output_type == "execute_result"
    }


def read_trial(text):
    """Return the evidence and the verdict of a trial's repr, its lines joined."""
    rows = [row.split(None, 1) for row in re.sub(r"\n {9}", " ", text).splitlines()]
    evidence = {words: name == "yes" for name, words in rows if name in ("yes", "no")}
    return {"evidence": evidence, "verdict": dict(rows)["verdict"]}
