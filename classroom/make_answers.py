"""The lessons with their exercises answered, for instructors: never handed out by ftcourse itself.

Run ``python classroom/make_answers.py OUT [LESSON ...]``. Each exercise's cell gets the solution
that its check knows, and above it stand its hints. With ``--run`` the lessons are executed, and it
ends with 1 if a solution does not pass its check.
"""

import argparse
import ast
import sys
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbformat import NotebookNode, v4

from ftcourse import check
from ftcourse.files import course_path, user_path

NOTICE = (
    "**For instructors.** Every exercise is answered here, under its hints. "
    "Made by `classroom/make_answers.py` from the checks' own solutions; the lesson is {lesson}."
)


def lessons() -> list[Path]:
    """Return the lessons of the course in their order."""
    return sorted(course_path("notebooks").glob("*.ipynb"))


def answered(lesson: Path) -> NotebookNode:
    """Return a lesson with hints and solutions in place of the three dots."""
    notebook = nbformat.read(lesson, as_version=4)
    cells = [v4.new_markdown_cell(NOTICE.format(lesson=lesson.name), id="for-instructors")]
    for cell in notebook.cells:
        name = asked(cell)
        if name:
            hints = "\n".join(f"{n}. {check.hint(name, n)}" for n in (1, 2, 3))
            cells.append(v4.new_markdown_cell(f"**Hints**\n\n{hints}", id=f"hints-{name}"[:64]))
            cell.source = answer(cell.source, name)
            cell |= {"outputs": [], "execution_count": None}
        cells.append(cell)
    notebook.cells = cells
    return notebook


def asked(cell: NotebookNode) -> str | None:
    """Return the name of the exercise that a cell asks for, if it does."""
    if cell.cell_type != "code" or "check." not in cell.source:
        return None
    call = getattr(ast.parse(cell.source).body[-1], "value", None)
    if not isinstance(call, ast.Call) or not ast.unparse(call.func).startswith("check."):
        return None
    name = call.func.attr
    return None if name in check.__all__ else name


def answer(source: str, name: str) -> str:
    """Return a cell that answers and is judged; what prepares the answer stays as it is."""
    *body, call = ast.parse(source).body
    replaced = ast.unparse(call.value.args[0]), "mine"
    kept = [ast.get_source_segment(source, node) for node in body if not is_open(node, replaced)]
    parts = [*kept, check.solution(name), f"check.{name}(mine)"]
    return "\n".join(str(part) for part in parts)


def is_open(node: ast.stmt, replaced: tuple[str, ...]) -> bool:
    """Return whether a statement is what the learner fills in: three dots, or what is judged."""
    if isinstance(node, ast.FunctionDef):
        return node.name in replaced
    if isinstance(node, ast.Assign):
        return ast.unparse(node.targets[0]) in replaced
    return isinstance(node, ast.Expr) and ast.unparse(node) == "..."


def run(notebook: NotebookNode, folder: Path) -> list[str]:
    """Execute a lesson in a folder, and return the exercises whose solution did not pass."""
    from nbclient import NotebookClient

    where = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, kernel_name="python3", resources=where, timeout=1800).execute()
    judged = {asked(cell): cell for cell in notebook.cells if asked(cell)}
    return [name for name, cell in judged.items() if not passed(cell)]


def passed(cell: NotebookNode) -> bool:
    """Return whether the last thing that a cell showed is the verdict of a right answer."""
    shown = cell.outputs[-1].get("data", {}).get("text/plain", "") if cell.outputs else ""
    return shown.startswith("✓")


def main(argv: Sequence[str] | None = None) -> int:
    """Write the answered lessons, and say where they are."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=user_path, metavar="OUT")
    parser.add_argument("lesson", nargs="*", help="such as 00_start_here (default: all)")
    parser.add_argument("--run", action="store_true", help="execute them, which takes minutes")
    options = parser.parse_args(argv)
    known = {path.stem: path for path in lessons()}
    if unknown := set(options.lesson) - set(known):
        print(f"no lesson: {', '.join(unknown)}. There are {', '.join(known)}.", file=sys.stderr)
        return 2
    options.out.mkdir(mode=0o700, parents=True, exist_ok=True)
    wrong = []
    for name in options.lesson or known:
        notebook = answered(known[name])
        if options.run:
            wrong += run(notebook, options.out)
        nbformat.write(notebook, options.out / f"{name}.answers.ipynb")
        print(options.out / f"{name}.answers.ipynb", flush=True)
    print(*(f"{name}: the solution did not pass" for name in wrong), sep="\n", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
