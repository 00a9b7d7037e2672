"""What a record of training data is, and in words what is wrong with one that is none.

A record is a dictionary, in one of three forms; other keys are ignored:

- ``{"messages": [{"role": "user", "content": ...}, {"role": "assistant", "content": ...}]}``
- ``{"prompt": "a question", "completion": "its answer"}``
- ``{"text": "plain text"}``, all of it supervised: what a model should not forget while it learns
"""

from collections.abc import Mapping
from typing import Any

Record = dict[str, Any]
ROLES = ("system", "user", "assistant")
_FORMS = {"messages": {"messages"}, "prompt": {"prompt", "completion"}, "text": {"text"}}
_KEYS = ("messages", "prompt", "completion", "text")
_OTHER_NAMES = {  # the commonest ones of other data sets
    "prompt": ("question", "instruction", "query", "input", "user", "source"),
    "completion": ("answer", "response", "output", "reply", "assistant", "target"),
}


def taught(record: Record) -> Record:
    """Return the part of a record that a model learns from, without empty values."""
    kept = {key: record[key] for key in _KEYS if record.get(key) is not None}
    if isinstance(kept.get("messages"), list):
        kept["messages"] = [_without_none(message) for message in kept["messages"]]
    return kept


def _without_none(message: Any) -> Any:
    if not isinstance(message, Mapping):
        return message
    return {name: value for name, value in message.items() if value is not None}


def find_problem(record: Record) -> str:
    """Return in words why a model cannot learn from a record; nothing if it can.

    >>> find_problem({"prompt": "Why?", "completion": 7})
    "'completion' is an int, not text"
    """
    keys = set(taught(record))
    if keys not in _FORMS.values():
        found = ", ".join(repr(key) for key in _KEYS if key in keys)
        others = ", ".join(sorted(map(repr, record))[:6]) or "nothing"
        return f"it has {found or others}" + " beside each other" * (len(keys) > 1)
    if "messages" in keys:
        return _problem_of_dialogue(taught(record)["messages"])
    texts = ((key, record[key]) for key in _KEYS if key in keys)
    return next(filter(None, (_problem_of_text(repr(key), text) for key, text in texts)), "")


def problem_of(record: Any) -> str:
    """Return in words why something is no record to learn from; nothing if it is one."""
    if isinstance(record, Mapping):
        return find_problem(dict(record))
    return f"an item of type {type(record).__name__}: {str(record)[:60]!r}"


def renaming(record: Any) -> str:
    """Return how to rename the columns of a record that has none of ours; nothing if it has.

    >>> renaming({"question": "Why?", "answer": "Because."}).partition("data.")[2]
    "rename_columns({'question': 'prompt', 'answer': 'completion'})."
    """
    if not isinstance(record, Mapping) or not record or taught(record):
        return ""
    lower = {str(name).lower(): name for name in record}
    found = {
        lower[name]: ours
        for ours, names in _OTHER_NAMES.items()
        if (name := next((name for name in names if name in lower), None))
    }
    names = found or {"your question": "prompt", "your answer": "completion"}
    return f"Rename them, in a datasets.Dataset by data.rename_columns({names})."


def _problem_of_dialogue(messages: Any) -> str:
    """Return what is wrong with a dialogue that a model is to learn from."""
    if problem := problem_of_turns(messages):
        return problem
    return "" if "assistant" in [message["role"] for message in messages] else "it has no answer"


def problem_of_turns(messages: Any) -> str:
    """Return what is wrong with messages: a system's or none, then a user's, then turn by turn."""
    if not isinstance(messages, list | tuple) or not messages:
        return "'messages' is " + (_kind(messages) if messages else "empty") + ", not a dialogue"
    for number, message in enumerate(messages, 1):
        name = f"message {number}"
        if not isinstance(message, Mapping):
            return f"{name} is {_kind(message)}, not a role with its content"
        if message.get("role") not in ROLES:
            return f"{name} has the role {message.get('role')!r}, not one of {', '.join(ROLES)}"
        if "content" not in message:
            return f"{name} has no content"
        if problem := _problem_of_text(f"the content of {name}", message["content"]):
            return problem
        if message["role"] == "system" and number > 1:
            return f"{name} is the system's, which only the first may be"
    turns = [message["role"] for message in messages if message["role"] != "system"]
    return "" if turns[:1] == ["user"] else "it does not begin with the user's question"


def _problem_of_text(name: str, text: Any) -> str:
    if not isinstance(text, str):
        return f"{name} is {_kind(text)}, not text"
    if not text.strip():
        return f"{name} is empty"
    if "\0" in text:
        return f"{name} has a NUL character"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"{name} has half a character (a lone surrogate) at place {error.start}"
    return ""


def _kind(value: Any) -> str:
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
