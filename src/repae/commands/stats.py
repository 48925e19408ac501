"""Mean and standard deviation of every latent channel of an autoencoder, written for runs and for the reference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float64
from pydantic import Field, PositiveInt
from safetensors.torch import save
from torch import Tensor

from repae.config import Config, atomic_file, write_atomic
from repae.data.latent_dataset import LatentsConfig
from repae.data.shard_folder import MANIFEST
from repae.preparation.statistics import latent_statistics, stored_statistics
from repae.recipes.recipe import RuntimeConfig
from repae.recipes.sources import data_of_run
from repae.runs.context import run_context
from repae.runs.weights import read_autoencoder
from repae.runtime.digest import weights_digest
from repae.runtime.distributed import is_main


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


def stats(source: Path, config: StatsConfig, data: str | None = None) -> tuple[dict[str, Any], list[Path]]:
    """Mean and standard deviation of every latent channel, in float64, written as JSON and as tensors.

    Args:
        source: an autoencoder or a run, as for `cache`; or latents made by it, which are read and not computed.
        data: as for `cache`.

    Returns:
        The figures, and the files.
    """
    with run_context(config.runtime, Path("runs")) as context:
        if (source / MANIFEST).is_file() or source.suffix in (".h5", ".hdf5"):
            dataset = data_of_run(source, data, config.resolution).open() if data or source.is_file() else None
            store = LatentsConfig(path=str(source)).read(dataset)
            count = config.images or len(store)
            mean, std = stored_statistics(store, images=count)
            digest = store.vae
        else:
            vae, _ = read_autoencoder(source)
            dataset = data_of_run(source, data, config.resolution).open()
            count = min(config.images or len(dataset), len(dataset))
            mean, std = latent_statistics(vae.to(context.device), dataset, context.precision, images=count)
            digest = weights_digest(vae)
        figures = {"images": count, "vae": digest, "mean": mean.tolist(), "std": std.tolist()}
        return figures, _write_statistics(source, config, figures, mean, std) if is_main() else []


def stats_table(figures: dict[str, Any]) -> str:
    pairs = enumerate(zip(figures["mean"], figures["std"], strict=True))
    rows = [f"{channel:7}  {mean:12.6g}  {std:12.6g}" for channel, (mean, std) in pairs]
    return "\n".join(["channel          mean           std", *rows, f"of {figures['images']} images"])


def _write_statistics(
    source: Path, config: StatsConfig, figures: dict[str, Any], mean: Float64[Tensor, " k"], std: Float64[Tensor, " k"]
) -> list[Path]:
    beside = source / "latents-stats" if source.is_dir() else source.with_name(f"{source.stem}-latents-stats")
    stem = Path(config.out) if config.out else beside
    files = [stem.with_name(f"{stem.name}.json")]
    write_atomic(files[0], json.dumps(figures, indent=1) + "\n")
    if config.format == "reference":
        wide = (1, -1, 1, 1)
        # The reference multiplies: normalised = (latent - bias) * scale.
        state = {"latents_scale": std.reciprocal().float().view(wide), "latents_bias": mean.float().view(wide)}
        files.append(stem.with_name(f"{stem.name}.pt"))
        with atomic_file(files[1]) as file:
            torch.save(state, file)
    else:
        files.append(stem.with_name(f"{stem.name}.safetensors"))
        write_atomic(files[1], save({"mean": mean, "std": std}))
    return files
