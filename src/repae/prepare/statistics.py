"""Statistics of latents, so that no run needs a file made by hand."""

from __future__ import annotations

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from repae.data import Dataset
from repae.models.autoencoders import Autoencoder
from repae.models.pixels import to_symmetric
from repae.runtime.precision import Precision


def evenly_spaced(dataset: Dataset, most: int) -> Int64[Tensor, " n"]:
    """Indices of all images, or of ``most`` of them spread evenly over the data set."""
    count = min(most, len(dataset))
    return torch.linspace(0, len(dataset) - 1, count, dtype=torch.float64).round().long()


@torch.no_grad()
def latent_statistics(
    vae: Autoencoder, dataset: Dataset, precision: Precision, *, images: int = 10_000, batch_size: int = 64
) -> tuple[Float64[Tensor, " c"], Float64[Tensor, " c"]]:
    """Mean and standard deviation of every latent channel over images, positions and the posterior's own spread.

    Exact moments without sampling: E[z] = E[mean], Var[z] = Var[mean] + E[std^2], summed in float64. Above ``images``
    images, evenly spaced ones are taken. The autoencoder must be in eval mode and on the precision's device.
    """
    total = torch.zeros(3, vae.latent_channels, dtype=torch.float64)
    values = 0
    for indices in evenly_spaced(dataset, images).split(batch_size):
        batch = dataset.batch(indices).to(precision.device)
        with precision.autocast():
            mean, logvar = vae.encode(to_symmetric(batch.images))
        mean, variance = mean.cpu().double(), logvar.cpu().double().exp()
        sums = [mean.sum((0, 2, 3)), mean.square().sum((0, 2, 3)), variance.sum((0, 2, 3))]
        total += torch.stack(sums)
        values += mean.numel() // vae.latent_channels
    first, second, spread = total / values
    return first, (second - first.square() + spread).clamp_min(0).sqrt()
