"""PatchGAN: a convolutional network that classifies overlapping patches (pix2pix, arXiv 1611.07004, Sec. 3.2.2)."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from repae.config import Config, UserError
from repae.models.actnorm import ActNorm
from repae.models.layers import at_least_float32
from repae.runtime.distributed import global_moments, world
from repae.runtime.parallel import Stacked
from repae.runtime.precision import float32


class PatchGANConfig(Config):
    """Sizes of a discriminator.

    Attributes:
        in_channels: channels of the images.
        ndf: filters of the first layer; each further layer doubles them, up to 8 times as many.
        n_layers: strided layers.
        norm: batch norm over all processes, or ActNorm.
    """

    in_channels: int = Field(default=3, ge=1)
    ndf: int = Field(default=64, ge=1)
    n_layers: int = Field(default=3, ge=1)
    norm: Literal["batch", "act"] = "batch"

    @property
    def smallest_side(self) -> int:
        """Side of the smallest images that leave one logit: 3 * 2**n_layers."""
        return 3 * 2**self.n_layers


class PatchGAN(Stacked):
    """Images in [-1, 1] to one logit per patch; in float32 (or better) whatever the surrounding autocast says."""

    def __init__(self, config: PatchGANConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.ndf * min(2**n, 8) for n in range(config.n_layers + 1)]
        norm = GlobalBatchNorm2d if config.norm == "batch" else ActNorm
        # No norm on the first and the last convolution, as in pix2pix.
        layers: list[nn.Module] = [_conv(config.in_channels, widths[0], 2), nn.LeakyReLU(0.2, inplace=True)]
        for n in range(1, config.n_layers + 1):
            stride = 2 if n < config.n_layers else 1
            # Batch norm removes a bias; ActNorm does so only at its first batch.
            layers.append(_conv(widths[n - 1], widths[n], stride, bias=config.norm == "act"))
            layers += [norm(widths[n]), nn.LeakyReLU(0.2, inplace=True)]
        layers.append(_conv(widths[-1], 1, 1))
        self.main = nn.Sequential(*layers)
        self.apply(weights_init)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 m n"]:
        """Logits, high for real; their side is H / 2**n_layers - 2, rounded down.

        Raises:
            UserError: the images are too small for so many strided layers.
        """
        if min(images.shape[2:]) < self.config.smallest_side:
            raise UserError(
                f"images of {images.shape[2]}x{images.shape[3]} pixels are too small for a PatchGAN of "
                f"{self.config.n_layers} strided layers; it needs {self.config.smallest_side}, or a lower n_layers"
            )
        # As the reference, whose losses, and the discriminator within them, run outside autocast.
        with float32():
            return self.main(at_least_float32(images))

    def repeated_parts(self) -> list[nn.Module]:
        return [self]


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """Batch norm whose training statistics run over all processes, on every backend, gradients included.

    With one process it is torch's own; torch's SyncBatchNorm needs a GPU.
    """

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:  # noqa: A002
        if not self.training or world().size == 1:
            return super().forward(input)
        mean, variance, count = global_moments(input, (0, 2, 3))
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        assert self.momentum is not None
        with torch.no_grad():
            self.running_mean.lerp_(mean.detach(), self.momentum)
            # Unbiased, as torch tracks it: one process and several leave the same statistics.
            self.running_var.lerp_(variance.detach() * (count / (count - 1)), self.momentum)
            self.num_batches_tracked += 1
        scale = self.weight * (variance + self.eps).rsqrt()
        return (input - mean[:, None, None]) * scale[:, None, None] + self.bias[:, None, None]


def weights_init(module: nn.Module) -> None:
    """pix2pix's initial weights, for ``Module.apply``: N(0, .02) in convolutions, N(1, .02) in batch norms."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


def _conv(channels_in: int, channels_out: int, stride: int, *, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, kernel_size=4, stride=stride, padding=1, bias=bias)
