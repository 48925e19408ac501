"""Every image of a data set through a frozen autoencoder and its teachers, once, into a folder of shards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import UInt8
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor

from repae.config import Config, UserError
from repae.config.files import settle
from repae.data import Batch, Dataset
from repae.data.latent_cache import FLIPPED, MEAN, PRESENT, STD, TYPES, LatentsAbout, tokens_field
from repae.data.latent_store import CachedTokens, ChannelStatistics
from repae.data.loader import Job, read_jobs
from repae.data.shard_folder import PLAN, SHARDS, Manifest, ShardPlan
from repae.data.shard_writer import ShardWriter, begin, finish, missing_shards, read_plan
from repae.models.autoencoders import Autoencoder
from repae.models.pixels import to_symmetric
from repae.models.teachers.base import Teacher
from repae.preparation.progress import image_bar
from repae.preparation.statistics import MOST_IMAGES, latent_statistics
from repae.runtime.digest import weights_digest
from repae.runtime.distributed import barrier, is_main, world
from repae.runtime.precision import Precision


class CacheSettings(Config):
    """How latents are kept.

    Attributes:
        dtype: of moments and tokens on the disk; fp16 has three bits more than bf16, and latents fit its range.
        flipped: keep the latents of the mirrored images too, for data that are mirrored in training.
        batch_size: images at a time.
        per_shard: images in one file.
        workers: processes that read images ahead.
    """

    dtype: Literal["bf16", "fp16", "fp32"] = "fp16"
    flipped: bool = False
    batch_size: PositiveInt = 64
    per_shard: PositiveInt = 1024
    workers: NonNegativeInt = Field(default=0)


@dataclass(frozen=True)
class Encoder:
    """What is computed of every image: the frozen autoencoder's posterior, and teachers' tokens.

    Everything is in eval mode on ``precision.device``. ``teachers``: each network with the configuration that names it.
    """

    vae: Autoencoder
    vae_config: Mapping[str, Any]
    teachers: Sequence[tuple[Mapping[str, Any], Teacher]]
    precision: Precision

    @torch.no_grad()
    def __call__(self, images: UInt8[Tensor, "b c h w"]) -> dict[str, Tensor]:
        """Mean and standard deviation ``[b, k, h, w]``, tokens ``[b, n, d]``, by the names of their arrays."""
        with self.precision.autocast():
            mean, logvar = self.vae.encode(to_symmetric(images))
            # Deviations, not log-variances: without a spread the one is 0 and the other minus infinity.
            found = {MEAN: mean, STD: (0.5 * logvar).exp()}
            for number, (_, teacher) in enumerate(self.teachers):
                found[tokens_field(number)] = teacher(images)
        return found


def cache_latents(folder: Path, dataset: Dataset, encoder: Encoder, settings: CacheSettings) -> Manifest | None:
    """Fills ``folder``, or goes on filling it: what is complete stays, and on a CPU the end is the same to the byte.

    The processes of a run divide the shards that are missing. The first of them returns the manifest, the others None.

    Raises:
        UserError: the folder was begun with other settings, weights or images; the disk is full; values that the dtype
            cannot hold.
    """
    plan = _plan(folder, dataset, encoder, settings)
    if is_main():
        begin(folder, plan)
        settle(folder / SHARDS)
    barrier()
    missing = missing_shards(folder, plan)
    mine = missing[world().rank :: world().size]
    batches = read_jobs(dataset, list(_jobs(plan, mine, settings.batch_size)), workers=settings.workers)
    done = plan.count - sum(len(plan.span(number)) for number in missing)
    shown = is_main() and missing
    try:
        with image_bar(plan.count, "cache", done) if shown else nullcontext(lambda _: None) as show:
            for number in mine:
                with ShardWriter(folder, plan, number) as shard:
                    span = plan.span(number)
                    while span:
                        batch = next(batches)
                        _add(shard, span, batch, _encoded(batch, encoder, settings), dataset)
                        span = span[len(batch.labels) :]
                        # The bar of the first process stands for all.
                        done = min(plan.count, done + len(batch.labels) * world().size)
                        show(done)
                    shard.commit()
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written: {error.strerror or error}; the shards that are complete stay; make room and "
            "run the same command again"
        ) from error
    barrier()
    return finish(folder, plan, dataset.num_classes) if is_main() else None


def _plan(folder: Path, dataset: Dataset, encoder: Encoder, settings: CacheSettings) -> ShardPlan:
    vae = encoder.vae
    side = dataset.resolution // vae.factor
    begun = _begun(folder)
    digest = weights_digest(vae)
    known = begun is not None and (begun.vae, begun.data) == (digest, dataset.fingerprint)
    # Of the same weights and images: measured again, on another device, they could differ in the last bit.
    statistics = begun.statistics if begun is not None and known else channel_statistics(encoder, dataset)
    about = LatentsAbout(
        vae=digest,
        vae_config=dict(encoder.vae_config),
        statistics=statistics,
        statistics_digest=statistics.sha256,
        data=dataset.fingerprint,
        images=len(dataset),
        resolution=dataset.resolution,
        channels=dataset.channels,
        class_names=dataset.class_names,
        dtype=settings.dtype,
        arithmetic=encoder.precision.name,  # type: ignore[arg-type]
        flipped=settings.flipped,
        teachers=tuple(
            CachedTokens(
                name=teacher.name,
                config=dict(config),
                weights=weights_digest(teacher),
                tokens=teacher.tokens(dataset.resolution),
                dim=teacher.dim,
            )
            for config, teacher in encoder.teachers
        ),
    )
    return ShardPlan(
        kind="latents",
        count=len(dataset),
        per_shard=settings.per_shard,
        fields=about.fields((vae.latent_channels, side, side)),
        about=about.model_dump(mode="json"),
    )


def _begun(folder: Path) -> LatentsAbout | None:
    """What a folder that was begun says of itself; None where there is none or it is something else."""
    if not (folder / PLAN).is_file():
        return None
    try:
        return LatentsAbout(**read_plan(folder).about)
    except UserError:
        return None


def channel_statistics(encoder: Encoder, dataset: Dataset) -> ChannelStatistics:
    """What a run on the images themselves measures before its first step."""
    mean, std = latent_statistics(encoder.vae, dataset, encoder.precision)
    return ChannelStatistics(mean=tuple(mean.tolist()), std=tuple(std.tolist()), images=min(len(dataset), MOST_IMAGES))


def _jobs(plan: ShardPlan, shards: Sequence[int], batch_size: int) -> Iterator[Job]:
    """Batches that never reach over the end of a shard: what is in one depends on it alone."""
    for number in shards:
        span = plan.span(number)
        for first in range(span.start, span.stop, batch_size):
            yield Job(np.arange(first, min(first + batch_size, span.stop)), None)


def _add(shard: ShardWriter, span: range, batch: Batch, arrays: Mapping[str, np.ndarray], dataset: Dataset) -> None:
    for row, (index, label) in enumerate(zip(span, batch.labels.tolist())):
        shard.add(dataset.name(index), label, **{name: array[row, ...] for name, array in arrays.items()})


def _encoded(batch: Batch, encoder: Encoder, settings: CacheSettings) -> dict[str, np.ndarray]:
    """Every array of a batch, as it is stored."""
    images = batch.images.to(encoder.precision.device, non_blocking=True)
    arrays = _stored(encoder(images), settings)
    if settings.flipped:
        arrays |= {name + FLIPPED: array for name, array in _stored(encoder(images.flip(-1)), settings).items()}
    return {**arrays, PRESENT: batch.indices.numpy()}


def _stored(found: Mapping[str, Tensor], settings: CacheSettings) -> dict[str, np.ndarray]:
    """Rounded to the dtype, bfloat16 as the bits of uint16."""
    arrays = {}
    for name, tensor in found.items():
        stored = tensor.to(getattr(torch, TYPES[settings.dtype])).cpu()
        if not stored.isfinite().all():
            raise UserError(
                f"the {name} of some image is not finite or beyond the range of {settings.dtype}; "
                "use --dtype bf16 or fp32, and look at the autoencoder if that fails too"
            )
        half = stored.dtype == torch.bfloat16  # which numpy lacks
        arrays[name] = stored.view(torch.int16).numpy().view(np.uint16) if half else stored.numpy()
    return arrays
