"""Which cases of a slow test the README's command runs; CI has a stage for the others."""

import pytest


def some_of(cases, kept):
    """Return parameters: the cases in ``kept`` are slow, all others extra."""
    marks = {True: pytest.mark.slow, False: pytest.mark.extra}
    return [pytest.param(case, marks=marks[case in kept]) for case in cases]
