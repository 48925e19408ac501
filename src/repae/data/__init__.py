"""Images in: the embedded digits, any source of images, prepared shards, and the endless stream of batches."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from repae.data.batch import Batch, Dataset, Latents
from repae.data.crop import centre_crop
from repae.data.digits import Digits, DigitsConfig
from repae.data.images import ImageDataset, ImagesConfig, PixelsConfig
from repae.data.loader import Loader
from repae.data.shard_dataset import ShardDataset, ShardsConfig
from repae.data.sources import (
    ArchiveConfig,
    FolderConfig,
    HuggingFaceConfig,
    LabelledConfig,
    ReferenceHdf5Config,
    SeveralConfig,
    WebDatasetConfig,
)

DataConfig = Annotated[
    DigitsConfig
    | FolderConfig
    | LabelledConfig
    | ArchiveConfig
    | WebDatasetConfig
    | HuggingFaceConfig
    | ReferenceHdf5Config
    | SeveralConfig
    | ShardsConfig,
    Field(discriminator="kind"),
]
"""Any data set that a recipe can name."""

__all__ = [
    "ArchiveConfig",
    "Batch",
    "DataConfig",
    "Dataset",
    "Digits",
    "DigitsConfig",
    "FolderConfig",
    "HuggingFaceConfig",
    "ImageDataset",
    "ImagesConfig",
    "LabelledConfig",
    "Latents",
    "Loader",
    "PixelsConfig",
    "ReferenceHdf5Config",
    "SeveralConfig",
    "ShardDataset",
    "ShardsConfig",
    "WebDatasetConfig",
    "centre_crop",
]
