"""The command line: ``ftcourse lab | doctor | predict | finetune``.

It only wires. Each command imports what it needs when it runs, so that help and lessons open fast.
"""

import argparse
import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import Field, asdict, fields, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ftcourse import __version__, lab
from ftcourse.config import FinetuneConfig, check_dtype, field_docs
from ftcourse.config_file import Plan, read_config
from ftcourse.errors import CourseError
from ftcourse.files import user_path
from ftcourse.hardware import CARDS, Card, detect
from ftcourse.memory import MemoryBreakdown, predict_memory
from ftcourse.memory.fit import GROWING_FIELDS, difference, does_not_fit, judge_fit, largest
from ftcourse.memory.records import nearest_record
from ftcourse.shape import is_known


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 2 for bad input, 1 if the doctor says no."""
    options = _make_parser().parse_args(argv)
    try:
        with _warnings_as_notes():
            code = options.run(options)
            sys.stdout.flush()  # here, where a pipe that was closed is known for what it is
            return code
    except CourseError as error:
        print(error, file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader, such as head, has enough
        with open(os.devnull, "w", encoding="utf-8") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        return 128 + 13  # as a program that the signal SIGPIPE ended
    except OSError as error:  # a full disk, a folder that is a file, no permission
        advice = "Check the path, its permissions and the free space, then run it again."
        print(CourseError("Files can be read and written.", str(error), advice), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


@contextmanager
def _warnings_as_notes() -> Iterator[None]:
    """Show each warning once, as a sentence, without the line of code that it came from."""
    shown = set()

    def note(message: Warning | str, *_: Any, **__: Any) -> None:
        if str(message) not in shown:
            shown.add(str(message))
            print(f"note: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.filterwarnings("always", module="ftcourse")
        warnings.showwarning = note
        yield


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "ftcourse", description="A course on fine-tuning language models, and the code behind it."
    )
    parser.add_argument("--version", action="version", version=f"ftcourse {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_lab(commands.add_parser("lab", help="open the lessons in JupyterLab"))
    _add_doctor(commands.add_parser("doctor", help="what can this machine do, and what may break?"))
    _add_predict(commands.add_parser("predict", help="how much memory will a run need?"))
    _add_finetune(commands.add_parser("finetune", help="fine-tune a model on your own data"))
    return parser


def _add_lab(parser: argparse.ArgumentParser) -> None:
    parser.description = "Copy the lessons into a folder of yours and open JupyterLab on them."
    parser.add_argument("folder", nargs="?", default=lab.DEFAULT_FOLDER)
    parser.add_argument("--port", type=int, help="default: the first free one from 8888 on")
    parser.add_argument("--no-browser", action="store_true", help="print the address, open nothing")
    parser.add_argument("--copy-only", action="store_true", help="copy the lessons and stop there")
    parser.add_argument("--learners", type=int, default=1, metavar="N", help="N share the cores")
    parser.set_defaults(run=_run_lab)


def _run_lab(options: argparse.Namespace) -> int:
    copied = lab.copy_lessons(options.folder, here=not options.copy_only)
    print(copied)
    if options.copy_only:
        return 0
    opened = lab.prepare_lab(copied.folder, options.port, not options.no_browser, options.learners)
    print(f"JupyterLab: {opened.url}\nPress Ctrl-C twice to end it.", flush=True)
    opened.run()
    return 0


def _add_doctor(parser: argparse.ArgumentParser) -> None:
    parser.description = "Examine this machine. The exit code is 1 if the lessons cannot run on it."
    parser.set_defaults(run=_run_doctor)


def _run_doctor(options: argparse.Namespace) -> int:
    from ftcourse.doctor import examine

    report = examine()
    print(report)
    return 0 if report.ok else 1


def _add_predict(parser: argparse.ArgumentParser) -> None:
    parser.description = "Predict the memory of a training step by arithmetic; nothing is loaded."
    cards = ", ".join(CARDS)
    parser.add_argument("--card", help=f"does it fit? one of {cards} (default: this machine)")
    text = 'print the bytes as JSON; "fits" is "yes", "narrowly" (the run may fail) or "no"'
    parser.add_argument("--json", action="store_true", help=text)
    parser.add_argument("--simulate", action="store_true", help="by real code on fake tensors")
    text = f"how much of it fits the card? one of {', '.join(GROWING_FIELDS)}"
    parser.add_argument("--largest", metavar="FIELD", help=text)
    _add_config(parser)
    parser.set_defaults(run=_run_predict)


def _run_predict(options: argparse.Namespace) -> int:
    config = _read_plan(options).config
    card = detect() if options.card is None else _find_card(options.card)
    check_dtype(config, card)
    need = _simulate(config, card) if options.simulate else predict_memory(config, card)
    known = is_known(config.model)
    near = nearest_record(config, card) if known else None
    field = None if options.largest is None else options.largest.replace("-", "_")
    most = {} if field is None else {field: largest(config, field, card.memory, card)}
    if options.json:
        found = {"allocated": need.allocated, "card": card.name}
        found |= {"fits": judge_fit(need, card).answer, "largest": most}
        print(json.dumps(asdict(need) | found | {"nearest": near and asdict(near)}, indent=2))
    else:
        lines = [*_judge(config, card, need, known)]
        lines += [f"The largest {name} that fits: {value:,}." for name, value in most.items()]
        print(*lines, *filter(None, [near]), sep="\n")
    return 0


def _simulate(config: FinetuneConfig, card: Card) -> MemoryBreakdown:
    from ftcourse.simulate import progress_bar, simulate_memory

    with progress_bar() as progress:
        return simulate_memory(config, card, progress)


def _judge(config: FinetuneConfig, card: Card, need: MemoryBreakdown, known: bool) -> Iterator:
    """Yield what the memory panel says: the bytes, whether they fit, and if not, what would."""
    yield need
    if need.source == "simulated" and known:
        yield difference(need, predict_memory(config, card)) + ", against the arithmetic"
    fit = judge_fit(need, card)
    yield fit
    if fit.answer != "yes" and known:
        yield does_not_fit(config, card).do


def _find_card(name: str) -> Card:
    if name not in CARDS:
        raise CourseError("A card is one that we know.", repr(name), "Use " + ", ".join(CARDS))
    return CARDS[name]


def _add_finetune(parser: argparse.ArgumentParser) -> None:
    parser.description = "Fine-tune a model. The same call after a stop goes on where it stopped."
    text = '.jsonl, .json, .csv or .parquet file with "prompt" and "completion"'
    parser.add_argument("data", nargs="?", help=text)
    parser.add_argument("--output-dir", help="folder of the run and its checkpoints")
    text = "file of records that judge each checkpoint; the best one is kept"
    parser.add_argument("--validation", metavar="FILE", help=text)
    text = "stop after this many checkpoints without a lower validation loss"
    parser.add_argument("--patience", type=int, metavar="N", help=text)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    _add_config(parser)
    parser.set_defaults(run=_run_finetune)


def _run_finetune(options: argparse.Namespace) -> int:
    plan = _read_plan(options)  # before the slow imports: a typing error shows at once
    if missing := [name for name in ("data", "output_dir") if getattr(plan, name) is None]:
        do = "Give DATA and --output-dir, or a --config file with them."
        raise CourseError("A run has its data and its folder.", f"no {missing[0]}", do)
    from ftcourse.data import load_records
    from ftcourse.train import finetune, is_first

    judged = {"validation": plan.validation and load_records(plan.validation)}
    judged["patience"] = plan.patience
    result = finetune(plan.config, load_records(plan.data), plan.output_dir, **judged)
    if not is_first():  # of several processes, one speaks
        return 0
    if options.json:
        found = {"output_dir": str(result.output_dir), "seconds": result.seconds}
        found |= {"config": asdict(plan.config), "history": result.history}
        print(json.dumps(found, indent=2))
    else:
        print(f"{result}\nsaved in {result.output_dir}")
    return 0


def _add_config(parser: argparse.ArgumentParser) -> None:
    """Give a parser one option for each field of FinetuneConfig, explained by the field's words."""
    text = "TOML file of a run, as write_config writes it; other options come before it"
    parser.add_argument("--config", metavar="FILE", help=text)
    group = parser.add_argument_group("the run")
    hints, words = get_type_hints(FinetuneConfig), field_docs(FinetuneConfig)
    for field in fields(FinetuneConfig):
        text = f"{words.get(field.name, '')} (default: {field.default})".strip().replace("%", "%%")
        name = "--" + field.name.replace("_", "-")
        group.add_argument(name, default=argparse.SUPPRESS, help=text, **_reader(field, hints))


