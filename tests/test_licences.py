"""Every package that pyproject.toml leads to is listed, under a licence that we may build on."""

import re
from importlib import metadata

import licences
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LISTED = dict(
    re.findall(r"(?m)^\| (\w[\w.-]*)(?: †)? \| (.+) \|$", licences.FILE.read_text(encoding="utf-8"))
)
LISTED.pop("package")
ADVICE = "look at its licence, then write the table again: python tests/licences.py"


def test_every_package_that_we_lead_to_is_in_the_table():
    found = {name for name in licences.reached() if not licences.CUDA.fullmatch(name)}
    assert found - LISTED.keys() == set(), ADVICE


def test_every_package_of_pyproject_is_in_the_table_whether_it_is_installed_or_not():
    optional = licences.PROJECT["optional-dependencies"].values()
    texts = [*licences.PROJECT["dependencies"], *(text for extra in optional for text in extra)]
    names = {canonicalize_name(Requirement(text).name) for text in texts} - {"ftcourse"}
    assert names - LISTED.keys() == set(), ADVICE


def test_every_licence_is_on_the_list_here_and_in_the_table():
    for name, text in [*LISTED.items(), *licences.reached().items()]:
        if not licences.CUDA.fullmatch(name):
            assert licences.parts_of(text) <= licences.FREE | licences.NAMED, f"{name}: {text}"


def test_the_table_is_what_the_script_writes_up_to_what_is_installed():
    text = licences.FILE.read_text(encoding="utf-8")
    assert text.startswith(licences.HEAD)
    assert list(LISTED) == sorted(LISTED)
    assert licences.ELSEWHERE.keys() <= LISTED.keys()
    daggers = set(re.findall(r"(?m)^\| ([\w.-]+) † ", text))
    assert daggers == {n for n, t in LISTED.items() if licences.parts_of(t) & licences.NAMED}


def test_tqdm_and_certifi_are_named_with_their_mpl():
    for name in ("tqdm", "certifi"):
        assert licences.parts_of(LISTED[name]) & licences.NAMED == {"MPL-2.0"}


class Stated(dict):
    """Metadata that a test makes up."""

    def get_all(self, name):
        return [self[name]] if name in self else None


@pytest.mark.parametrize(
    ("stated", "free"),
    [
        ({"License-Expression": "MIT"}, True),
        ({"License-Expression": "GPL-3.0-only OR Apache-2.0"}, True),  # we choose
        ({"License-Expression": "MIT AND GPL-3.0-only"}, False),
        ({"License-Expression": "AGPL-3.0-or-later"}, False),
        ({"License": "BSD 3-Clause License"}, True),
        ({"License": "GPLv3"}, False),
        ({"License": "see LICENSE", "Classifier": "License :: OSI Approved :: MIT License"}, True),
        ({"Classifier": "License :: OSI Approved :: GNU General Public License v3"}, False),
        ({}, False),
    ],
)
def test_a_licence_that_is_not_on_the_list_is_seen_however_it_is_stated(stated, free, monkeypatch):
    monkeypatch.setattr(metadata, "metadata", lambda package: Stated(stated))
    found = licences.parts_of(licences.licence_of("made-up"))
    assert (found <= licences.FREE | licences.NAMED) is free
