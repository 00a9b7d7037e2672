"""Runs one of the processes: ``python -m ftcourse.ranks FOLDER``."""

import sys
from pathlib import Path

from ftcourse.ranks.process import train_here

train_here(Path(sys.argv[1]))
