"""Runs that somebody recorded on a real card: beside our prediction, and their three totals."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import median

from matplotlib.axes import Axes
from matplotlib.patches import Patch

from ftcourse.errors import CourseError
from ftcourse.memory import MemoryBreakdown, show_bytes
from ftcourse.memory.published import predict_record, process_of
from ftcourse.memory.records import Record, recorded_runs
from ftcourse.plots.picture import SMALL, finish, new_axes, put_label, text_width, unit_of

_MARKERS = (  # no part has these colours
    {"marker": "o", "color": "black"},
    {"marker": "^", "color": "#CC79A7"},
    {"marker": "s", "color": "#56B4E9"},
)
_STEPS = (  # what each total has more than the one before, darker to lighter, one of them hatched
    {"color": "#444444"},
    {"facecolor": "none", "edgecolor": "#444444", "hatch": "////"},
    {"color": "#BBBBBB"},
)
WHAT = ("live tensors", "gaps between tensors", "CUDA context and libraries")


def plot_recorded(records: Sequence[Record] | None = None, ax: Axes | None = None) -> Axes:
    """Draw the predicted peak of recorded runs over the recorded one, and above it the errors.

    Without records, for all of ``data/measured``. A prediction is of the loop of those who recorded
    the run (``predict_record``). An error is predicted / recorded - 1; its strip names the worst.
    """
    groups: dict[str, list[Record]] = {}
    for run in recorded_runs() if records is None else records:
        groups.setdefault(f"{run.card}, recorded by {run.by}", []).append(run)
    if not 0 < len(groups) <= len(_MARKERS):
        must = f"plot_recorded draws the runs of one to {len(_MARKERS)} cards and authors."
        raise CourseError(must, f"{len(groups)} of them", "Choose some of recorded_runs().")
    unit, unit_name = unit_of(max(run.allocated for runs in groups.values() for run in runs))
    ax = ax or new_axes(5, left=0.7, right=0.25, top=1.75)
    strip = ax.inset_axes([0, 1.14, 1, 0.45], sharex=ax, facecolor=ax.get_facecolor())
    words, labels = [], {}
    for (name, runs), style in zip(groups.items(), _MARKERS, strict=False):
        sizes = [run.allocated / unit for run in runs]
        errors = [predict_record(run).allocated / run.allocated - 1 for run in runs]
        worst = max(range(len(runs)), key=lambda index, errors=errors: abs(errors[index]))
        dates = " to ".join(dict.fromkeys([min(r.date for r in runs), max(r.date for r in runs)]))
        words.append(
            f"{name}, {dates}: {len(runs)} runs, errors {min(errors):+.1%} to {max(errors):+.1%}, "
            f"median size {median(map(abs, errors)):.1%}"
        )
        open_mark = style | {"linestyle": "", "markerfacecolor": "none", "markersize": 5}
        predicted = [size * (1 + error) for size, error in zip(sizes, errors, strict=True)]
        ax.plot(sizes, predicted, label=words[-1], **open_mark)
        strip.plot(sizes, [100 * error for error in errors], **open_mark)
        label = runs[worst].config.model.split("/")[-1]
        labels[label] = sizes[worst], 100 * errors[worst]
    end = 1.05 * max(ax.dataLim.x1, ax.dataLim.y1)
    ax.axline((0, 0), slope=1, color="black", linestyle=":", linewidth=1)
    ax.set(xlim=(0, end), ylim=(0, (1.05 + 0.1 * len(groups)) * end))
    ax.legend(loc="upper left", frameon=False, fontsize=SMALL - 0.5, handletextpad=0.1)
    strip.axhline(0, color="black", linestyle=":", linewidth=1)
    strip.margins(y=0.3)
    strip.tick_params(labelbottom=False)
    for label, place in labels.items():
        put_label(strip, label, place, (4, -14), edge=0.8, size=SMALL)
    finish(strip, "", ylabel="error, %")
    xlabel = f"recorded peak of the tensors, {unit_name}"
    alt = f"Predicted over recorded peaks of training steps. {'; '.join(words)}."
    return finish(ax, alt, xlabel=xlabel, ylabel=f"predicted, {unit_name}")


def plot_totals(
    runs: Mapping[str, Record | MemoryBreakdown] | None = None, ax: Axes | None = None
) -> Axes:
    """Draw allocated, reserved and process of each run as a bar in three steps, unknown ones left.

    The names say whose runs they are. Without runs: the recorded ones of which all three are known.
    """
    if runs is None:
        known = [run for run in recorded_runs() if run.reserved and _totals(run)[-1]]
        names = [f"{run.config.model.split('/')[-1]},\nrecorded by {run.by}" for run in known]
        runs = {f"{name},\nprocess in another run": r for name, r in zip(names, known, strict=True)}
    if not runs:
        raise CourseError("plot_totals draws one run or more.", "none", "Give it some, by name.")
    totals = {name: _totals(run) for name, run in runs.items()}
    longest = max(filter(None, [size for sizes in totals.values() for size in sizes]))
    unit, unit_name = unit_of(longest)
    ax = ax or new_axes(1.1 + 0.75 * len(runs), 0.3 + max(map(text_width, runs)), top=0.45)
    ax.set(xlim=(0, 1.05 * longest / unit), ylim=(len(runs) - 0.4, -0.7))
    said = []
    for row, (name, sizes) in enumerate(totals.items()):
        ends = [0, *(size / unit for size in sizes if size)]
        for (start, end), style in zip(pairwise(ends), _STEPS, strict=False):
            ax.barh(row, end - start, 0.45, start, **style)
        texts = [
            f"{total} {show_bytes(size, unit) if size else 'not known'}"
            for total, size in zip(("allocated", "reserved", "process"), sizes, strict=True)
        ]
        put_label(ax, ", ".join(texts), (0, row - 0.25), (0, 2), size=SMALL)
        said.append(f"{name}: {', '.join(texts)}.")
    handles = [Patch(label=what, **style) for what, style in zip(WHAT, _STEPS, strict=True)]
    above = {"loc": "lower right", "bbox_to_anchor": (1, 1), "ncols": 3, "frameon": False}
    ax.legend(handles=handles, fontsize=SMALL, **above)
    ax.set_yticks(range(len(runs)), runs, size=SMALL)
    ax.tick_params(axis="y", length=0)
    labels = {"xlabel": f"bytes of a training step on the card, {unit_name}"}
    return finish(ax, " ".join(" ".join(said).split()), ("top", "right", "left"), **labels)


def _totals(run: Record | MemoryBreakdown) -> list[int | None]:
    """Return allocated, reserved and process; None for what is not known."""
    own = (run.breakdown or run) if isinstance(run, Record) else run
    process = own.process if isinstance(own, MemoryBreakdown) else process_of(run)
    return [run.allocated, run.reserved, process]
