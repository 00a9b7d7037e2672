import re
from dataclasses import replace
from statistics import median

import pytest
from matplotlib.figure import Figure

from ftcourse.errors import CourseError
from ftcourse.memory.published import predict_record, recorded_limits, recorded_pairs, step_of
from ftcourse.memory.records import recorded_runs
from ftcourse.plots import plot_recorded

GIB = 2**30
PUBLISHED = [run for run in recorded_runs() if run.by in ("fitcheck", "litgpt")]


def strip_of(ax):
    """Return the axes with the errors, above the others."""
    (strip,) = ax.child_axes
    return strip


def test_a_prediction_of_a_recorded_run_is_of_its_own_loop():
    run = next(run for run in PUBLISHED if run.by == "fitcheck")
    assert run.loop == {"autocast": False, "holds_logits": True}
    assert step_of(run).holds_logits
    assert not step_of(run).autocast
    trainers = predict_record(replace(run, loop={})).allocated
    own = predict_record(run).allocated
    assert abs(own / run.allocated - 1) < abs(trainers / run.allocated - 1)


@pytest.mark.parametrize(("by", "count", "middle", "worst"), [("fitcheck", 61, 0.003, 0.015)])
def test_recorded_runs_are_met_within_a_few_percent(by, count, middle, worst):
    errors = [
        abs(predict_record(run).allocated / run.allocated - 1) for run in PUBLISHED if run.by == by
    ]
    assert len(errors) == count
    assert median(errors) < middle
    assert max(errors) < worst


def test_a_run_on_a_card_without_facts_is_refused_in_three_parts():
    with pytest.raises(CourseError, match=r"(?s)facts of the card.*Riva 128.*hardware\.CARDS"):
        predict_record(replace(PUBLISHED[0], card="Riva 128"))


def test_the_picture_of_recorded_runs_shows_each_run_and_says_whose_they_are():
    ax = plot_recorded()
    points = {line.get_label(): line for line in ax.lines if len(line.get_xdata()) > 2}
    assert sorted(len(line.get_xdata()) for line in points.values()) == [17, 61]
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert any(re.search(r"A100.*recorded by litgpt, 2023-10: 17 runs", text) for text in texts)
    assert any(re.search(r"T4.*recorded by fitcheck.*: 61 runs", text) for text in texts)
    assert all(text in ax.alt for text in texts)
    assert len({line.get_marker() for line in points.values()}) == 2  # differ without colour


def test_the_strip_has_signed_errors_and_names_the_worst():
    run = next(run for run in PUBLISHED if run.by == "fitcheck")
    runs = [replace(run, allocated=round(run.allocated * share)) for share in (1, 2)]
    strip = strip_of(plot_recorded(runs))
    errors = [100 * (predict_record(each).allocated / each.allocated - 1) for each in runs]
    assert errors[1] < -49
    assert [*strip.lines[0].get_ydata()] == pytest.approx(errors)
    (label,) = strip.texts
    assert label.get_text() == run.config.model.split("/")[-1]
    assert label.xy[1] == pytest.approx(errors[1])


def test_no_runs_and_more_authors_than_markers_are_refused():
    run = PUBLISHED[0]
    for runs in ([], [replace(run, by=name) for name in "abcd"]):
        with pytest.raises(CourseError, match=f"{len(runs)} of them"):
            plot_recorded(runs)


def test_what_is_live_is_at_most_what_is_reserved():
    runs = [run for run in recorded_runs() if run.reserved]
    assert len(runs) >= 61
    assert all(run.allocated <= run.reserved for run in runs)


def test_a_pair_differs_in_the_method_alone_and_the_worst_comes_first():
    pairs = recorded_pairs()
    assert len(pairs) == 20
    assert [pair.recorded for pair in pairs] == sorted((p.recorded for p in pairs), reverse=True)
    for pair in pairs:
        assert (pair.lora.config.method, pair.qlora.config.method) == ("lora", "qlora")
        assert pair.lora.config.max_length == pair.qlora.config.max_length
        both = [predict_record(run).allocated for run in (pair.qlora, pair.lora)]
        assert both[0] / both[1] - 1 == pytest.approx(pair.recorded, abs=0.01)
    assert sum(pair.trainers > 0 for pair in pairs) < sum(pair.recorded > 0 for pair in pairs)


def test_runs_near_the_limit_are_sorted_and_fail_where_most_tensors_are():
    limits = recorded_limits()
    assert [each.process is None for each in limits] == 8 * [False] + 4 * [True]
    assert "failed" in repr(limits[-1])
    assert "failed" not in repr(limits[0])


def test_it_draws_into_axes_that_are_given():
    ax = Figure(figsize=(8, 5)).add_subplot()
    assert plot_recorded(ax=ax) is ax
