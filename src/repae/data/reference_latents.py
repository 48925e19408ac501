"""The reference implementation's cached latents, an HDF5 file beside its images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from repae.config import UserError
from repae.data.batch import Dataset, Latents
from repae.data.hdf5_file import Hdf5File
from repae.data.latent_store import LatentStore

INFIX = "img-mean-std-"
"""What distinguishes an entry ``00000/img-mean-std-00000007.npy`` from its image ``00000/img00000007.png``."""

_DAMAGED = "the file is damaged: copy or encode it again"


class ReferenceLatents(LatentStore):
    """``NAME.h5`` with ``NAME_h5.json`` beside it, as the reference's ``cache_latents.py`` writes them.

    The JSON lists the entries, ``.../img-mean-std-XXXXXXXX.npy``, each an array ``[2k, h, w]``: the posterior's mean,
    then its standard deviation. Entry and image belong together by name; the reference pairs them by sort order, which
    attaches every image to a wrong latent as soon as one is missing. Labels in the entry ``dataset.json`` must agree
    with those of the images. Nothing says which autoencoder made the file: whoever trains on it has to compare.
    """

    vae = None
    flipped = False
    teachers = ()
    statistics = None
    seal = None

    def __init__(self, path: str | Path, dataset: Dataset) -> None:
        self.path = Path(path)
        self.where = str(path)
        self.file = Hdf5File(self.path)
        names = _names(self.path)
        self.names = [_entry_of(dataset, index, names, self.where) for index in range(len(dataset))]
        self._check_labels(dataset)
        first = self._entry(self.names[0])
        if first.ndim != 3 or first.shape[0] % 2 or first.dtype.kind != "f":
            raise UserError(
                f"{path}: entry {self.names[0]!r} is {first.dtype} of shape {first.shape}; allowed: numbers "
                "[2k, h, w], mean then standard deviation, as the reference's cache_latents.py writes them"
            )
        self.dtype = str(first.dtype)
        self.shape = (first.shape[0] // 2, first.shape[1], first.shape[2])

    def __len__(self) -> int:
        return len(self.names)

    def moments(self, indices: Int64[Tensor, " b"], flips: Bool[Tensor, " b"] | None = None) -> Latents:
        assert flips is None or not flips.any(), "mirrored images are asked of a file without them"
        mean, std = torch.empty((2, len(indices), *self.shape))
        for row, index in enumerate(indices.tolist()):
            entry = torch.from_numpy(self._entry(self.names[index]).astype(np.float32))
            if entry.shape != (2 * self.shape[0], *self.shape[1:]):
                raise UserError(
                    f"{self.where}: entry {self.names[index]!r} has shape {tuple(entry.shape)} and the first one "
                    f"{(2 * self.shape[0], *self.shape[1:])}; encode all images at one size"
                )
            mean[row], std[row] = entry.split(self.shape[0])
        return Latents(mean, std)

    def present(self, indices: Int64[Tensor, " b"]) -> Int64[Tensor, " b"]:
        return indices  # the reference's files hold no unreadable image

    def _check_labels(self, dataset: Dataset) -> None:
        labels = _labels(self.file.opened(), self.where)
        for name, label in zip(self.names, dataset.labels.tolist(), strict=True):
            if labels and labels.get(name) != label:
                raise UserError(
                    f"{self.where} says class {labels.get(name)} of {name!r}, the data say {label}; these latents "
                    "belong to other images, or to another numbering of the classes"
                )

    def _entry(self, name: str) -> np.ndarray:
        try:
            return np.asarray(self.file.opened()[name])
        except (OSError, KeyError) as error:
            raise UserError(f"{self.where}: entry {name!r} cannot be read: {error}; {_DAMAGED}") from error


def _names(path: Path) -> dict[str, str]:
    """Entries by the name that their image must have, without its ending."""
    listing = path.with_name(f"{path.stem}_h5.json")
    try:
        names = json.loads(listing.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{listing} cannot be read: {error}; the reference writes it beside {path.name}, copy it too"
        ) from None
    return {_stem(name.replace(INFIX, "img")): name for name in names if name.endswith(".npy")}


def _entry_of(dataset: Dataset, index: int, names: dict[str, str], where: str) -> str:
    image = dataset.name(index)
    entry = names.get(_stem(image))
    if entry is None:
        example = next(iter(names.values()), "nothing")
        raise UserError(
            f"{where} holds no latent of image '{image}': its entries, such as '{example}', are found by name, "
            "00000/img00000007.png at 00000/img-mean-std-00000007.npy; give the images that were encoded (the "
            "reference's images.h5, or a folder with the same names)"
        )
    return entry


def _labels(file: Any, where: str) -> dict[str, int]:
    if "dataset.json" not in file:
        return {}
    try:
        return dict(json.loads(np.asarray(file["dataset.json"]).tobytes().decode("utf-8"))["labels"] or [])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{where}: its entry dataset.json cannot be read: {error}; {_DAMAGED}") from None


def _stem(name: str) -> str:
    return name.replace("\\", "/").rpartition(".")[0]
