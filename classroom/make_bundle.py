"""Everything that a class needs where there is no network, in one folder, by one command.

Run ``python classroom/make_bundle.py OUT`` on a machine of the learners' kind, with their version
of Python (``--python`` names another one). OUT then holds the wheels of ftcourse and of all that it
needs (lessons, model and data are in ours), ``install.py``, a page that says what to do, and a list
of SHA-256. ``python classroom/try_bundle.py OUT`` tries it without a network.

A bundle is for one system and one version of Python: pip reads the conditions of a package, such as
"only on Windows", for the interpreter that it runs in, so it cannot collect for another system.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

HERE = Path(__file__).parent
CPU_TORCH = "https://download.pytorch.org/whl/cpu"
EXTRAS = "lab"
ABOUT = """
import json, platform, sysconfig
print(json.dumps({"python": "%d.%d" % tuple(map(int, platform.python_version_tuple()[:2])),
                  "platform": sysconfig.get_platform(), "libc": " ".join(platform.libc_ver())}))
"""
PAGE = """\
# ftcourse without a network

For Python {python} on {platform}. {count} files, {megabytes} MB; 2 GB of disk when installed.

One command checks the files, makes a virtual environment in the folder `ftcourse-venv`, installs,
and asks `ftcourse doctor`:

    python install.py

It says at its end how the lessons open. By hand it is three commands (in Windows,
`ftcourse-venv\\Scripts\\python` in place of `ftcourse-venv/bin/python`):

    python -m venv ftcourse-venv
    ftcourse-venv/bin/python -m pip install --no-index --find-links wheels "ftcourse[{extras}]"
    ftcourse-venv/bin/python -m ftcourse lab

`SHA256SUMS` lists every file: `sha256sum --check SHA256SUMS` compares them.
"""


def make_bundle(out: Path, python: str, torch: str, index: str) -> dict[str, object]:
    """Fill a new folder and return what is in it: Python, platform, files, bytes and seconds.

    pip keeps what it has loaded, so a second call after a stop is quick.
    """
    begin = time.monotonic()
    wheels = out / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    pip(python, wheels, torch, "--no-deps", *([] if index == "default" else ["-i", index]))
    (chosen,) = wheels.glob("torch-*.whl")
    pinned = f"torch=={chosen.name.split('-')[1]}"  # else pip prefers a newer one with CUDA
    pip(python, wheels, f"{HERE.parent}[{EXTRAS}]", pinned)
    return finish(out, python, begin)


def pip(python: str, wheels: Path, *what: str) -> None:
    """Collect wheels; what has none is built, so that the learners' machines need no compiler."""
    command = [python, "-m", "pip", "wheel", "--quiet", "-w", str(wheels), "-f", str(wheels)]
    subprocess.run([*command, *what], check=True)


def finish(out: Path, python: str, begin: float) -> dict[str, object]:
    """Write the page, the installer, the facts and the list of SHA-256 beside the wheels."""
    facts = json.loads(subprocess.check_output([python, "-c", ABOUT], text=True))
    sizes = [wheel.stat().st_size for wheel in (out / "wheels").iterdir()]
    facts |= {"extras": EXTRAS, "count": len(sizes), "megabytes": round(sum(sizes) / 1e6)}
    shutil.copyfile(HERE / "install.py", out / "install.py")
    (out / "README.md").write_text(PAGE.format(**facts), encoding="utf-8")
    (out / "bundle.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    (out / "SHA256SUMS").write_text(checksums(out), encoding="utf-8")
    return facts | {"seconds": round(time.monotonic() - begin)}


def checksums(out: Path) -> str:
    """Return a line for each file, as ``sha256sum`` writes it."""
    files = [path for path in sorted(out.rglob("*")) if path.is_file()]
    lines = []
    for path in files:
        if path.name != "SHA256SUMS":
            with path.open("rb") as file:
                digest = sha256()
                while block := file.read(2**20):
                    digest.update(block)
            lines.append(f"{digest.hexdigest()}  {path.relative_to(out).as_posix()}\n")
    return "".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Make a bundle and say what is in it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--python", default=sys.executable, help="interpreter of the learners")
    parser.add_argument("--torch", default="torch", help="which torch, such as torch==2.13.0")
    text = f'where torch comes from (default: {CPU_TORCH}); "default": from pip\'s own index'
    parser.add_argument("--torch-index", default=CPU_TORCH, metavar="URL", help=text)
    options = parser.parse_args(argv)
    if options.out.exists() and any(options.out.iterdir()):
        print(f"{options.out} is not empty. Name a new folder.", file=sys.stderr)
        return 2
    try:
        facts = make_bundle(options.out, options.python, options.torch, options.torch_index)
    except subprocess.CalledProcessError as error:  # pip has said why
        print(
            f"pip stopped with {error.returncode}; Remove the folder and try again.",
            file=sys.stderr,
        )
        return 1
    said = "{count} wheels, {megabytes} MB, Python {python} on {platform}, {seconds} s"
    print(f"{options.out}: {said.format(**facts)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
