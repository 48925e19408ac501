"""Distances between images as networks see them. Images are in [-1, 1], here and in every network: converted never.

The real image is evaluated once, without a graph; so it costs a forward pass and no memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from repae.runtime.precision import float32

Images = Float[Tensor, "b c h w"]
Scalar = Float[Tensor, ""]

Features = Callable[[Tensor], Sequence[Tensor]]
"""Images ``[B, C, H, W]`` in [-1, 1] to feature maps ``[B, C_i, H_i, W_i]``, differentiable in the images."""

Perceptual = Callable[[Tensor, Tensor], Tensor]
"""Reconstruction and real images, both in [-1, 1], to their distance: a float32 scalar, mean over the images."""

_EPS = 1e-10


def feature_distance(features: Features, reconstruction: Images, images: Images) -> Scalar:
    """Squared distance of channel-normalised features, mean over space, samples and layers.

    The form of LPIPS (arXiv 1801.03924, Eq. 1) with unit weights, in the features of any network at hand. In [0, 4].
    """
    layers = _squared_differences(features, reconstruction, images)
    return torch.stack([layer.sum(1).mean() for layer in layers]).mean()


def lpips(features: Features, linear: Sequence[Float[Tensor, " _"]], reconstruction: Images, images: Images) -> Scalar:
    """LPIPS (arXiv 1801.03924, Eq. 1): each layer's channels weighted by ``linear``, summed over the layers."""
    layers = zip(_squared_differences(features, reconstruction, images), linear, strict=True)
    with float32():
        return torch.stack([torch.einsum("bchw,c->bhw", layer, weights).mean() for layer, weights in layers]).sum()


def output_distance(network: Callable[[Tensor], Tensor], reconstruction: Images, images: Images) -> Scalar:
    """Mean squared difference of a network's outputs, such as a classifier's logits."""
    with float32():
        with torch.no_grad():
            real = network(images.float()).float()
        return F.mse_loss(network(reconstruction.float()).float(), real)


def weighted_mean(parts: Sequence[tuple[float, Perceptual]], reconstruction: Images, images: Images) -> Scalar:
    """(a d_1 + b d_2 + ...) / (a + b + ...) of distances with their weights."""
    total = sum(weight for weight, _ in parts)
    return torch.stack([weight / total * distance(reconstruction, images) for weight, distance in parts]).sum()


def _squared_differences(features: Features, reconstruction: Images, images: Images) -> list[Float[Tensor, "b _ _ _"]]:
    """Of the channel-normalised features, layer by layer, in float32 whatever the network computes in."""
    with float32():
        with torch.no_grad():
            real = [_normalised(layer) for layer in features(images.float())]
        fake = [_normalised(layer) for layer in features(reconstruction.float())]
        return [(a - b).square() for a, b in zip(fake, real, strict=True)]


def _normalised(layer: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    return F.normalize(layer.float(), dim=1, eps=_EPS)
