"""What surrounds each call of the libraries: their warnings are hidden, their errors explained."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.constants import HF_HUB_DISABLE_PROGRESS_BARS
from transformers.utils import logging as transformers_logging

from ftcourse.errors import CourseError


@contextmanager
def libraries_quiet() -> Iterator[None]:
    """Hide the libraries' warnings about coming changes, and their bars for what takes no time.

    A learner cannot act on them. Who loads something large inside switches the bars on again.
    """
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        try:
            yield
        finally:
            transformers_logging.set_verbosity(verbosity)
            show_bars(bars)


def show_bars(wanted: bool) -> None:
    """Show the libraries' bars, or hide them; what the user's environment says comes first."""
    if wanted and not HF_HUB_DISABLE_PROGRESS_BARS:
        transformers_logging.enable_progress_bar()
    else:
        transformers_logging.disable_progress_bar()


@contextmanager
def explained(must: str, got: str, do: str) -> Iterator[None]:
    """Turn whatever a library raises over bad files into our error, with its own first line.

    Files that somebody damaged can raise anything in there. A GPU that is full, or a user who
    stops, is no bad file.
    """
    import torch

    try:
        yield
    except (CourseError, torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        said = f"{type(error).__name__}: {first}"
        raise CourseError(must, f"{got}: {said[:300]}", do) from error
