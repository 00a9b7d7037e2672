"""Lists the licence of every package that pyproject.toml leads to: ``python tests/licences.py``.

It writes LICENSES.md from what is installed. No versions: they move, and licences seldom do.
"""

import re
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
FILE = ROOT / "LICENSES.md"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FREE = {  # they ask for their text, and for a word on who wrote it
    *("Apache-2.0", "MIT", "MIT-0", "MIT-CMU", "BSD", "BSD-2-Clause", "BSD-3-Clause", "0BSD"),
    *("ISC", "PSF-2.0", "CNRI-Python", "Zlib", "CC0-1.0", "BSL-1.0", "Unlicense"),
    "Apache-2.0 WITH LLVM-exception",
}
NAMED = {"MPL-2.0", "LGPL-2.1", "LGPL-3.0"}  # who changes their files gives the changes away
# What older metadata says instead of an SPDX name, as a pattern.
SPOKEN = {
    r"apache.*": "Apache-2.0",
    r"bsd[- ]?3.*": "BSD-3-Clause",
    r"bsd[- ]?2.*": "BSD-2-Clause",
    r"bsd.*": "BSD",
    r"mit( license)?": "MIT",
    r"isc.*": "ISC",
    r"psfl?|python software foundation.*": "PSF-2.0",
    r"mozilla public license 2\.0.*": "MPL-2.0",
}
# What this machine lacks: of other systems, of the releases of .ci/columns, of extras. By hand.
ELSEWHERE = {
    **dict.fromkeys(["aiosignal", "frozenlist", "multidict", "propcache", "yarl"], "Apache-2.0"),
    **dict.fromkeys(["qdrant-client", "sentence-transformers"], "Apache-2.0"),
    **dict.fromkeys(["entrypoints", "pickleshare", "pytz", "pywinpty", "triton"], "MIT"),
    **dict.fromkeys(["backcall", "colorama", "ipython-genutils", "nest-asyncio"], "BSD"),
    **{"aiohappyeyeballs": "PSF-2.0", "aiohttp": "Apache-2.0 AND MIT", "appnope": "BSD"},
    **{"decorator": "BSD-2-Clause", "pywin32": "PSF-2.0"},
}
# Whose metadata names no licence; from the files themselves: axe itself is under the MPL.
READ = {"axe-playwright-python": "MIT AND MPL-2.0"}
CUDA = re.compile(r"nvidia-.*|cuda-.*")  # NVIDIA's own licence; see the text
HEAD = """# Licences of what the course installs

ftcourse itself is under Apache-2.0 (`LICENSE`). This table has every package that
`pyproject.toml` leads to, also through others, with the extras `lab`, `test` and, where it is
there, `edition`. `python tests/licences.py` writes it from what the packages state about
themselves; a test holds it, and refuses a licence that is not on its list. None is under the GPL
or the AGPL.

The packages with a dagger are under a licence that keeps *their own files* open (MPL-2.0, LGPL):
who changes these files and passes them on has to give the changes away. Using them asks for
nothing.

On Linux, the usual build of `torch` also brings NVIDIA's CUDA libraries (`nvidia-*`, `cuda-*`),
which are not open source: NVIDIA's own licence allows their use and, with conditions, their
redistribution. The CPU build, which the README names first, has none of them. The wheels of
`numpy`, `torch`, `pillow` and others contain libraries in C under the licences that their own
metadata lists.

| package | licence |
| --- | --- |
"""


def licence_of(package):
    """Return a licence as an SPDX expression, as far as the package's metadata says it."""
    found = metadata.metadata(package)
    if expression := found.get("License-Expression"):
        return expression
    stated = [found.get("License") or ""]
    classifiers = found.get_all("Classifier") or []
    stated += [c.rpartition(" :: ")[2] for c in classifiers if c.startswith("License :: ")]
    names = [_spdx(text) for text in stated] + [READ.get(package, "")]
    return next(filter(None, names), f"unknown: {stated[0][:40]!r}")


def _spdx(text):
    """Return the SPDX name for the words of older metadata; empty if we do not know them."""
    if parts_of(text) <= FREE | NAMED and text:
        return text
    return next((n for p, n in SPOKEN.items() if re.fullmatch(p, text.strip().lower())), "")


def parts_of(expression):
    """Return the licences of an SPDX expression that all hold: of ``A OR B``, one that is free."""
    parts = set()
    for each in re.split(r" AND ", expression.replace("(", "").replace(")", "")):
        choices = each.split(" OR ")
        parts.add(next((choice for choice in choices if choice in FREE), choices[0]))
    return parts


def reached(extras=("lab", "test", "edition", "rag", "qdrant")):
    """Return the installed packages that pyproject.toml leads to here, and their licences."""
    optional = PROJECT["optional-dependencies"]
    asked = [*PROJECT["dependencies"], *(r for e in extras for r in optional.get(e, []))]
    todo, seen = [(Requirement(text), "") for text in asked], {}
    done = set()
    while todo:
        requirement, extra = todo.pop()
        name = canonicalize_name(requirement.name)
        marker = requirement.marker
        if (marker and not marker.evaluate({"extra": extra})) or name == "ftcourse":
            continue
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # another test asks for what must be there
        seen[name] = licence_of(name)
        for each in ["", *requirement.extras]:
            if (name, each) not in done:
                done.add((name, each))
                todo += [(Requirement(text), each) for text in needs]
    return seen


def table():
    """Return the text of LICENSES.md."""
    found = {name: text for name, text in reached().items() if not CUDA.fullmatch(name)}
    rows = sorted((ELSEWHERE | found).items())
    return HEAD + "".join(
        f"| {name}{' †' if parts_of(text) & NAMED else ''} | {text} |\n" for name, text in rows
    )


if __name__ == "__main__":
    FILE.write_text(table(), encoding="utf-8")
