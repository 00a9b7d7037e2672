import json
import sys
from pathlib import Path

import pytest

from ftcourse.errors import CourseError
from ftcourse.files import course_path
from ftcourse.sweeps import Mean, load_sweep, over_seeds, select

FILES = sorted(course_path("data/measured").glob("sweep_*.jsonl"))
SEEDED = [{"rank": r, "seed": s, "loss": r + s} for r in (1, 8) for s in (0, 1, 2)]


def test_a_mean_over_seeds_has_students_interval():
    mean = Mean((0.2, 0.3, 0.4))
    assert mean.mean == pytest.approx(0.3)
    assert mean.interval == pytest.approx((0.0516, 0.5484), abs=1e-4)  # 4.303 * 0.1 / sqrt(3)
    assert "3 seeds" in repr(mean)


def test_a_single_seed_says_nothing_about_the_others():
    assert Mean((0.5,)).margin == float("inf")


def test_runs_are_grouped_by_a_setting():
    means = over_seeds(SEEDED, "rank", "loss")
    assert {rank: mean.values for rank, mean in means.items()} == {1: (1, 2, 3), 8: (8, 9, 10)}


def test_runs_are_selected_by_their_settings():
    assert [run["loss"] for run in select(SEEDED, rank=8, seed=1)] == [9]
    with pytest.raises(CourseError, match="no run with rank=2"):
        select(SEEDED, rank=2)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_recorded_run_says_seconds_device_date_and_versions(file):
    runs = load_sweep(file.stem.removeprefix("sweep_"))
    for run in runs:
        assert {"cpu_seconds", "device", "date", "versions"} <= run.keys()
    texts = [json.dumps(run, sort_keys=True) for run in runs]
    assert len(set(texts)) == len(texts)


@pytest.fixture
def machinery(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))
    import sweep

    monkeypatch.setattr(sweep, "MEASURED", tmp_path)
    yield sweep
    sys.modules.pop("sweep")


def test_a_sweep_that_stopped_goes_on_where_it_was(machinery):
    settings, measured = [{"rank": rank} for rank in (1, 2, 3)], []

    def measure(rank):
        if rank == 2 and len(measured) < 2:
            measured.append("stopped")
            raise KeyboardInterrupt
        measured.append(rank)
        return {"loss": rank / 10}

    with pytest.raises(KeyboardInterrupt):
        machinery.sweep("of_a_test", settings, measure)
    path = machinery.sweep("of_a_test", settings, measure)
    assert measured == [1, "stopped", 2, 3]
    runs = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [(run["rank"], run["loss"]) for run in runs] == [(1, 0.1), (2, 0.2), (3, 0.3)]
