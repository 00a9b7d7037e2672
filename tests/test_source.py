from ftcourse import models
from ftcourse.models import load_base
from ftcourse.source import Text, show_source


def test_the_source_is_shown_with_its_place_its_docstring_and_with_colours_in_a_notebook():
    source = show_source(show_source)
    assert repr(source).startswith("def show_source(")
    assert show_source.__doc__ in repr(source)
    place, code = source._repr_markdown_().split("\n", 1)
    assert code == f"```python\n{source!r}\n```"
    assert place.startswith("`ftcourse/source.py, line ")


def test_the_line_is_where_the_file_has_it():
    source = show_source(load_base)
    line = int(source.place.rpartition(" ")[2])
    with open(models.base.__file__, encoding="utf-8") as file:
        assert (
            file.read().splitlines()[line - 1 :][: len(source.splitlines())] == source.splitlines()
        )


def test_a_decorated_function_shows_its_own_source_and_not_the_decorators():
    assert "def load_base(" in repr(show_source(load_base))


def test_a_text_is_shown_without_quotes_in_lines_that_fit_a_narrow_page():
    text = Text("word " * 40 + "\nend")
    assert text == "word " * 40 + "\nend"
    assert max(map(len, repr(text).splitlines())) <= 80
    assert repr(text).splitlines()[-1] == "end"
