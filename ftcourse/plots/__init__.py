"""Pictures of what a run costs: data in, Axes out; without pyplot, shown by a cell's last value."""

from ftcourse.plots.adapters import best_rate, plot_places, plot_rate, plot_rates
from ftcourse.plots.against import plot_memory_against
from ftcourse.plots.cycle import plot_training_step
from ftcourse.plots.history import plot_history
from ftcourse.plots.lora import plot_energy, plot_lora, plot_over_ranks
from ftcourse.plots.memory import plot_memory
from ftcourse.plots.picture import Picture, png
from ftcourse.plots.reach import plot_longest
from ftcourse.plots.timeline import plot_timeline

__all__ = [
    "Picture",
    "best_rate",
    "plot_energy",
    "plot_history",
    "plot_longest",
    "plot_lora",
    "plot_memory",
    "plot_memory_against",
    "plot_over_ranks",
    "plot_places",
    "plot_rate",
    "plot_rates",
    "plot_timeline",
    "plot_training_step",
    "png",
]
