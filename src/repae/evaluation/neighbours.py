"""What nearest neighbours say about generated images, without any network.

Images are compared as 64 pixels: pooled to 8 x 8 (the resolution at which the embedded digits were scanned), in [0, 1].
Precision and recall: Kynkaanniemi et al., arXiv 1904.06991; density and coverage: Naeem et al., arXiv 2002.09797.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from repae.config import UserError

POOLED = 8
CHUNK = 1024


def pooled_pixels(images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
    """Images averaged down to 8 x 8, in [0, 1], as float64 rows of c*64 values."""
    parts = (part.to("cpu", torch.float64) / 255.0 for part in images.split(CHUNK))
    return torch.cat([F.adaptive_avg_pool2d(part, POOLED).flatten(1) for part in parts])


def distances(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """Euclidean distances of every row of `a` to every row of `b`, by exact differences (no a^2 - 2ab + b^2)."""
    mode = "donot_use_mm_for_euclid_dist"
    return torch.cat([torch.cdist(part, b, compute_mode=mode) for part in a.split(CHUNK)])


def to_others(real: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    """Distances of a set to itself with the diagonal at infinity, so that no image is its own neighbour."""
    apart = real.clone()
    apart.fill_diagonal_(float("inf"))
    return apart


def nearest_label_accuracy(
    to_real: Float[Tensor, "n m"], labels: Int[Tensor, "n"], real_labels: Int[Tensor, "m"]
) -> float:
    """Share of images whose nearest real image carries the label that the image was made for (1-NN accuracy)."""
    return float((real_labels[to_real.argmin(1)] == labels).double().mean())


def precision_recall_density_coverage(
    generated: Float[Tensor, "n n"], real: Float[Tensor, "m m"], to_real: Float[Tensor, "n m"], k: int = 5
) -> dict[str, float]:
    """Precision, recall, density and coverage from distances: generated-generated, real-real, generated-real.

    The radius of an image is the distance to its k-th nearest other image of its own set. Precision: share of generated
    images inside the radius of some real one. Recall: the same with the roles exchanged. Density: mean number of real
    radii that a generated image lies in, over k (may exceed 1). Coverage: share of real images with a generated one
    inside their radius.
    """
    smallest = min(generated.shape[0], real.shape[0])
    if smallest <= k:
        raise UserError(f"the {k} nearest neighbours need more than {k} images in each set; {smallest} given")
    real_radius = to_others(real).kthvalue(k, dim=1).values
    generated_radius = to_others(generated).kthvalue(k, dim=1).values
    inside_real: Bool[Tensor, "n m"] = to_real <= real_radius[None, :]
    inside_generated: Bool[Tensor, "n m"] = to_real <= generated_radius[:, None]
    return {
        "precision": float(inside_real.any(1).double().mean()),
        "recall": float(inside_generated.any(0).double().mean()),
        "density": float(inside_real.double().sum(1).mean() / k),
        "coverage": float(inside_real.any(0).double().mean()),
    }


def neighbour_figures(
    images: UInt8[Tensor, "n c h w"],
    labels: Int[Tensor, "n"],
    real_images: UInt8[Tensor, "m c h w"],
    real_labels: Int[Tensor, "m"],
    k: int = 5,
) -> dict[str, float]:
    """Every figure of this page for generated against real images.

    Keys: nn_accuracy and nn_accuracy_real (real images, each by its nearest other); precision, recall, density,
    coverage; nn_distance, the median distance of a generated image to its nearest real one, beside nn_distance_real,
    the same of real images to their nearest other; copies, the share of generated images nearer to a real one than 99%
    of real images are to each other (.01 is what real images give: far above it hints at memorised training images).
    """
    generated, real = pooled_pixels(images), pooled_pixels(real_images)
    within, across = to_others(distances(real, real)), distances(generated, real)
    nearest_real, nearest = within.min(1).values, across.min(1).values
    return {
        "nn_accuracy": nearest_label_accuracy(across, labels.cpu(), real_labels.cpu()),
        "nn_accuracy_real": nearest_label_accuracy(within, real_labels.cpu(), real_labels.cpu()),
        **precision_recall_density_coverage(distances(generated, generated), within, across, k),
        "nn_distance": float(nearest.median()),
        "nn_distance_real": float(nearest_real.median()),
        "copies": float((nearest < nearest_real.quantile(0.01)).double().mean()),
    }
