"""Distances between images in the features of a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Features = Callable[[Tensor], Sequence[Tensor]]
"""Images ``[B, C, H, W]`` in [-1, 1] to feature maps ``[B, C_i, H_i, W_i]``, differentiable in the images."""


def feature_distance(
    features: Features, reconstruction: Float[Tensor, "b c h w"], images: Float[Tensor, "b c h w"]
) -> Float[Tensor, ""]:
    """Squared distance of channel-normalised features, mean over space, samples and layers, in float32.

    The form of LPIPS (arXiv 1801.03924, Eq. 1) with unit weights, in the features of any network at hand. The real
    images are evaluated once and without a graph. Images in [-1, 1]; result in [0, 4].
    """
    with torch.autocast(images.device.type, enabled=False):
        with torch.no_grad():
            real = [F.normalize(f, dim=1, eps=1e-10) for f in features(images.float())]
        fake = [F.normalize(f, dim=1, eps=1e-10) for f in features(reconstruction.float())]
        return torch.stack([(a - b).square().sum(1).mean() for a, b in zip(fake, real, strict=True)]).mean()