def _reader(field: Field, hints: dict[str, Any]) -> dict[str, Any]:
    """Return how argparse reads a field. FinetuneConfig decides whether a value is right."""
    hint = hints[field.name]
    if hint is bool:
        return {"action": argparse.BooleanOptionalAction}
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        return {"type": type(choices[0]), "metavar": "{" + ",".join(map(str, choices)) + "}"}
    if field.name == "target_modules":
        return {"type": _names, "metavar": "NAME[,NAME...]"}
    return {"type": hint, "metavar": hint.__name__.upper()}


def _names(text: str) -> str | list[str]:
    return text.split(",") if "," in text else text


def _read_plan(options: argparse.Namespace) -> Plan:
    """Return the run of the config file, if one is given, with what the command line says."""
    plan = read_config(options.config) if options.config is not None else Plan(FinetuneConfig())
    given = {f.name: vars(options)[f.name] for f in fields(FinetuneConfig) if f.name in options}
    said = {name: vars(options).get(name) for name in ("data", "output_dir", "validation")}
    said = {name: user_path(path) for name, path in said.items() if path is not None}
    if (patience := vars(options).get("patience")) is not None:
        said["patience"] = patience
    return replace(plan, config=replace(plan.config, **given), **said)


if __name__ == "__main__":
    sys.exit(main())
