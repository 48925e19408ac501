"""What images are compared with: other images, stored statistics of them, or both, as in ADM's reference files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from repae.config import UserError
from repae.config.files import readable
from repae.evaluation.cache import check_finite
from repae.evaluation.features import POOL
from repae.evaluation.images import ImageSet, npz_names, open_images
from repae.evaluation.inception import SPATIAL

STORED = {POOL: ("mu", "sigma"), SPATIAL: ("mu_s", "sigma_s")}
"""Names of mean and covariance in ADM's reference files, by part of the Inception."""


class Statistics(NamedTuple):
    mean: Float64[Tensor, " d"]
    covariance: Float64[Tensor, "d d"]


@dataclass(frozen=True)
class Reference:
    """Images, statistics of Inception features by part, or both; where it has both, they need not be of the same
    images: ADM's file of ImageNet has the statistics of the whole set and 10,000 images of it.

    Attributes:
        images: None where only statistics are stored.
        statistics: empty where only images are there.
        stored_digest: of the stored means and covariances as they lie in the file.
    """

    name: str
    images: ImageSet | None
    statistics: Mapping[str, Statistics] = field(default_factory=dict)
    stored_digest: str = ""

    @cached_property
    def digest(self) -> str:
        digest = hashlib.sha256(self.stored_digest.encode())
        if self.images is not None:
            digest.update(self.images.digest.encode())
        return digest.hexdigest()[:24]

    def facts(self) -> dict[str, Any]:
        images = {} if self.images is None else {"images": len(self.images), "size": list(self.images.shape)}
        return {"name": self.name, "sha256": self.digest, "stored": sorted(self.statistics), **images}


def open_reference(path: str | Path, resolution: int | None = None) -> Reference:
    """A folder of images, or an `.npz` with images `arr_0`, with `mu` and `sigma` (and `mu_s`, `sigma_s`), or both."""
    path = Path(path).expanduser()
    names = npz_names(path) if path.suffix == ".npz" and path.is_file() else set()
    known = {part: keys for part, keys in STORED.items() if set(keys) <= names}
    if names and not known and "arr_0" not in names:
        raise UserError(
            f"the reference {readable(path)} holds {', '.join(sorted(names))}; wanted: images as arr_0, or statistics "
            "as mu and sigma (and mu_s and sigma_s for sFID)"
        )
    digest, statistics = hashlib.sha256(), {}
    for part, keys in known.items():
        found = statistics[part] = _stored(path, keys)
        digest.update(part.encode() + found.mean.numpy().tobytes() + found.covariance.numpy().tobytes())
    images = open_images(path, resolution) if not known or "arr_0" in names else None
    name = readable(path.name) if images is None else images.name
    return Reference(name, images, statistics, digest.hexdigest()[:24] if known else "")


def _stored(path: Path, keys: tuple[str, str]) -> Statistics:
    with np.load(path, allow_pickle=False) as file:
        mean, covariance = (torch.from_numpy(np.array(file[key], dtype=np.float64)) for key in keys)
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise UserError(
            f"{keys[0]} and {keys[1]} of {readable(path)} are {list(mean.shape)} and {list(covariance.shape)}; "
            "allowed: [d] and [d, d]"
        )
    check_finite(torch.cat([mean[None], covariance]), f"{keys[0]} and {keys[1]} of {readable(path)}")
    return Statistics(mean, covariance)
