"""The workflows for a public host: they run the README's commands, those of .ci, and no others."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
CI = ROOT / ".ci"
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FILES = {path.stem: path for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))}
FLOWS = {
    name: yaml.safe_load(path.read_text(encoding="utf-8")) | {"name": name}
    for name, path in FILES.items()
}
JOBS = {f"{name}.{key}": job for name, flow in FLOWS.items() for key, job in flow["jobs"].items()}
STEPS = [(name, step) for name, job in JOBS.items() for step in job.get("steps", [])]
# What a workflow may say in its own words: it changes nothing that the tests see.
OWN_WORDS = {'python -m pip freeze >>"$GITHUB_STEP_SUMMARY"'}

posix = pytest.mark.skipif(os.name == "nt", reason="a bash of its own is not certain in Windows")


def when(flow):
    """Return what starts a workflow; YAML reads a bare `on` as true."""
    return flow[True]


def readme(*words):
    return subprocess.run([CI / "readme", *words], capture_output=True, text=True)


def matrix(job):
    """Return each combination of a job's matrix."""
    rows = dict(JOBS[job]["strategy"]["matrix"])
    more = rows.pop("include", [])
    names = list(rows)
    made = [{}] if rows else []
    for name in names:
        made = [row | {name: value} for row in made for value in rows[name]]
    return made + more


@pytest.mark.parametrize("step", [step for _, step in STEPS if "run" in step], ids=str)
def test_a_step_runs_a_script_of_ci_or_a_line_of_the_readme(step):
    command = step["run"].strip()
    assert "\n" not in command
    if command not in OWN_WORDS:
        *runner, script = re.match(r"(?:(bash|python) )?\.ci/(\S+)", command).groups()
        assert (CI / script).is_file()
        assert os.access(CI / script, os.X_OK) or runner != [None]


def test_a_step_takes_an_expression_only_through_the_environment():
    assert not [step["run"] for _, step in STEPS if "${{" in step.get("run", "")]


@posix
def test_each_line_of_the_readme_that_a_workflow_or_ci_runs_is_there_once():
    texts = [path.read_text(encoding="utf-8") for path in [*FILES.values(), CI / "run"]]
    called = re.findall(r"\.ci/readme(?: --print)? ('[^']+'|.+)", "\n".join(texts))
    assert len(called) >= 4
    for words in called:
        found = readme("--print", words.strip("'"))
        assert found.returncode == 0, found.stderr
        assert found.stdout in README


@posix
def test_a_line_that_the_readme_lacks_or_has_twice_is_an_error():
    assert readme("--print", "pip", "install", "torch").stdout == (
        "pip install torch --index-url https://download.pytorch.org/whl/cpu\n"
    )
    for words in ("pip instal torch", "pip install", ""):
        missing = readme(words)
        assert missing.returncode == 1
        assert missing.stdout == ""
        assert "README.md has" in missing.stderr


def test_the_readmes_commands_run_on_every_system_and_python_that_it_names():
    lowest, highest = re.search(r"Python 3\.(\d+) to 3\.(\d+)", README).groups()
    assert PROJECT["requires-python"] == f">=3.{lowest}"
    pythons = {f"3.{minor}" for minor in range(int(lowest), int(highest) + 1)}
    ran = {(row["system"], row["python"]) for row in matrix("tests.readme")}
    systems = {system for system, _ in ran}
    full = {s for s in systems if {python for system, python in ran if system == s} == pythons}
    assert {system.split("-")[0] for system in full} == {"ubuntu", "macos", "windows"}
    # The README excludes Macs with an Intel processor; those of the host are ARM from macOS 14 on.
    (mac,) = [system for system in systems if system.startswith("macos")]
    assert int(mac.removeprefix("macos-")) >= 14
    assert {
        row["python"] for job in JOBS if "strategy" in JOBS[job] for row in matrix(job)
    } <= pythons


def test_nothing_is_pinned_where_the_readmes_commands_run_so_each_week_has_the_newest():
    assert [list(cron) for cron in when(FLOWS["tests"])["schedule"]] == [["cron"]]
    *_, month_day, month, week_day = when(FLOWS["tests"])["schedule"][0]["cron"].split()
    assert (month_day, month, week_day) == ("*", "*", "1")
    job = JOBS["tests.readme"]
    assert "env" not in job
    assert "env" not in FLOWS["tests"]
    assert [step["run"] for step in job["steps"] if "run" in step][:2] == [
        ".ci/readme pip install torch",
        """.ci/readme 'pip install -e ".[test]"'""",
    ]


