"""A run on latents that were computed beforehand, with the frozen autoencoder that made them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from repae.config import UserError
from repae.data import Dataset
from repae.data.latent_dataset import LatentDataset
from repae.data.latent_store import CachedTokens, LatentStore
from repae.models.autoencoders import Autoencoder
from repae.models.pixels import to_symmetric
from repae.models.teachers.embedded import EmbeddedTeacher
from repae.models.teachers.targets import GivenTargets, OnlineTargets, Targets
from repae.models.teachers.timm import TimmTeacher
from repae.preparation.statistics import evenly_spaced, stored_statistics
from repae.recipes.recipe import EmbeddedTeacherTraining, Recipe, Teacher
from repae.runs.players import RunTeachers
from repae.runtime.digest import weights_digest
from repae.runtime.distributed import is_main
from repae.runtime.modes import evaluating

log = logging.getLogger("repae")

COMPARED_IMAGES = 8
TOLERANCE = {"float32": 5e-3, "float16": 1e-2}
"""How far, relative to their size, latents of one autoencoder may differ from device to device, as they are stored."""

PATHS = {"weights", "folder"}
"""Fields of a teacher's configuration that say where its weights are and not which ones."""


def teacher_identity(config: Teacher) -> dict[str, Any]:
    """What names a teacher in a cache, wherever its weights lie."""
    return config.model_dump(mode="json", exclude=PATHS)


@dataclass(frozen=True)
class RunLatents:
    """The cached latents of a run, and the numbers of the cached teachers that are the recipe's, in its order.

    Where one of the recipe's teachers is ``uncached``, all of them have to see the images, and none is ``cached``.
    """

    store: LatentStore
    cached: tuple[int, ...]
    uncached: tuple[str, ...] = ()

    def teachers(self) -> RunTeachers | None:
        """The targets that come with the batches; None where the teachers have to be asked."""
        if not self.cached:
            return None
        known = [self.store.teachers[number] for number in self.cached]
        targets = GivenTargets(
            [each.name for each in known], [each.tokens for each in known], [each.dim for each in known]
        )
        return RunTeachers((), targets, [])

    def reading(self, dataset: Dataset, targets: Targets) -> LatentDataset:
        """What the loader reads: latents, with tokens or images where these targets need them."""
        given = isinstance(targets, GivenTargets)
        return LatentDataset(
            dataset, self.store, teachers=self.cached if given else (), pixels=isinstance(targets, OnlineTargets)
        )

    def facts(self) -> dict[str, Any]:
        """What a checkpoint says of them."""
        teachers = {self.store.teachers[number].name: self.store.teachers[number].weights for number in self.cached}
        return {"seal": self.store.seal, "vae": self.store.vae, "dtype": self.store.dtype, "teachers": teachers}

    def statistics(self) -> tuple[Float64[Tensor, " k"], Float64[Tensor, " k"]]:
        """What a run on the images themselves would measure, as the cache says; else from the cached latents."""
        known = self.store.statistics
        return stored_statistics(self.store) if known is None else known.tensors()

    def warn_of_uncached(self) -> None:
        if self.uncached and self.store.teachers and is_main():
            held, wanted = ", ".join(teacher.name for teacher in self.store.teachers), ", ".join(self.uncached)
            log.warning("%s holds tokens of %s, but not of %s as this recipe has it: images are read, and all teachers "
                        "see them", self.store.where, held, wanted)  # fmt: skip

    def check_vae(self, vae: Autoencoder, dataset: Dataset) -> None:
        """Refuses another autoencoder than the one that made the latents.

        By its digest; where the file has none, some images are encoded and compared.
        """
        where = self.store.where
        if self.store.vae is not None:
            # Another autoencoder's latents may have the same shape: nothing else would notice.
            own = weights_digest(vae)
            if own != self.store.vae:
                raise UserError(
                    f"{where} holds latents of another autoencoder: its digest is {self.store.vae[:12]}, that of this "
                    f"run's is {own[:12]}; set start.path to the autoencoder that made them, or cache anew with "
                    "`repae cache`"
                )
            return
        error = _worst_error(self.store, vae, dataset)
        allowed = TOLERANCE.get(self.store.dtype, max(TOLERANCE.values()))
        # Not `>`, so that nan is refused too.
        if not error <= allowed:
            raise UserError(
                f"{where} does not hold this autoencoder's latents of these images: encoded again, they differ by "
                f"{error:.2g} of their size, at most {allowed:g} is allowed for {self.store.dtype}; set start.path to "
                "the autoencoder that made them, or cache anew with `repae cache`"
            )


def open_latents(recipe: Recipe, dataset: Dataset) -> RunLatents | None:
    """The latents that a recipe names, checked against its images and teachers; None where it names none.

    Raises:
        UserError: they are missing, damaged, or of other images.
    """
    if recipe.latents is None:
        return None
    store = recipe.latents.open(dataset)
    if recipe.class_mean_targets:
        return RunLatents(store, ())
    held = [teacher.config for teacher in store.teachers]
    missing = [config for config in recipe.teachers if teacher_identity(config) not in held]
    if missing:
        return RunLatents(store, (), tuple(getattr(config, "name", config.kind) for config in missing))
    cached = tuple(held.index(teacher_identity(config)) for config in recipe.teachers)
    for config, number in zip(recipe.teachers, cached):
        _check_teacher(config, store.teachers[number], store.where)
    return RunLatents(store, cached)


def _check_teacher(config: Teacher, cached: CachedTokens, where: str) -> None:
    """Where the recipe says which file a teacher's weights are in, they must be those of the cache."""
    if isinstance(config, EmbeddedTeacherTraining):
        network = None if config.folder is None else EmbeddedTeacher.load(config.folder)
    else:
        network = None if config.weights is None else TimmTeacher(config)
    if network is None:
        return
    digest = weights_digest(network)
    if digest != cached.weights:
        raise UserError(
            f"{where} holds tokens of another teacher {cached.name}: the digest of its weights is "
            f"{cached.weights[:12]}, that of this recipe's is {digest[:12]}; give the recipe the weights that were "
            "cached, or cache anew with `repae cache`"
        )


@torch.no_grad()
def _worst_error(store: LatentStore, vae: Autoencoder, dataset: Dataset) -> float:
    """The largest difference of mean and of deviation, over their size, between the file and this autoencoder."""
    batch = dataset.batch(evenly_spaced(dataset, COMPARED_IMAGES)).to(next(vae.parameters()).device)
    with evaluating(vae):
        mean, logvar = vae.encode(to_symmetric(batch.images))
    stored = store.moments(batch.indices.cpu())
    errors = []
    for theirs, ours in zip(stored, (mean.cpu(), (0.5 * logvar).exp().cpu())):
        if theirs.shape != ours.shape:
            raise UserError(
                f"{store.where} holds latents of {tuple(theirs.shape[1:])}, this autoencoder gives "
                f"{tuple(ours.shape[1:])} for these images; set start.path and vae to the ones that made them"
            )
        errors.append(float((theirs - ours).norm() / ours.norm()))
    return max(errors)
