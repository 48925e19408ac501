"""Statistics of latents, so that no run needs a file made by hand."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from repae.data import Dataset
from repae.data.batch import Latents
from repae.data.latent_store import LatentStore
from repae.models.autoencoders import Autoencoder
from repae.models.pixels import to_symmetric
from repae.runtime.precision import Precision

MeanAndStd = tuple[Float64[Tensor, " c"], Float64[Tensor, " c"]]
"""Of every channel."""

MOST_IMAGES = 10_000
"""From so many images, evenly spaced, a run takes its statistics at most."""


def evenly_spaced(dataset: Dataset | LatentStore, most: int) -> Int64[Tensor, " n"]:
    """Indices of all images, or of ``most`` of them spread evenly over the data set."""
    count = min(most, len(dataset))
    # In float32 indices above 2^24 would be skipped and repeated.
    return torch.linspace(0, len(dataset) - 1, count, dtype=torch.float64).round().long()


def latent_statistics(
    vae: Autoencoder, dataset: Dataset, precision: Precision, *, images: int = MOST_IMAGES, batch_size: int = 64
) -> MeanAndStd:
    """Mean and standard deviation of every latent channel over images, positions and the posterior's own spread.

    Above ``images`` images, evenly spaced ones are taken. The autoencoder must be in eval mode and on the precision's
    device.
    """
    parts = evenly_spaced(dataset, images).split(batch_size)
    return moment_statistics(_encode(vae, dataset, precision, indices) for indices in parts)


def stored_statistics(store: LatentStore, *, images: int = MOST_IMAGES) -> MeanAndStd:
    """As `latent_statistics`, of cached latents: no autoencoder is needed."""
    return moment_statistics(store.moments(indices) for indices in evenly_spaced(store, images).split(64))


def moment_statistics(batches: Iterable[Latents]) -> MeanAndStd:
    """Mean and standard deviation of every channel of z ~ N(mean, std^2), batch after batch, exact without sampling.

    E[z] = E[mean], Var[z] = E[mean^2] - E[mean]^2 + E[std^2], summed in float64.
    """
    total: Float64[Tensor, "3 c"] | None = None
    values = 0
    for mean, std in batches:
        sums = torch.stack([_sum(mean), _sum(mean, 2), _sum(std, 2)])
        total = sums if total is None else total + sums
        values += mean.numel() // mean.shape[1]
    assert total is not None, "statistics of no latents"
    first, second, spread = total / values
    # Rounding may leave a variance just below 0.
    return first, (second - first.square() + spread).clamp_min(0).sqrt()


def _sum(x: Float[Tensor, "b c h w"], power: int = 1) -> Float64[Tensor, " c"]:
    return x.cpu().double().pow(power).sum((0, 2, 3))


@torch.no_grad()
def _encode(vae: Autoencoder, dataset: Dataset, precision: Precision, indices: Int64[Tensor, " b"]) -> Latents:
    batch = dataset.batch(indices).to(precision.device)
    with precision.autocast():
        mean, logvar = vae.encode(to_symmetric(batch.images))
    return Latents(mean, (0.5 * logvar).exp())