def test_every_column_has_a_job_and_the_floors_are_those_of_the_project():
    text = (CI / "columns").read_text(encoding="utf-8")
    columns = set(re.findall(r"(?m)^(\w+)\(\)", text)) - {"environment"}
    assert {row["column"] for row in matrix("tests.columns")} == columns == {"floors", "colab"}
    floors = re.search(r"floors\(\) \{(.+?)\n\}", text, re.DOTALL)[1]
    assert "--resolution lowest-direct" in floors
    assert "constraint" not in floors
    pythons = {row["column"]: row["python"] for row in matrix("tests.columns")}
    assert PROJECT["requires-python"] == f">={pythons['floors']}"
    listed = (ROOT / "tests" / "colab.txt").read_text(encoding="utf-8")
    assert re.search(r"which has Python (3\.\d+)\.", listed)[1] == pythons["colab"]
    (everything,) = matrix("tests.everything")
    conda = (ROOT / "environment.yml").read_text(encoding="utf-8")
    assert f"- python={everything['python']}\n" in conda


@posix
def test_the_torch_of_a_column_is_read_where_its_other_versions_are():
    text = (CI / "columns").read_text(encoding="utf-8")
    read = re.findall(r"\$\((sed -n .+?)\)\"", text)
    torch = [subprocess.check_output(["bash", "-c", one], cwd=ROOT, text=True) for one in read]
    (floor,) = [text for text in PROJECT["dependencies"] if text.startswith("torch>=")]
    listed = (ROOT / "tests" / "colab.txt").read_text(encoding="utf-8")
    colab = re.search(r"(?m)^torch==([\d.]+)", listed)[1]
    assert [text.strip() for text in torch] == [f"{floor[7:].split(',')[0]}.0", colab]


def test_torch_for_the_cpu_comes_from_where_the_readme_takes_it():
    address = re.search(r"pip install torch --index-url (\S+)", README)[1]
    for path in FILES.values():
        assert set(re.findall(r"https://\S+/whl/\S*", path.read_text(encoding="utf-8"))) <= {
            address
        }
    for job in ("tests.everything", "tests.columns"):
        assert JOBS[job]["env"]["PIP_EXTRA_INDEX_URL"] == address
    # A cache of what pip downloaded does no harm; one of what it installed would keep what is old.
    caches = [step["with"] for _, step in STEPS if "cache" in step.get("with", {})]
    assert {cache["cache"] for cache in caches} == {"pip"}


def test_actions_are_pinned_by_commit_with_the_same_version_everywhere():
    pinned = {}
    for path in FILES.values():
        for used in re.findall(r"uses: (\S.*)", path.read_text(encoding="utf-8")):
            if used.startswith("./"):
                assert (ROOT / used).is_file()
                continue
            action, commit, version = re.fullmatch(
                r"(\S+)@([0-9a-f]{40}) # (v[\d.]+)", used
            ).groups()
            assert action.startswith("actions/")  # the host's own; nobody else's code runs
            assert pinned.setdefault(action, (commit, version)) == (commit, version)


def test_a_workflow_may_only_read_but_for_the_job_that_publishes_where_its_owner_said_so():
    assert {
        name for name, flow in FLOWS.items() if flow["permissions"] != {"contents": "read"}
    } == set()
    assert {name for name, job in JOBS.items() if "permissions" in job} == {"publish.pages"}
    publishes = JOBS["publish.pages"]
    assert publishes["permissions"] == {"pages": "write", "id-token": "write"}
    assert publishes["if"] == "vars.PUBLISH_EDITION == 'yes'"
    assert set(publishes["needs"]) == {"tests", "release"}  # not before all of them passed
    assert when(FLOWS["publish"]) == {"push": {"tags": ["v*"]}}
    assert "secrets." not in "".join(path.read_text(encoding="utf-8") for path in FILES.values())
    checkouts = [step["with"] for _, step in STEPS if "checkout@" in step.get("uses", "")]
    assert {checkout["persist-credentials"] for checkout in checkouts} == {False}
    # pull_request_target would run a stranger's code with the rights of the repository.
    assert not [flow for flow in FLOWS.values() if "pull_request_target" in when(flow)]


def test_no_job_runs_for_hours_and_a_newer_commit_of_a_request_ends_the_older_run():
    for name, job in JOBS.items():
        assert "uses" in job or job["timeout-minutes"] <= 90, name
    for flow in FLOWS.values():
        assert "github.ref" in flow["concurrency"]["group"]
        assert flow["defaults"]["run"]["shell"] == "bash"  # in Windows, too


def test_pictures_and_packages_are_kept():
    kept = {name: step["with"]["path"] for name, step in STEPS if "upload" in step.get("uses", "")}
    assert kept == {
        "tests.everything": "build/",
        "tests.package": "dist/",
        "publish.release": "build/edition",
    }


@posix
@pytest.mark.parametrize("script", ["run", "columns", "package", "readme"])
def test_a_script_of_ci_is_bash_that_stops_at_the_first_error(script):
    subprocess.run(["bash", "-n", CI / script], check=True)
    lines = (CI / script).read_text(encoding="utf-8").splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert "set -euo pipefail" in lines


def test_ci_runs_the_package_and_checks_the_workflows():
    text = (CI / "run").read_text(encoding="utf-8")
    assert '.ci/package "$work/dist" "$work/venv"' in text
    assert ".github/workflows/*.yml" in text
