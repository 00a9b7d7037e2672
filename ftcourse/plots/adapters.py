"""Pictures of a recorded sweep: the loss of each method against its learning rate."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from ftcourse.plots.picture import PAPER, SMALL, draw_marks, finish, new_axes
from ftcourse.sweeps import Mean, Run, over_seeds, select

INK, BEST, OTHERS = "#0072B2", "#D55E00", "#C9C5BC"
COLUMNS = 3
STATIONS = ("words", "norm", "q", "k, v", "o", "norm", "gate, up", "down")  # through a layer
_TRAINED = {
    "LoRA and its kin: add": (2, 3, 4, 6, 7),
    "bottleneck: add": (4, 7),
    "IA3: multiply": (3, 7),
    "norms: multiply": (1, 5),
    "prefix: read first": (3,),
    "prompt: read first": (0,),
}
LABELS = {"xlabel": "learning rate", "ylabel": "validation loss"}


def plot_places(ax: Axes | None = None) -> Axes:
    """Draw where in a layer each method puts what it trains, and what that does."""
    ax = ax or new_axes(2.5, left=2.1, right=0.3, top=0.3)
    ax.set(xlim=(-0.4, 7.4), ylim=(5.6, -0.6))
    ax.set_xticks(range(len(STATIONS)), STATIONS)
    ax.set_yticks(range(len(_TRAINED)), [*_TRAINED])
    for row, places in enumerate(_TRAINED.values()):
        ax.axhline(row, color=OTHERS, linewidth=1, zorder=0)
        ax.plot(places, [row] * len(places), "s", color=BEST, markersize=9)
    ax.tick_params(length=0)
    said = {name: ", ".join(STATIONS[place] for place in _TRAINED[name]) for name in _TRAINED}
    words = " ".join(f"{name}, at {places}." for name, places in said.items())
    name = "from left to right: the words, and then the frozen parts of a layer"
    return finish(ax, words, ("top", "right", "left", "bottom"), xlabel=name)


def best_rate(runs: Sequence[Run], method: str) -> float:
    """Return the rate with the lowest validation loss, in the mean over the seeds."""
    losses = validation_losses(runs, method)
    return min(losses, key=lambda rate: losses[rate].mean)


def validation_losses(runs: Sequence[Run], method: str) -> Mapping[float, Mean]:
    """Return a method's validation loss at each of its learning rates."""
    found = over_seeds(select(runs, method=method), "rate", "validation_loss")
    return dict(sorted(found.items()))


def plot_rates(runs: Sequence[Run], methods: Sequence[str], ax: Axes | None = None) -> Axes:
    """Draw the validation loss against the learning rate, a small picture for each method.

    A dot is a seed, the line joins the means, the ring is the best rate; other methods are grey.
    """
    rows = -(-len(methods) // COLUMNS)
    ax = ax or new_axes(0.7 + 1.6 * rows, left=0.65, right=0.15, top=0.2)
    ax.set(xticks=[], yticks=[])
    curves = {method: validation_losses(runs, method) for method in methods}
    for number, method in enumerate(methods):
        row, column = divmod(number, COLUMNS)
        box = [column / COLUMNS, 1 - (row + 1) / rows, 0.92 / COLUMNS, 0.8 / rows]
        small = ax.inset_axes(box, facecolor=PAPER)
        _style(small, curves)
        small.tick_params(labelleft=column == 0, labelbottom=row == rows - 1)
        for other in curves.values():
            _line(small, other, OTHERS)
        _draw(small, curves[method])
        small.set_title(f"{method}, best at {best_rate(runs, method):g}", size=SMALL, pad=3)
    ax.yaxis.labelpad = ax.xaxis.labelpad = 26
    best = {name: (curves[name][at].mean, at) for name in methods if (at := best_rate(runs, name))}
    said = [
        f"{name} {best[name][0]:.2f} at {best[name][1]:g}" for name in sorted(best, key=best.get)
    ]
    story = f"Lowest validation loss and its rate, the best method first: {', '.join(said)}."
    return finish(ax, story, ("top", "right", "left", "bottom"), **LABELS)


def plot_rate(
    runs: Sequence[Run], method: str, rate: float | None = None, ax: Axes | None = None
) -> Axes:
    """Draw one method's validation loss with 95 % intervals, and a mark at ``rate``."""
    ax = ax or new_axes(3.2, left=0.8, top=0.4)
    curves = {name: validation_losses(runs, name) for name in {run["method"] for run in runs}}
    curve = curves[method]
    _style(ax, curves)
    for other in curves.values():
        _line(ax, other, OTHERS)
    for place, (low, high) in {at: x.interval for at, x in curve.items() if x.values[1:]}.items():
        ax.vlines(place, max(low, 1e-3), high, color=INK, linewidth=5, alpha=0.25)  # two seeds on
    _draw(ax, curve)
    if rate is not None:
        said = f"{curve[rate].mean:.2f}" if rate in curve else "not measured"
        draw_marks(ax, [(rate, f"{rate:g}: {said}")])
        said = f" Marked: rate {rate:g}, loss {said}."
    return finish(ax, _story(runs, method) + (said if rate is not None else ""), **LABELS)


def _style(ax: Axes, curves: Mapping[str, Mapping[float, Mean]]) -> None:
    """Give an Axes the range of all curves, so that each picture of the sweep has the same."""
    rates = [rate for curve in curves.values() for rate in curve]
    values = [v for curve in curves.values() for loss in curve.values() for v in loss.values]
    ax.set(xscale="log", yscale="log")
    ax.set_xticks([10.0**k for k in range(-3, 1)], ["0.001", "0.01", "0.1", "1"])
    ax.set_yticks([0.1, 0.3, 1, 3], ["0.1", "0.3", "1", "3"])
    ax.set_xlim(min(rates) / 1.5, max(rates) * 1.5)
    ax.set_ylim(0.65 * min(values), 1.25 * max(values))
    ax.minorticks_off()
    ax.tick_params(labelsize=SMALL)
    ax.spines[["top", "right"]].set_visible(False)


def _draw(ax: Axes, curve: Mapping[float, Mean]) -> None:
    _line(ax, curve, INK)
    for rate, loss in curve.items():
        ax.plot([rate] * len(loss.values), loss.values, ".", color=INK, markersize=4)
    best = min(curve, key=lambda rate: curve[rate].mean)
    ax.plot(best, curve[best].mean, "o", color=BEST, markersize=10, mfc="none", mew=2)


def _line(ax: Axes, curve: Mapping[float, Mean], color: str) -> None:
    ax.plot([*curve], [loss.mean for loss in curve.values()], color=color, linewidth=1.2)


def _story(runs: Sequence[Run], method: str) -> str:
    curve, best = validation_losses(runs, method), best_rate(runs, method)
    ends = (f"{rate:g}: {curve[rate].mean:.2f}" for rate in (min(curve), best, max(curve)))
    return f"{method}: validation loss at the lowest, best and highest rate {', '.join(ends)}."
