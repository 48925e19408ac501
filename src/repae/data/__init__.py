"""Images in: the embedded digits, folders, and the endless, resumable stream of batches."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from repae.data.batch import Batch, Dataset
from repae.data.crop import centre_crop
from repae.data.digits import Digits, DigitsConfig
from repae.data.images import FolderConfig, ImageFolder
from repae.data.loader import Loader

DataConfig = Annotated[DigitsConfig | FolderConfig, Field(discriminator="kind")]
"""Any data set that a recipe can name."""

__all__ = [
    "Batch",
    "DataConfig",
    "Dataset",
    "Digits",
    "DigitsConfig",
    "FolderConfig",
    "ImageFolder",
    "Loader",
    "centre_crop",
]
