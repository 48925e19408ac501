"""Training from prepared images: what `repae prepare` made, from a folder or from object storage."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Bool, Int64
from pydantic import Field, PositiveInt
from torch import Tensor

from repae.config import Config, UserError
from repae.data.batch import Batch, Dataset, check_indices
from repae.data.order import WINDOW
from repae.data.shard_folder import ShardFolder, read_manifest
from repae.runtime.file_store import FileStore, RemoteStore, store_at

ASSUMED_RESOLUTION = 256

logger = logging.getLogger("repae.data")


class ShardsConfig(Config):
    """Images that `repae prepare` made, of the resolution that they were made in.

    Attributes:
        path: the folder, or its URL (s3, gs, http, ... as fsspec knows them), whose shards are then fetched whole.
        flip: mirror each image in about half of the epochs. Off by default: text and digits have a handedness.
        block: shuffle blocks of so many consecutive images, and inside 16 blocks at a time, for slow or remote storage;
            the images of a shard are a good size. None shuffles all images alike.
        cache: where fetched shards are kept; by default in the user's cache folder.
        cache_bytes: how much is kept; the shards not used for the longest go first.
    """

    channels: ClassVar[int] = 3
    kind: Literal["shards"] = "shards"
    path: str = Field(min_length=1)
    flip: bool = False
    block: PositiveInt | None = None
    cache: str | None = Field(None, min_length=1)
    cache_bytes: PositiveInt = 500_000_000_000

    @property
    def resolution(self) -> int:
        """Side of the images as they were prepared; 256 is assumed where they cannot be read yet."""
        if any(self.missing()):
            return ASSUMED_RESOLUTION
        return read_manifest(self.store(), "images").plan.about["resolution"]

    @property
    def where(self) -> str:
        return self.path

    def missing(self) -> Iterator[str]:
        try:
            read_manifest(self.store(), "images")
        except UserError as error:
            yield f"data: {error}"

    def store(self) -> FileStore:
        return store_at(self.path, self.cache, self.cache_bytes)

    def open(self) -> ShardDataset:
        """The data set; nothing but the manifest and the labels is read."""
        return ShardDataset(self)


class ShardDataset(Dataset):
    """Prepared RGB images. Labels are mapped from their file, so they take no memory however many there are."""

    def __init__(self, config: ShardsConfig) -> None:
        self._open(config)
        self._advise()

    def __getstate__(self) -> dict[str, Any]:
        return {"config": self.config, "broken": self.broken}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._open(state["config"])
        self.broken = state["broken"]

    def _open(self, config: ShardsConfig) -> None:
        self.config = config
        self.channels, self.flip, self.block = config.channels, config.flip, config.block
        self.broken: dict[int, str] = {}
        self.folder = ShardFolder(config.store(), "images")
        about = self.folder.plan.about
        self.resolution = int(about["resolution"])
        self.class_names = tuple(about["classes"])
        if not len(self.folder):
            raise UserError(f"{self.config.path} holds no image that could be read; prepare another source")
        self.labels = torch.from_numpy(self.folder.labels())

    @property
    def fingerprint(self) -> str:
        return self.folder.manifest.seal[:32]

    def batch(self, indices: Int64[Tensor, " b"], flips: Bool[Tensor, " b"] | None = None) -> Batch:
        check_indices(indices, len(self))
        images = self.folder.rows("images", np.asarray(indices))
        if flips is not None:
            for row in torch.nonzero(flips)[:, 0].tolist():
                images[row] = images[row].flip(-1)
        return Batch(images, self.labels[indices], indices)

    def _advise(self) -> None:
        """Warns where shards would be fetched again and again."""
        if not isinstance(self.folder.store, RemoteStore):
            return
        shards = self.folder.manifest.shards
        volume = sum(size for shard in shards for size, _ in shard.files.values())
        if volume <= self.config.cache_bytes:
            return
        largest = max(size for shard in shards for size, _ in shard.files.values())
        if self.block is None:
            logger.warning(
                "data: %s has %s bytes and the cache may hold %s, so that shards are fetched again and again; set "
                "--data.block %d, the images of a shard, or a larger --data.cache-bytes",
                self.config.path, f"{volume:,}", f"{self.config.cache_bytes:,}", self.folder.plan.per_shard,
            )  # fmt: skip
        elif 2 * WINDOW * largest > self.config.cache_bytes:
            logger.warning(
                "data: %d blocks are read at a time, and the cache may hold %s bytes; allow at least %s with "
                "--data.cache-bytes", WINDOW, f"{self.config.cache_bytes:,}", f"{2 * WINDOW * largest:,}",
            )  # fmt: skip
