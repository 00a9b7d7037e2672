"""The bytes of a training step from the real model code, on tensors that have no content."""

from ftcourse.simulate.simulation import (
    progress_bar,
    simulate_memory,
    simulate_step,
    simulate_timeline,
)

__all__ = ["progress_bar", "simulate_memory", "simulate_step", "simulate_timeline"]
