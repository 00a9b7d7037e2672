"""The first code cell of every lesson, made from pyproject.toml; store_notebooks.py writes it."""

import tomllib
from pathlib import Path

PROJECT = Path(__file__).parent.parent / "pyproject.toml"
CELL = """\
import sys
from importlib.util import find_spec
{imports}
if find_spec("ftcourse") is None:
    colab = "google.colab" in sys.modules
    assert colab, "Choose the kernel of ftcourse, or run ftcourse lab."
{install}
from ftcourse.setup import prepare

prepare()"""
FROM_REPOSITORY = """\
    %pip install -q --no-deps git+{address}"""
# The newest wheel. A browser may have added " (1)" to its name, which pip does not accept.
FROM_WHEEL = """\
    wheels = sorted(Path().glob("ftcourse-*.whl"), key=getmtime)
    assert wheels, "Upload the wheel of ftcourse first: see its README."
    wheel = wheels[-1].rename(f"{wheels[-1].stem.split(' (')[0]}.whl")
    %pip install -q --no-deps {wheel}"""
WHEEL_IMPORTS = """\
from os.path import getmtime
from pathlib import Path
"""


def repository() -> str | None:
    """Return the address of the course's repository, if pyproject.toml states it."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    return project.get("urls", {}).get("Repository")


def setup_cell(address: str | None) -> str:
    """Return the source of the cell; without an address, Colab gets the course from a wheel."""
    if address:
        return CELL.format(imports="", install=FROM_REPOSITORY.format(address=address))
    return CELL.format(imports=WHEEL_IMPORTS, install=FROM_WHEEL)
