"""The trials of claims that a lesson's stored outputs hold."""

import re

TRIED = re.compile(r'try_claim\(\s*"([\w-]+)"')


def stored_trials(notebook):
    """Return each claim that a cell tries: the cell's id, and the trial as it is stored."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return {
        found[1]: {"cell": cell.id} | read_trial(output.data["text/plain"])
        for cell in cells
        if (found := TRIED.search(cell.source))
        for output in cell.outputs
        if output.output_type == "execute_result"
    }


def read_trial(text):
    """Return the evidence and the verdict of a trial's repr, and why it has no evidence."""
    text = re.sub(r"(?<=\w-)\n {9}", "", text)  # a word that was cut at its hyphen
    rows = [row.split(None, 1) for row in re.sub(r"\n {9}", " ", text).splitlines()]
    evidence = {words: name == "yes" for name, words in rows if name in ("yes", "no")}
    rest = {name: words for name, words in rows if name in ("why", "verdict")}
    return {"evidence": evidence} | rest
