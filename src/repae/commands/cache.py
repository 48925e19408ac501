"""Latents computed once, from any autoencoder, for training on the frozen one that made them."""

from __future__ import annotations

import logging
from pathlib import Path

from pydantic import PositiveInt

from repae.preparation.encode_latents import CacheSettings, Encoder, cache_latents
from repae.recipes.recipe import RuntimeConfig, Teacher
from repae.recipes.sources import data_of_run
from repae.runs.cached_latents import teacher_identity
from repae.runs.context import run_context
from repae.runs.players import one_maker, teacher_networks
from repae.runs.weights import read_autoencoder, sizes_of

log = logging.getLogger("repae")


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


def cache(source: Path, out: Path, config: CacheConfig, data: str | None = None, runs: Path = Path("runs")) -> Path:
    """Encodes every image once with the autoencoder at ``source``, or goes on where a killed call stopped.

    Args:
        source: a run, whose own bundle's autoencoder is taken, or an autoencoder as `read_autoencoder` reads it.
        out: the folder to make; it is given back.
        data: a path or URL of images, or `digits`; by default the run's own data.
        runs: where embedded teachers are kept.

    Raises:
        UserError: nothing to read there, or what was begun in ``out`` is something else.
    """
    with run_context(config.runtime, runs) as context:
        vae, _ = read_autoencoder(source)
        dataset = data_of_run(source, data, config.resolution).open()
        networks, _ = teacher_networks(config.teachers, dataset, context)
        known = [teacher_identity(teacher) for teacher in config.teachers]
        encoder = Encoder(vae.to(context.device), sizes_of(vae), list(zip(known, networks)), context.precision)
        with one_maker(out):
            manifest = cache_latents(out, dataset, encoder, config)
    if manifest is not None and dataset.broken:
        log.warning(
            "%d of %d images could not be read; the latents of the next readable one stand in for each, as in training",
            len(dataset.broken), len(dataset),
        )  # fmt: skip
    return out
