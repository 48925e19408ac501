"""Images in: the embedded digits, folders, prepared shards, and the endless, resumable stream of batches."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from repae.data.batch import Batch, Dataset, Latents
from repae.data.crop import centre_crop
from repae.data.digits import Digits, DigitsConfig
from repae.data.images import Images, ImagesConfig
from repae.data.loader import Loader
from repae.data.shards import Shards, ShardsConfig
from repae.data.sources import FolderConfig

DataConfig = Annotated[DigitsConfig | FolderConfig | ShardsConfig, Field(discriminator="kind")]
"""Any data set that a recipe can name."""

__all__ = [
    "Batch",
    "DataConfig",
    "Dataset",
    "Digits",
    "DigitsConfig",
    "FolderConfig",
    "Images",
    "ImagesConfig",
    "Latents",
    "Loader",
    "Shards",
    "ShardsConfig",
    "centre_crop",
]
