"""Installs ftcourse from this folder, without a network: ``python install.py [VENV]``.

It needs nothing but Python. It stops before it changes anything if a file is missing or damaged, or
if the bundle was made for another Python or another kind of machine.
"""

import json
import platform
import subprocess
import sys
import sysconfig
from hashlib import sha256
from pathlib import Path

HERE = Path(__file__).resolve().parent


def problems():
    """Return what stands in the way, each as a sentence."""
    facts = json.loads((HERE / "bundle.json").read_text(encoding="utf-8"))
    found = []
    python = ".".join(map(str, sys.version_info[:2]))
    if python != facts["python"]:
        found.append(f"The wheels are for Python {facts['python']}, and this is {python}.")
    kind = sysconfig.get_platform()
    if kind.split("-")[0] != facts["platform"].split("-")[0] or (
        kind.split("-")[-1] != facts["platform"].split("-")[-1]
    ):
        found.append(f"The wheels are for {facts['platform']}, and this is {kind}.")
    for line in (HERE / "SHA256SUMS").read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        if not (HERE / name).exists():
            found.append(f"{name} is missing. Copy the folder again.")
        elif sha256((HERE / name).read_bytes()).hexdigest() != digest:
            found.append(f"{name} is damaged. Copy it again.")
    return found


def install(folder):
    """Make the virtual environment, install into it without a network, and ask the doctor."""
    extras = json.loads((HERE / "bundle.json").read_text(encoding="utf-8"))["extras"]
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    places = [folder / "bin" / "python", folder / "Scripts" / "python.exe"]
    python = str(next(place for place in places if place.exists()))
    wheels = ["--no-index", "--find-links", str(HERE / "wheels")]
    # Isolated: a configuration of pip on this machine may name other places to look.
    pip = [python, "-m", "pip", "--isolated", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, *wheels, f"ftcourse[{extras}]"], check=True)
    doctor = subprocess.run([python, "-m", "ftcourse", "doctor"]).returncode
    print(f"\nOpen the lessons with:\n    {python} -m ftcourse lab")
    return doctor


def main():
    """Check the bundle, install it, and return the exit code."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "ftcourse-venv").absolute()
    if found := problems():
        print(*found, sep="\n", file=sys.stderr)
        return 2
    print(f"Installing into {folder}, on {platform.system()}; it takes some minutes.", flush=True)
    try:
        return install(folder)
    except subprocess.CalledProcessError as error:
        print(f"It stopped: {error}. On Debian and Ubuntu, is python3-venv installed?")
        return 1


if __name__ == "__main__":
    sys.exit(main())
