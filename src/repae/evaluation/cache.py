"""Features are computed once: a folder for each pair of images and network, named by their digests."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from repae.config import UserError, atomic_folder
from repae.evaluation.features import FeatureExtractor
from repae.evaluation.images import ImageSet

FACTS = "features.json"

Features = dict[str, Float[Tensor, "n _"]]
"""Every part of an extractor for a whole set of images, by name."""

log = logging.getLogger("repae")


class FeatureCache:
    """Features of whole sets of images, kept in `folder` under what they were made of, or nowhere.

    A part is one `.npy` file, mapped and not read, so that 50,000 x 2,048 numbers take no memory until they are used.
    A folder appears whole or not at all; one that is damaged is made anew.
    """

    def __init__(self, folder: Path | None, batch_size: int = 64) -> None:
        self.folder, self.batch_size = folder, batch_size

    def features(self, images: ImageSet, extractor: FeatureExtractor) -> Features:
        """Every part of `extractor` for `images`, float32 on the CPU, in the order of the images.

        Raises:
            UserError: images that the network cannot take, or features that are no numbers.
        """
        extractor.check(images)
        shapes = {part: (len(images), width) for part, width in extractor.parts.items()}
        if self.folder is None or not images.keep:
            arrays = {part: np.empty(shape, np.float32) for part, shape in shapes.items()}
            self._fill(arrays, images, extractor)
            return {part: torch.from_numpy(values) for part, values in arrays.items()}
        place = self.folder / f"features-{extractor.name}-{images.digest}-{extractor.digest}"
        if (kept := _load(place, images, extractor)) is not None:
            return kept
        shutil.rmtree(place, ignore_errors=True)
        # Several runs that are evaluated at once compute the same features: the first to be done has made them.
        with suppress(FileExistsError), atomic_folder(place) as folder:
            create = np.lib.format.open_memmap
            files = {part: create(folder / f"{part}.npy", "w+", np.float32, shape) for part, shape in shapes.items()}
            self._fill(files, images, extractor)
            for values in files.values():
                # Before the folder gets its name: what was written through a map may still be in memory only.
                values.flush()
            facts = {"images": images.facts(), "extractor": extractor.facts(), "parts": dict(extractor.parts)}
            (folder / FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        made = _load(place, images, extractor)
        assert made is not None, place
        return made

    def _fill(self, arrays: Mapping[str, np.ndarray], images: ImageSet, extractor: FeatureExtractor) -> None:
        first = 0
        for batch in images.batches(self.batch_size):
            for part, values in extractor(batch).items():
                # Here and not later: one nan in a row makes a whole covariance nan, and nobody would know which image.
                check_finite(values, f"{extractor.name} features of images {first} to {first + len(batch) - 1}")
                arrays[part][first : first + len(batch)] = values.numpy()
            first += len(batch)
        assert first == len(images), (first, len(images))


def check_finite(features: Float[Tensor, "n d"], name: str = "features") -> None:
    bad = (~torch.isfinite(features).all(1)).nonzero()
    if len(bad):
        raise UserError(
            f"{name} are not numbers (NaN or infinite) in {len(bad)} of {len(features)} rows, first in row "
            f"{int(bad[0])}; the weights or the precision of the network are at fault, or the images of a broken run"
        )


def _load(place: Path, images: ImageSet, extractor: FeatureExtractor) -> Features | None:
    found = {}
    try:
        if json.loads((place / FACTS).read_text(encoding="utf-8"))["parts"] != dict(extractor.parts):
            return None
        for part, width in extractor.parts.items():
            # Copy on write: torch wants memory that could be written to, and the file stays as it is.
            values = np.load(place / f"{part}.npy", mmap_mode="c", allow_pickle=False)
            if values.shape != (len(images), width) or values.dtype != np.float32:
                return None
            found[part] = torch.from_numpy(values)
    except (OSError, ValueError, KeyError, TypeError):
        if place.exists():
            log.warning("%s is damaged; its features are computed again", place.name)
        return None
    return found
