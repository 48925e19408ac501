"""The page about scale says what the command prints, and the command's formulas are the code's."""

from __future__ import annotations

import gc
import importlib.util
import json
import sys
import tracemalloc
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from repae.data import FolderConfig
from repae.data.shard_dataset import ShardsConfig
from repae.data.shard_folder import ShardInfo
from repae.preparation.images import PrepareConfig, prepare

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def scale() -> ModuleType:
    spec = importlib.util.spec_from_file_location("scale", ROOT / "benchmarks" / "scale.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["scale"] = module  # where dataclasses look it up
    spec.loader.exec_module(module)
    return module


def test_the_page_holds_what_the_command_prints(scale: ModuleType) -> None:
    """Protects the page from numbers nobody can repeat."""
    assert scale.tables(256, None, 8) in (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")


def test_bytes_and_files_are_those_of_a_real_folder(scale: ModuleType, tmp_path: Path) -> None:
    """Protects the formulas: a folder that was really prepared has so many files and, but for the lists in JSON and the
    contact sheet, so many bytes; a shard asked for is one file."""
    (tmp_path / "photos" / "a").mkdir(parents=True)
    for number in range(10):
        Image.fromarray(np.full((20, 20, 3), number, np.uint8)).save(tmp_path / "photos" / "a" / f"{number}.png")
    config = PrepareConfig(resolution=16, per_shard=4, workers=1)
    prepare(FolderConfig(path=str(tmp_path / "photos")), tmp_path / "out", config, say=lambda _: None)
    plan = scale.plan_of(10, 16, 4)
    cost = scale.shards(plan, nodes=3)
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert cost.files == len(files)
    names = plan.count * (scale.NAME_BYTES + len('"",\n'))
    assert cost.bytes - names == sum(path.stat().st_size for path in files if path.suffix == ".npy")
    opened = ShardsConfig(path=str(tmp_path / "out")).open()
    assert cost.requests == 3 * plan.shards == 3 * len(opened.folder.manifest.shards)


def test_a_shard_in_memory_is_as_small_as_said(scale: ModuleType) -> None:
    """Protects the figure that limits the number of shards, within a factor of two; and the manifest's size in JSON."""
    text = json.dumps([
        {"count": 1365, "files": {f"{n:06}.{name}.npy": [10**8 + n, f"{n:064}"] for name in ("images", "labels")}}
        for n in range(2000)
    ])  # fmt: skip
    tracemalloc.start()
    kept = [ShardInfo(**item) for item in json.loads(text)]
    gc.collect()
    memory = tracemalloc.get_traced_memory()[0] / len(kept)
    tracemalloc.stop()
    assert scale.MANIFEST_MEMORY / 2 < memory < scale.MANIFEST_MEMORY * 2
    plan = scale.plan_of(2000 * 1365, 256, 1365)
    assert 0.5 < scale.manifest_bytes(plan) / len(text) < 2
