"""The one error that this package raises on bad input, always in three parts."""


class CourseError(ValueError):
    """Bad input: what must hold, what we got, what to do.

    >>> print(CourseError("The rank is at least 1.", "rank=0", "Try rank=8."))
    The rank is at least 1.
      got: rank=0
      do:  Try rank=8.
    """

    def __init__(self, must: str, got: str, do: str):
        """Keep the three parts, so that a panel or a command can show them in its own layout."""
        super().__init__(must, got, do)
        self.must, self.got, self.do = must, got, do

    def __str__(self) -> str:
        """Return the three parts, one per line."""
        return f"{self.must}\n  got: {self.got}\n  do:  {self.do}"


def check_kind(name: str, value: object, kind: type | tuple[type, ...], example: str) -> None:
    """Refuse a value that is not of a kind; the example is Python that makes one.

    >>> check_kind("card", "T4", int, "CARDS['T4']")
    Traceback (most recent call last):
    ftcourse.errors.CourseError: card is a value such as CARDS['T4'].
      got: 'T4'
      do:  Give such a value.
    """
    if not isinstance(value, kind):
        must = f"{name} is a value such as {example}."
        raise CourseError(must, repr(value)[:200], "Give such a value.")


def check_choice(name: str, value: object, choices: tuple) -> None:
    """Refuse a value that is none of the choices.

    >>> check_choice("split", "trian", ("train", "test"))
    Traceback (most recent call last):
    ftcourse.errors.CourseError: split is one of 'train', 'test'.
      got: split='trian'
      do:  Choose one of these.
    """
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        must = f"{name} is one of {', '.join(map(repr, choices))}."
        raise CourseError(must, f"{name}={value!r}"[:200], "Choose one of these.")
