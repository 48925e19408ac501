"""Folders of images and of latents that version 0.1 wrote: they open, and are the same data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from repae.data import FolderConfig, ShardsConfig
from repae.data.latent_dataset import LatentDataset, LatentsConfig
from repae.preparation.verify import verify

WRITTEN = Path(__file__).parents[1] / "written_by_0_1"


def written(name: str) -> dict[str, Any]:
    return json.loads((WRITTEN / name / "manifest.json").read_text(encoding="utf-8"))


def test_prepared_images_of_0_1() -> None:
    """Protects whoever prepared images: every byte is accepted, the fingerprint that names caches and runs is the
    same, and so are pixels and labels."""
    data = ShardsConfig(path=str(WRITTEN / "shards")).open()
    assert verify(WRITTEN / "shards", "images").count == len(data) == 12
    assert data.fingerprint == written("shards")["seal"][:32]
    source = FolderConfig(path=str(WRITTEN / "images"), resolution=16).open()
    assert data.class_names == source.class_names == ("circles", "squares")
    read, expected = data.batch(torch.arange(12)), source.batch(torch.arange(12))
    assert torch.equal(read.images, expected.images) and torch.equal(read.labels, expected.labels)


def test_cached_latents_of_0_1() -> None:
    """Protects whoever cached latents: they belong to the same images as before, by the fingerprint of these, and the
    seal that a run's checkpoints name is the same."""
    images = FolderConfig(path=str(WRITTEN / "images"), resolution=16).open()
    store = LatentsConfig(path=str(WRITTEN / "latents")).open(images)
    assert verify(WRITTEN / "latents", "latents").count == len(store) == 12
    assert (
        store.seal == written("latents")["seal"] and images.fingerprint == written("latents")["plan"]["about"]["data"]
    )
    batch = LatentDataset(images, store).batch(torch.tensor([11, 0]))
    assert batch.latents is not None and batch.latents.mean.shape[1:] == store.shape
    assert bool((batch.latents.std > 0).all()) and batch.labels.tolist() == [1, 0]
