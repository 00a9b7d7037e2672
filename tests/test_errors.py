import pickle

from ftcourse.errors import CourseError


def test_the_text_shows_the_three_parts_on_lines_of_their_own():
    error = CourseError("A must hold.", "b", "Do c.")
    assert str(error).splitlines() == ["A must hold.", "  got: b", "  do:  Do c."]


def test_an_error_comes_back_complete_from_another_process():
    error = pickle.loads(pickle.dumps(CourseError("A must hold.", "b", "Do c.")))
    assert (error.must, error.got, error.do) == ("A must hold.", "b", "Do c.")
