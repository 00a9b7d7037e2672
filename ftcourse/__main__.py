"""``python -m ftcourse`` is the command ``ftcourse``; so ``accelerate launch -m`` can start it."""

import sys

from ftcourse.cli import main

if __name__ == "__main__":
    sys.exit(main())
