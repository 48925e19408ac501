from __future__ import annotations

from typing import NamedTuple

import pytest

from repae.data import DigitsConfig
from repae.evaluate import judge_for


class Judged(NamedTuple):
    digits: object
    judge: object
    cache: object


@pytest.fixture(scope="session")
def digits():
    return DigitsConfig().open()


@pytest.fixture(scope="session")
def judged(digits, tmp_path_factory):
    """The embedded digits with their classifier, trained once for all tests of this process."""
    cache = tmp_path_factory.mktemp("cache")
    return Judged(digits, judge_for(digits.images, digits.labels, 10, cache), cache)
