"""The panel that compares a run's bytes with a card's memory."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, get_args, get_type_hints

import ipywidgets
from matplotlib.axes import Axes

from ftcourse.config import FinetuneConfig, adapted_modules, field_docs
from ftcourse.errors import CourseError
from ftcourse.hardware import CARDS, GIB, Card, choose_dtype, detect
from ftcourse.memory import MemoryBreakdown, predict_memory, show_bytes
from ftcourse.memory.fit import context_bytes, difference, judge_fit
from ftcourse.memory.records import is_card, nearest_record
from ftcourse.plots import plot_memory
from ftcourse.shape import load_shape, parameter_count
from ftcourse.shape.hub import named_shapes
from ftcourse.widgets.panel import Groups, Panel, Values

HERE = "this machine"
LONGEST = 10  # seconds of one core that the panel measures, at most
LABELS = {"batch_size": "batch (sequences)", "max_length": "max length (tokens)"}
FIELDS = ("model", "card", "method", "bits", "dtype", "optimizer", "loss", "rank", "batch_size")
FIELDS += ("max_length", "gradient_checkpointing")
SLIDERS = {"rank": [2**k for k in range(2, 9)], "max_length": [2**k for k in range(7, 14)]}
SLIDERS |= {"batch_size": range(1, 33), "gradient_accumulation_steps": [1, 2, 4, 8, 16, 32]}
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
TARGETS = {"all-linear": "all-linear", "q_proj, v_proj": ("q_proj", "v_proj")}
TARGETS |= {"attention": ATTENTION, "MLP": ("gate_proj", "up_proj", "down_proj")}

Added = tuple[Any, ...]
"""What a button adds: a bar or None, a line of the text above, and sentences below the picture."""
WORDS = field_docs(FinetuneConfig) | {
    "model": "Whose weights are trained; embedded is the small model of the lessons.",
    "card": "The device whose memory the run has to fit; it also decides what dtype auto is.",
    "simulate": "Run the model's own code on tensors that have sizes and no numbers.",
    "measure": "Measure one real training step on this machine.",
    "make it fit": "Show the cheapest change with which the run fits the card, and its price.",
}


def memory_panel(model: str = "llama-3.1-8b", card: str | Card = "T4") -> Panel:
    """Return a panel that predicts a run's memory and says whether it fits the card.

    ``card`` is a name in ``hardware.CARDS``, ``"this machine"``, or a Card. The buttons simulate
    and measure the run. They add bars to the picture of the state in which they were pressed.
    """
    verbs = {"simulate": simulate, "measure": measure}
    return build_panel(model, card, "Does it fit?", {"": FIELDS}, verbs)


def build_panel(
    model: str,
    card: str | Card,
    title: str,
    groups: Groups,
    verbs: Mapping[str, Callable],
    **start: Any,
) -> Panel:
    """Return a panel with controls for these fields, from ``start`` on, and a button a verb."""
    cards = CARDS | {HERE: detect()}
    if isinstance(card, Card):
        name = HERE if card == cards[HERE] else card.name
        cards, card = {name: card} | cards, name
    if card not in cards:
        known = ", ".join(cards)
        raise CourseError("card is a Card or the name of one.", repr(card), f"Use one of {known}.")
    controls = _controls(model, cards, card, [*chain(*groups.values())])
    for name, value in start.items():
        controls[name].value = value
    view = _View(cards)
    actions = {name: partial(view.add, verb) for name, verb in verbs.items()}
    return Panel(view.draw, controls, title, actions, WORDS, view.change, groups)


class _View:
    """What the panel draws: the predicted bar, and those that the buttons added to a state."""

    def __init__(self, cards: dict[str, Card]) -> None:
        self.cards = cards
        self.added: dict[Any, dict[str, Added]] = {}

    def read(self, card: str, **fields: Any) -> tuple[FinetuneConfig, Card]:
        """Return the config and the card that the controls' values are."""
        return FinetuneConfig(**fields), self.cards[card]

    def draw(self, **values: Any) -> tuple[Axes | str, ...]:
        """Draw the predicted bar and those that were added."""
        config, card = run = self.read(**values)
        adapted_modules(config, load_shape(config.model).linears)  # warns; predictions are cached
        predicted, added = predict_memory(*run), self.added.get(run, {}).values()
        bars = [predicted, *(bar for bar, *_ in added if bar)]
        words = [str(judge_fit(predicted, card)), *(text for _, text, *_ in added)]
        below = [sentence for _, _, *sentences in added for sentence in sentences]
        picture = plot_memory(bars, card.memory, context=context_bytes(card))
        return picture, "\n".join(words), *below, *_notes(config, card, predicted)

    def add(self, verb: Callable[..., Added], **values: Any) -> tuple[Axes | str, ...]:
        """Draw one more bar, or say why there is none."""
        run = self.read(**values)
        try:
            found = verb(*run)
        except CourseError as error:
            found = None, f"{verb.__name__}: {error}"
        self.added.setdefault(run, {})[verb.__name__] = found
        return self.draw(**values)

    def change(self, before: Values, after: Values) -> str:
        """Return what a move changed most: one of the five parts, or the card's memory."""
        try:
            runs = self.read(**before), self.read(**after)
            old, new = (predict_memory(*run).parts | {"capacity": run[1].memory} for run in runs)
        except CourseError:  # a config that is refused, or a model without arithmetic
            return ""
        apart = {part: new[part] - old[part] for part in new}
        part = max(apart, key=lambda name: abs(apart[name]))
        size = show_bytes(abs(apart[part]), like=predict_memory(*runs[1]).allocated)
        if size.startswith("0.00"):
            return f"less than {size.replace('0.00', '0.01')}" if apart[part] else "nothing changes"
        return f"{part} {'+' if apart[part] > 0 else '-'}{size}"


