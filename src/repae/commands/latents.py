"""Latents computed once: made from any autoencoder, measured, and handed to a run on the frozen one that made them."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float64
from pydantic import Field, PositiveInt
from safetensors.torch import save
from torch import Tensor

from repae.config import Config, UserError, write_atomic
from repae.data import DataConfig, Dataset, DigitsConfig
from repae.data.latents import CachedTokens, LatentDataset, LatentsConfig, LatentStore
from repae.data.sharded import MANIFEST, Manifest
from repae.models.autoencoders import Autoencoder
from repae.models.pixels import to_symmetric
from repae.models.teachers.targets import GivenTargets, OnlineTargets, Targets
from repae.preparation.latents import CacheSettings, Encoder, cache_latents
from repae.preparation.statistics import evenly_spaced, latent_statistics, stored_statistics
from repae.recipes.recipe import Recipe, RuntimeConfig, Teacher
from repae.recipes.sources import data_at
from repae.runs.context import Place, occupied
from repae.runs.players import Teachers, one_maker, teacher_networks
from repae.runs.weights import read_autoencoder, sizes_of
from repae.runtime.digest import weights_digest
from repae.runtime.distributed import is_main
from repae.runtime.modes import evaluating

log = logging.getLogger("repae")

COMPARED_IMAGES = 8
TOLERANCE = {"float32": 5e-3, "float16": 1e-2}
"""How far, relative to their size, latents of one autoencoder may differ from device to device, as they are stored."""

PATHS = {"weights", "folder"}
"""Fields of a teacher's configuration that say where its weights are and not which ones."""


class CacheConfig(CacheSettings):
    """What is computed of every image, and how it is kept.

    Attributes:
        teachers: whose tokens are kept beside the latents, as in a recipe: '[{kind: embedded}]'.
        resolution: side of the images in pixels; that of the run where a run is given, else 256.
        runtime: where and in what precision to compute.
    """

    teachers: tuple[Teacher, ...] = ()
    resolution: PositiveInt | None = None
    runtime: RuntimeConfig = RuntimeConfig(precision="fp32")


class StatsConfig(Config):
    """How latents are measured.

    Attributes:
        images: so many, evenly spaced; none takes all.
        resolution: as in `repae cache`.
        format: repae writes mean and std; reference writes a `.pt` with latents_scale = 1/std and latents_bias = mean.
        out: the files' path without their ending; none puts latents-stats into the folder, or beside the file.
    """

    images: PositiveInt | None = None
    resolution: PositiveInt | None = None
    format: Literal["repae", "reference"] = "repae"
    out: str | None = Field(default=None, min_length=1)
    runtime: RuntimeConfig = RuntimeConfig(precision="fp32")


def cache(source: Path, out: Path, config: CacheConfig, data: str | None = None, runs: Path = Path("runs")) -> Path:
    """Encodes every image once with the autoencoder at ``source``, or goes on where a killed call stopped.

    Args:
        source: a run, whose own bundle's autoencoder is taken, or an autoencoder as `read_autoencoder` reads it.
        out: the folder to make.
        config: what is kept, and how.
        data: a path or URL of images, or `digits`; by default the run's own data.
        runs: where embedded teachers are kept.

    Returns:
        ``out``.

    Raises:
        UserError: nothing to read there, or what was begun in ``out`` is something else.
    """
    with occupied(config.runtime, runs) as place:
        vae, _ = read_autoencoder(source)
        dataset = _data(source, data, config.resolution).open()
        networks, _ = teacher_networks(config.teachers, dataset, place)
        known = [_identity(teacher) for teacher in config.teachers]
        encoder = Encoder(vae.to(place.device), sizes_of(vae), list(zip(known, networks)), place.precision)
        with one_maker(out):
            manifest = cache_latents(out, dataset, encoder, config)
        _warn_of_broken(manifest, dataset)
    return out


def stats(source: Path, config: StatsConfig, data: str | None = None) -> tuple[dict[str, Any], list[Path]]:
    """Mean and standard deviation of every latent channel, in float64, written as JSON and as tensors.

    Args:
        source: an autoencoder or a run, as for `cache`; or latents made by it, which are read and not computed.
        config: how many images, and which files.
        data: as for `cache`.

    Returns:
        The figures, and the files.
    """
    with occupied(config.runtime, Path("runs")) as place:
        if (source / MANIFEST).is_file() or source.suffix in (".h5", ".hdf5"):
            dataset = _data(source, data, config.resolution).open() if data or source.is_file() else None
            store = LatentsConfig(path=str(source)).read(dataset)
            count = config.images or len(store)
            mean, std = stored_statistics(store, images=count)
            digest = store.vae
        else:
            vae, _ = read_autoencoder(source)
            dataset = _data(source, data, config.resolution).open()
            count = min(config.images or len(dataset), len(dataset))
            mean, std = latent_statistics(vae.to(place.device), dataset, place.precision, images=count)
            digest = weights_digest(vae)
        figures = {"images": count, "vae": digest, "mean": mean.tolist(), "std": std.tolist()}
        return figures, _write_statistics(source, config, figures, mean, std) if is_main() else []


