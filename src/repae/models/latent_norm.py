"""Batch norm without an affine part between autoencoder and denoiser (REPA-E, arXiv 2504.10483, Sec. 3.2)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from repae.config import UserError
from repae.models.layers import at_least_float32
from repae.runtime.distributed import all_true, global_moments


class LatentNorm(nn.Module):
    """Normalises each latent channel to mean 0 and variance 1, always in float32 or better.

    In train mode with the statistics of the batch over all processes, and the running statistics move towards them;
    in eval mode with the running statistics. `denormalise` is the exact inverse of eval mode.

    A batch with a value that is not finite, on any process, leaves the running statistics as they are and is counted in
    ``refused``. This is decided on the device: nobody waits for it.

    Attributes:
        running_mean, running_var: float32 ``[C]``; the variance is the unbiased one, as in torch's batch norm.
        num_batches_tracked, refused: int64 counts of batches.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    refused: Tensor

    def __init__(self, channels: int, eps: float = 1e-4, momentum: float = 0.1) -> None:
        super().__init__()
        self.channels = channels
        self.eps = eps
        self.momentum = momentum
        # No weight and bias: training them could lower the diffusion loss by shrinking the latents.
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("num_batches_tracked", torch.zeros((), dtype=torch.int64))
        self.register_buffer("refused", torch.zeros((), dtype=torch.int64))

    def forward(self, z: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Normalised latents. In train mode differentiable through the batch's statistics too.

        Raises:
            UserError: a training batch holds a single value per channel, which has no variance.
        """
        z = at_least_float32(z)
        if not self.training:
            return (z - _wide(self.running_mean)) * _wide((self.running_var + self.eps).rsqrt())
        # Over all processes: a rank's share alone would normalise by other numbers than one process does.
        mean, variance, count = global_moments(z, (0, 2, 3))
        if count < 2:
            raise UserError("one latent value per channel has no variance to normalise by; train with larger batches")
        # As torch's batch norm does: it tracks the unbiased variance and normalises by the biased one.
        self._track(mean.detach(), variance.detach() * (count / (count - 1)))
        return (z - _wide(mean)) * _wide((variance + self.eps).rsqrt())

    def denormalise(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Latents from normalised ones, by the running statistics in either mode."""
        # With eps, or images would be decoded from latents too narrow: by .5 % where a channel's deviation is .1.
        return at_least_float32(x) * _wide((self.running_var + self.eps).sqrt()) + _wide(self.running_mean)

    @torch.no_grad()
    def set_statistics(self, mean: Float[Tensor, " c"], std: Float[Tensor, " c"]) -> None:
        """Set the running statistics: mean and standard deviation of each channel, of raw latents.

        Raises:
            UserError: another number of channels, a value that is not finite, or a standard deviation not above zero.
        """
        if mean.shape != (self.channels,) or std.shape != (self.channels,):
            raise UserError(
                f"latent statistics of shapes {tuple(mean.shape)} and {tuple(std.shape)} do not fit; "
                f"allowed: one value for each of {self.channels} channels"
            )
        if not bool((mean.isfinite() & std.isfinite() & (std > 0)).all()):
            raise UserError(
                f"latent statistics must be finite with standard deviations above 0, not mean {mean.tolist()}, "
                f"std {std.tolist()}"
            )
        self.running_mean.copy_(mean)
        self.running_var.copy_(std.square())

    def statistics(self) -> tuple[Float[Tensor, " c"], Float[Tensor, " c"]]:
        return self.running_mean.clone(), self.running_var.sqrt()

    @torch.no_grad()
    def _track(self, mean: Float[Tensor, " c"], variance: Float[Tensor, " c"]) -> None:
        # One infinite latent would make a running mean infinite for ever, and a loss scaler guards no buffers.
        accepted: Bool[Tensor, ""] = all_true((mean.isfinite() & variance.isfinite()).all())
        for running, batch in ((self.running_mean, mean), (self.running_var, variance)):
            # where, not if: an if on a device value would stop the host at every step.
            running.copy_(torch.where(accepted, torch.lerp(running, batch.to(running.dtype), self.momentum), running))
        self.num_batches_tracked += accepted
        self.refused += ~accepted


def _wide(statistic: Float[Tensor, " c"]) -> Float[Tensor, "1 c 1 1"]:
    return statistic[None, :, None, None]
