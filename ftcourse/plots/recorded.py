"""Runs that somebody recorded on a real card, beside our prediction."""

from collections.abc import Sequence
from statistics import median

from matplotlib.axes import Axes

from ftcourse.errors import CourseError
from ftcourse.memory.published import predict_record
from ftcourse.memory.records import Record, recorded_runs
from ftcourse.plots.picture import SMALL, finish, new_axes, put_label, unit_of

_MARKERS = (  # no part has these colours
    {"marker": "o", "color": "black"},
    {"marker": "^", "color": "#A04080"},
    {"marker": "s", "color": "#4A90C2"},
)


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
