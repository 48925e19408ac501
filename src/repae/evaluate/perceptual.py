"""LPIPS of reconstructions (Zhang et al., arXiv 1801.03924), by the authors' own package."""

from __future__ import annotations

import hashlib
import io
import pickle
import warnings
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from repae.config import Config, UserError
from repae.models.pixels import to_symmetric

FILES = {"vgg": "vgg16-397923af.pth", "alex": "alexnet-owt-7be5be79.pth"}
"""torchvision's ImageNet weights of each backbone; the package brings the linear layers along."""

CHUNK = 32


class LpipsConfig(Config):
    """Which LPIPS.

    Attributes:
        net: the backbone: ``vgg``, as autoencoders are judged, or ``alex``, the package's default.
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
        wanted = (
            f"Wanted: torchvision's ImageNet weights {FILES[self.net]} (the linear layers come with the package); "
            "fetch it elsewhere and give its path as --lpips.weights, or put it into checkpoints/ of torch's hub folder"
        )
        try:
            data = self.path.read_bytes()
            state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        except FileNotFoundError:
            raise UserError(f"LPIPS needs a backbone and there is no file {self.path}. {wanted}") from None
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, ValueError) as error:
            raise UserError(f"{self.path} cannot be read as weights ({type(error).__name__}). {wanted}") from None
        network = _network(self.net)
        if not isinstance(state, dict) or not _fill(network, state):
            raise UserError(f"{self.path} does not hold the backbone {self.net!r} of LPIPS. {wanted}")
        return Lpips(network.to(device).eval().requires_grad_(False), self.net, hashlib.sha256(data).hexdigest()[:24])


class Lpips(NamedTuple):
    """LPIPS v0.1 with calibrated linear layers."""

    network: nn.Module
    net: str
    digest: str

    @torch.no_grad()
    def __call__(self, real: UInt8[Tensor, "n c h w"], reconstructed: UInt8[Tensor, "n c h w"]) -> float:
        """Mean LPIPS of pairs of images; 0 is equal. Grey images are repeated to three channels."""
        assert real.shape == reconstructed.shape and len(real) > 0, (real.shape, reconstructed.shape)
        device, total = next(self.network.parameters()).device, 0.0
        for pair in zip(real.split(CHUNK), reconstructed.split(CHUNK), strict=True):
            a, b = (to_symmetric(images.to(device)).expand(-1, 3, -1, -1) for images in pair)
            total += float(self.network(a, b).double().sum())
        return total / len(real)

    def facts(self) -> dict[str, Any]:
        """What it is, for a protocol."""
        return {"package": "lpips 0.1", "backbone": self.net, "sha256": self.digest}


def _network(net: str) -> nn.Module:
    import lpips

    with warnings.catch_warnings():  # torchvision's, about the arguments that lpips gives it
        warnings.simplefilter("ignore")
        return lpips.LPIPS(net=net, pnet_rand=True, verbose=False)


def _fill(network: nn.Module, state: dict[str, Any]) -> bool:
    """Puts torchvision's `features.N` into the slices that hold layer N; whether every one was there and fitted."""
    trunk: Any = network.net
    own = trunk.state_dict()
    found = {name: state.get(f"features.{name.partition('.')[2]}") for name in own}
    if any(getattr(tensor, "shape", None) != own[name].shape for name, tensor in found.items()):
        return False
    trunk.load_state_dict(found)
    return True
