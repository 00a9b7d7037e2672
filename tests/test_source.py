from ftcourse.models import load_base
from ftcourse.source import show_source


def test_the_source_is_shown_with_its_docstring_and_with_colours_in_a_notebook():
    source = show_source(show_source)
    assert repr(source).startswith("def show_source(")
    assert show_source.__doc__ in repr(source)
    assert source._repr_markdown_() == f"```python\n{source!r}\n```"


def test_a_decorated_function_shows_its_own_source_and_not_the_decorators():
    assert "def load_base(" in repr(show_source(load_base))