def _notes(config: FinetuneConfig, card: Card, predicted: MemoryBreakdown) -> Iterator[str]:
    """Yield what helps to read the picture."""
    chosen, positions = choose_dtype(card), load_shape(config.model).max_position_embeddings
    if config.dtype == "auto":
        yield f"dtype auto: {chosen.dtype} on the {card.name}, because {chosen.reason}"
    elif config.dtype != "float32" and card.device == "cpu":
        yield f"{config.dtype} may be slow: {chosen.reason}"
    elif config.dtype == "bfloat16" and card.capability < (8, 0):
        yield f"bfloat16 is slow on the {card.name}, which only emulates it. Better: {chosen!r}"
    if positions and config.max_length > positions:
        yield f"{config.max_length} tokens are more than the {positions} positions of this model."
    if not predicted.gradients:
        yield f"Gradients are 0 here: at this moment, {predicted.moment}, no gradient exists yet."
    if near := nearest_record(config, card):
        yield repr(near)


def simulate(config: FinetuneConfig, card: Card) -> Added:
    """Return a simulation, and in words how it differs from the prediction."""
    from ftcourse.simulate import simulate_memory  # here: it imports torch, and the panel does not

    found = simulate_memory(config, card)
    return found, difference(found, predict_memory(config, card))


def measure(config: FinetuneConfig, card: Card) -> Added:
    """Measure on the device that is there, the chosen card or a CPU, if it takes only seconds."""
    here, positions = detect(), load_shape(config.model).max_position_embeddings
    if here.device == "cuda" and not is_card(here.name, card):
        must = "We measure a step on the device that is there, so the chosen card is that one."
        got = f"{card.name}; here is {here.name}"
        raise CourseError(must, got, f"Choose {HERE} as the card, or press simulate.")
    advice = "Choose a smaller model or fewer tokens, or press simulate."
    if positions and config.max_length > positions:
        must = f"We measure no more tokens than the model has positions, {positions}."
        raise CourseError(must, f"{config.max_length} tokens", advice)
    if (seconds := core_seconds(config, here)) > LONGEST:
        must = f"The panel measures what takes one core {LONGEST} seconds or less."
        raise CourseError(must, f"about {seconds:,.0f} seconds", advice)
    from ftcourse.measure import measure_memory  # here: it imports torch

    found, predicted = measure_memory(config), predict_memory(config, here)
    other = f", against {show_bytes(predicted.allocated)} predicted for {here.name}"
    return found, difference(found, predicted) + ("" if is_card(here.name, card) else other)


def core_seconds(config: FinetuneConfig, card: Card) -> float:
    """Return about how many seconds of one core two measured steps and their weights take."""
    shape = load_shape(config.model)  # a GPU only waits for the weights, as long as for 54 tokens
    tokens = config.batch_size * config.max_length if card.device == "cpu" else 54
    pairs = 2 * shape.num_hidden_layers * shape.hidden_size * config.max_length  # in attention
    return 2.8e-10 * tokens * (parameter_count(shape) + pairs)  # fits the times in its test


def _controls(
    model: str, cards: dict[str, Card], card: str, names: Sequence[str]
) -> dict[str, ipywidgets.Widget]:
    """Return controls, each named after the field of FinetuneConfig that it sets, or ``card``."""
    start = vars(FinetuneConfig(model=model)) | {"card": card}
    hints, labels = get_type_hints(FinetuneConfig), {name: name for name in cards}
    labels[HERE] += f": {cards[HERE].name}"
    menus = {
        "model": dict.fromkeys([model, "embedded", *named_shapes()]),  # the first may be a Hub id
        "card": [(f"{labels[name]}, {cards[name].memory / GIB:.1f} GiB", name) for name in cards],
        "target_modules": TARGETS.items(),
    }
    controls: dict[str, ipywidgets.Widget] = {}
    for name in names:
        facts = {"value": start[name], "description": LABELS.get(name, name.replace("_", " "))}
        kind = ipywidgets.SelectionSlider if name in SLIDERS else ipywidgets.Dropdown
        options = SLIDERS.get(name) or menus.get(name) or get_args(hints[name])
        box = hints.get(name) is bool
        controls[name] = ipywidgets.Checkbox(**facts) if box else kind(options=[*options], **facts)
    for name in ("method", "bits"):
        controls[name].observe(partial(_disable_idle, controls), names="value")
    return _disable_idle(controls)


def _disable_idle(controls: dict[str, ipywidgets.Widget], *_: Any) -> dict[str, ipywidgets.Widget]:
    """Disable the controls that the method does not use; return all."""
    method, bits = controls["method"].value, controls["bits"].value
    idle = dict.fromkeys(("rank", "target_modules", "adapter_dtype"), method == "full")
    idle |= {"bits": method != "qlora"}
    idle |= dict.fromkeys(("quant_type", "double_quant"), method != "qlora" or bits == 8)
    for name in idle.keys() & controls.keys():
        controls[name].disabled = idle[name]
    return controls
