"""Recorded sweeps: runs with many settings and seeds that a committed script measured once."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev
from typing import Any

from ftcourse.errors import CourseError
from ftcourse.files import course_path

Run = dict[str, Any]
# Student's t, 97.5 %, by degrees of freedom (Student, "The Probable Error of a Mean", 1908).
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


@dataclass(frozen=True)
class Mean:
    """The mean over seeds, with its 95 % interval (Student's t)."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean of the values."""
        return fmean(self.values)

    @property
    def margin(self) -> float:
        """Half the width of the 95 % interval of the mean; infinite for a single value.

        >>> round(Mean((1, 2, 3)).margin, 2)
        2.48
        """
        n = len(self.values)
        return _T[min(n - 2, 8)] * stdev(self.values) / sqrt(n) if n > 1 else float("inf")

    @property
    def interval(self) -> tuple[float, float]:
        """The lower and the upper end of the 95 % interval."""
        return self.mean - self.margin, self.mean + self.margin

    def __repr__(self) -> str:
        """Return the mean, the margin and the number of seeds."""
        return f"{self.mean:.3f} ± {self.margin:.3f} ({len(self.values)} seeds)"


def load_sweep(name: str) -> list[Run]:
    """Return the runs of ``data/measured/sweep_<name>.jsonl``, settings and results in one row."""
    lines = course_path(f"data/measured/sweep_{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in lines.splitlines()]


def select(runs: Iterable[Run], **settings: Any) -> list[Run]:
    """Return the runs with these settings. Raises CourseError if there is none."""
    runs = list(runs)
    found = [run for run in runs if all(run.get(name) == settings[name] for name in settings)]
    if not found:
        wanted = ", ".join(f"{name}={value!r}" for name, value in settings.items())
        raise CourseError(
            "A recorded sweep has the settings that are asked for.",
            f"no run with {wanted}",
            "Look at the settings that there are: [run for run in load_sweep(name)].",
        )
    return found


def over_seeds(runs: Iterable[Run], setting: str, result: str) -> Mapping[Any, Mean]:
    """Return the mean of a result over the seeds, for each value of a setting."""
    found: dict[Any, list[float]] = defaultdict(list)
    for run in runs:
        found[run[setting]].append(run[result])
    return {value: Mean(tuple(results)) for value, results in found.items()}
