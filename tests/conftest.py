"""Fixtures that several test files share."""

import pytest


@pytest.fixture(scope="session")
def tokenizer():
    from ftcourse.models import load_tokenizer  # here: light tests need not wait for torch

    return load_tokenizer("embedded")
