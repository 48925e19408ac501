"""What every test gets: one thread, a fixed seed, and no trace of torchrun in the environment."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("repae", deadline=None, max_examples=30, derandomize=True, print_blob=True)
settings.load_profile("repae")


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The same start for every test, whatever ran before it in this process or started it."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    torch.manual_seed(0)
    logging.getLogger("repae").handlers.clear()  # a handler keeps the standard error that it was made with
    logging.getLogger("repae").setLevel(logging.NOTSET)  # a command that ran as a further process left it at ERROR
    dtype = torch.get_default_dtype()
    yield
    torch.set_default_dtype(dtype)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `gpu` are skipped in words where there is none."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
