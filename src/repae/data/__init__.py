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
from repae.data.sources.archive import ArchiveConfig
from repae.data.sources.folder import FolderConfig, LabelledConfig
from repae.data.sources.hdf5 import ReferenceHdf5Config
from repae.data.sources.huggingface import HuggingFaceConfig
from repae.data.sources.several import SeveralConfig
from repae.data.sources.webdataset import WebDatasetConfig

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
