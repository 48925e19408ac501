"""LPIPS of reconstructions (Zhang et al., arXiv 1801.03924): on VGG16 the very network of the training's loss."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from repae.config import Config, UserError
from repae.losses.perceptual import Perceptual, lpips
from repae.models.perceptual import Lpips as Vgg
from repae.models.pixels import to_symmetric
from repae.models.weight_files import fit, read_weights
from repae.runtime.digest import weights_digest

FILES = {"vgg": "vgg16-397923af.pth", "alex": "alexnet-owt-7be5be79.pth"}
"""torchvision's ImageNet weights of each backbone; the package lpips brings the linear layers along."""

CHUNK = 32


class LpipsConfig(Config):
    """Which LPIPS.

    Attributes:
        net: the backbone: ``vgg``, as autoencoders are compared, or ``alex``, the authors' default.
        weights: torchvision's file of the backbone; none looks into torch's cache of downloads.
    """

    net: Literal["vgg", "alex"] = "vgg"
    weights: str | None = None

    @property
    def path(self) -> Path:
        """Where the weights are or would be."""
        if self.weights is not None:
            return Path(self.weights).expanduser()
        return Path(torch.hub.get_dir()) / "checkpoints" / FILES[self.net]

    def open(self, device: torch.device | str = "cpu") -> Lpips:
        """The network with its weights.

        Raises:
            UserError: no such file, or one of another network.
        """
        try:
            network, distance = _BACKBONES[self.net](self.path)
        except UserError as error:
            raise UserError(
                f"{error}. Wanted: torchvision's ImageNet weights {FILES[self.net]} (the linear layers come with the "
                "package lpips); fetch it elsewhere and give its path as --lpips.weights, or put it into checkpoints/ "
                "of torch's hub folder"
            ) from None
        return Lpips(network.to(device), distance, self.net, weights_digest(network)[:24])


class Lpips(NamedTuple):
    """LPIPS v0.1 with calibrated linear layers. `distance` is the mean over images in [-1, 1]."""

    network: nn.Module
    distance: Perceptual
    net: str
    digest: str

    @torch.no_grad()
    def __call__(self, real: UInt8[Tensor, "n c h w"], reconstructed: UInt8[Tensor, "n c h w"]) -> float:
        """Mean LPIPS of pairs of images; 0 is equal. Grey images are repeated to three channels."""
        assert real.shape == reconstructed.shape and len(real) > 0, (real.shape, reconstructed.shape)
        device, total = next(self.network.parameters()).device, 0.0
        for pair in zip(reconstructed.split(CHUNK), real.split(CHUNK), strict=True):
            ours, theirs = (to_symmetric(images.to(device)).expand(-1, 3, -1, -1) for images in pair)
            total += float(self.distance(ours, theirs)) * len(ours)
        return total / len(real)

    def facts(self) -> dict[str, Any]:
        """What it is, for a protocol."""
        return {"version": "0.1", "backbone": self.net, "sha256": self.digest}


def _vgg(path: Path) -> tuple[nn.Module, Perceptual]:
    network = Vgg(path)
    return network, partial(lpips, network, tuple(network.linear))


def _alex(path: Path) -> tuple[nn.Module, Perceptual]:
    """AlexNet and its linear layers, from the authors' package."""
    from lpips import LPIPS

    with warnings.catch_warnings():  # torchvision's, about the arguments that lpips gives it
        warnings.simplefilter("ignore")
        network = LPIPS(net="alex", pnet_rand=True, verbose=False).eval().requires_grad_(False)
    # The package's layers are named slice2.3 where torchvision's are features.3.
    names = {f"features.{name.partition('.')[2]}": name for name in network.net.state_dict()}
    state = {names.get(name, name): x for name, x in read_weights(path, "AlexNet").items() if name[:9] == "features."}
    fit(network.net, state, f"{path} does not hold the weights of AlexNet", "give the right file")
    return network, lambda ours, real: network(ours, real).mean()


_BACKBONES: dict[str, Callable[[Path], tuple[nn.Module, Perceptual]]] = {"vgg": _vgg, "alex": _alex}
