"""The first code cell of every lesson, made from pyproject.toml; store_notebooks.py writes it."""

import tomllib
from pathlib import Path

PROJECT = Path(__file__).parent.parent / "pyproject.toml"
CELL = """\
import sys
from importlib.util import find_spec
{imports}
if find_spec("ftcourse") is None:
    kernel = "Change Kernel to ftcourse's, or start with: ftcourse lab"
    assert "google.colab" in sys.modules, kernel
{install}
from ftcourse.setup import prepare

prepare()"""
FROM_REPOSITORY = """\
    %pip install -q --no-deps git+{address}"""
# The newest wheel. A browser may have added " (1)" to its name, which pip does not accept.
FROM_WHEEL = """\
    found = sorted(Path().glob("ftcourse-*.whl"), key=getmtime)
    assert found, "Upload the wheel of ftcourse first: see its README."
    wheel = found[-1].rename(f"{found[-1].stem.split('any')[0]}any.whl")
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
