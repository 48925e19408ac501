"""LPIPS of reconstructions (Zhang et al., arXiv 1801.03924), by the network and the distance of the training's loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import UInt8
from torch import Tensor

from repae.config import Config, UserError
from repae.losses.perceptual import lpips
from repae.models.perceptual import LpipsNet, LpipsNetwork
from repae.models.pixels import to_symmetric
from repae.runtime.digest import weights_digest

FILES: dict[LpipsNet, str] = {"vgg": "vgg16-397923af.pth", "alex": "alexnet-owt-7be5be79.pth"}
"""torchvision's ImageNet weights of each backbone."""

CHUNK = 32


class LpipsConfig(Config):
    """Which LPIPS.

    Attributes:
        net: the backbone: ``vgg``, as autoencoders are compared, or ``alex``, the authors' default.
        weights: torchvision's file of the backbone; none looks into torch's cache of downloads.
    """

    net: LpipsNet = "vgg"
    weights: str | None = None

    @property
    def path(self) -> Path:
        if self.weights is not None:
            return Path(self.weights).expanduser()
        return Path(torch.hub.get_dir()) / "checkpoints" / FILES[self.net]

    def open(self, device: torch.device | str = "cpu") -> LpipsMeter:
        try:
            network = LpipsNetwork(self.path, net=self.net)
        except UserError as error:
            raise UserError(
                f"{error}. Wanted: torchvision's ImageNet weights {FILES[self.net]} (the linear layers come with the "
                "package lpips); fetch it elsewhere and give its path as --lpips.weights, or put it into checkpoints/ "
                "of torch's hub folder"
            ) from None
        return LpipsMeter(network.to(device), self.net, weights_digest(network)[:24])


class LpipsMeter(NamedTuple):
    """Mean LPIPS v0.1 of pairs of images 0..255; 0 is equal. Grey images are repeated to three channels."""

    network: LpipsNetwork
    net: LpipsNet
    digest: str

    @torch.no_grad()
    def __call__(self, real: UInt8[Tensor, "n c h w"], reconstructed: UInt8[Tensor, "n c h w"]) -> float:
        assert real.shape == reconstructed.shape and len(real) > 0, (real.shape, reconstructed.shape)
        device, total = next(self.network.parameters()).device, 0.0
        for pair in zip(reconstructed.split(CHUNK), real.split(CHUNK), strict=True):
            ours, theirs = (to_symmetric(images.to(device)) for images in pair)
            # Weighted, for the last part may be smaller.
            total += float(lpips(self.network, tuple(self.network.linear), ours, theirs)) * len(ours)
        return total / len(real)

    def facts(self) -> dict[str, Any]:
        return {"version": "0.1", "backbone": self.net, "sha256": self.digest}
