from __future__ import annotations

import os
from typing import NamedTuple

import pytest

from repae.config.locks import locked
from repae.data import DigitsConfig
from repae.evaluation import classifier_for


class Trained(NamedTuple):
    digits: object
    classifier: object
    cache: object


@pytest.fixture(scope="session")
def digits():
    return DigitsConfig().open()


@pytest.fixture(scope="session")
def trained(digits, tmp_path_factory):
    """The embedded digits with their classifier, trained once for all tests, in whichever process they run."""
    folder = tmp_path_factory.getbasetemp()
    cache = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "classifier"
    with locked(cache.with_suffix(".lock")):
        return Trained(digits, classifier_for(digits.images, digits.labels, 10, cache), cache)