def _write_statistics(
    source: Path, config: StatsConfig, figures: dict[str, Any], mean: Float64[Tensor, " k"], std: Float64[Tensor, " k"]
) -> list[Path]:
    beside = source / "latents-stats" if source.is_dir() else source.with_name(f"{source.stem}-latents-stats")
    stem = Path(config.out) if config.out else beside
    files = [stem.with_name(f"{stem.name}.json")]
    write_atomic(files[0], json.dumps(figures, indent=1) + "\n")
    if config.format == "reference":
        wide = (1, -1, 1, 1)
        state = {"latents_scale": std.reciprocal().float().view(wide), "latents_bias": mean.float().view(wide)}
        files.append(stem.with_name(f"{stem.name}.pt"))
        files[1].with_name(f".{files[1].name}.tmp").unlink(missing_ok=True)
        torch.save(state, files[1].with_name(f".{files[1].name}.tmp"))
        files[1].with_name(f".{files[1].name}.tmp").replace(files[1])
    else:
        files.append(stem.with_name(f"{stem.name}.safetensors"))
        write_atomic(files[1], save({"mean": mean, "std": std}))
    return files


def _data(source: Path, data: str | None, resolution: int | None) -> DataConfig:
    """The data that ``data`` names, at the run's resolution; without a name the run's own."""
    run = Recipe.from_yaml(source / "recipe.yaml") if (source / "recipe.yaml").is_file() else None
    if data is None:
        if run is None:
            raise UserError(f"{source} is no run, so that nothing says which images; give them with --data FOLDER")
        return run.data.replace(resolution=resolution) if resolution else run.data
    side = resolution or (256 if run is None else run.data.resolution)
    if data == "digits":
        return DigitsConfig(resolution=side)
    return data_at(data, {}, {"resolution": side, "flip": run is not None and getattr(run.data, "flip", False)})


def _warn_of_broken(manifest: Manifest | None, dataset: Dataset) -> None:
    if manifest is not None and dataset.broken:
        log.warning(
            "%d of %d images could not be read; the latents of the next readable one stand in for each, as in training",
            len(dataset.broken), len(dataset),
        )  # fmt: skip


# A run on cached latents


@dataclass(frozen=True)
class RunLatents:
    """The cached latents of a run, and the numbers of the cached teachers that are the recipe's, in its order."""

    store: LatentStore
    cached: tuple[int, ...]

    def teachers(self) -> Teachers | None:
        """The targets that come with the batches; None where the teachers have to be asked."""
        if not self.cached:
            return None
        known = [self.store.teachers[number] for number in self.cached]
        targets = GivenTargets(
            [each.name for each in known], [each.tokens for each in known], [each.dim for each in known]
        )
        return Teachers((), targets, [])

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

    def check_vae(self, vae: Autoencoder, dataset: Dataset) -> None:
        """Refuse another autoencoder than the one that made the latents.

        By its digest; where the file has none, some images are encoded and compared.

        Raises:
            UserError: with what to do.
        """
        where = self.store.where
        if self.store.vae is not None:
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
        if not error <= allowed:
            raise UserError(
                f"{where} does not hold this autoencoder's latents of these images: encoded again, they differ by "
                f"{error:.2g} of their size, at most {allowed:g} is allowed for {self.store.dtype}; set start.path to "
                "the autoencoder that made them, or cache anew with `repae cache`"
            )


def open_latents(recipe: Recipe, dataset: Dataset, place: Place) -> RunLatents | None:
    """The latents that a recipe names, checked against its images; None where it names none.

    Raises:
        UserError: they are missing, damaged, or of other images.
    """
    if recipe.latents is None:
        return None
    store = recipe.latents.open(dataset)
    if recipe.class_mean_targets:
        return RunLatents(store, ())
    found = [_number(config, store.teachers) for config in recipe.teachers]
    missing = [config for config, number in zip(recipe.teachers, found) if number is None]
    if missing and store.teachers and is_main():
        held = ", ".join(teacher.name for teacher in store.teachers)
        wanted = ", ".join(getattr(config, "name", config.kind) for config in missing)
        log.warning("%s holds tokens of %s, but not of %s as this recipe has it: images are read, and all teachers "
                    "see them", store.where, held, wanted)  # fmt: skip
    if missing:
        return RunLatents(store, ())
    cached = tuple(number for number in found if number is not None)
    for config, number in zip(recipe.teachers, cached):
        _check_teacher(config, store.teachers[number], dataset, place, store.where)
    return RunLatents(store, cached)


def _identity(config: Teacher) -> dict[str, Any]:
    return config.model_dump(mode="json", exclude=PATHS)


def _number(config: Teacher, cached: tuple[CachedTokens, ...]) -> int | None:
    return next((number for number, each in enumerate(cached) if each.config == _identity(config)), None)


def _check_teacher(config: Teacher, cached: CachedTokens, dataset: Dataset, place: Place, where: str) -> None:
    """Where the recipe says which file a teacher's weights are in, they must be those of the cache."""
    if not any(getattr(config, name, None) for name in PATHS):
        return
    (network,), _ = teacher_networks([config], dataset, place)
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
