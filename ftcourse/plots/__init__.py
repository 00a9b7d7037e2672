"""Pictures of what a run costs: data in, Axes out; without pyplot, shown by a cell's last value."""

from ftcourse.plots.against import plot_memory_against
from ftcourse.plots.cycle import plot_training_step
from ftcourse.plots.history import plot_history
from ftcourse.plots.memory import plot_memory
from ftcourse.plots.picture import Picture, png
from ftcourse.plots.reach import plot_longest
from ftcourse.plots.timeline import plot_timeline

__all__ = [
    "Picture",
    "plot_history",
    "plot_longest",
    "plot_memory",
    "plot_memory_against",
    "plot_timeline",
    "plot_training_step",
    "png",
]
