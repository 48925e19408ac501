"""What a teacher is: a frozen network that gives an image's patch tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod

from jaxtyping import Float, UInt8
from torch import Tensor, nn

from repae.config import UserError


class Teacher(nn.Module, ABC):
    """A frozen network whose patch tokens are what the denoiser's tokens are aligned to (REPA, arXiv 2410.06940).

    It takes images as they are, levels 0..255, and owns its preprocessing. It stays in eval mode, also when a module
    around it is put into train mode, and neither its weights nor its output carry gradients.

    Attributes:
        name: what it is called in errors and reports.
        dim: width of a token.
    """

    name: str
    dim: int

    @abstractmethod
    def tokens(self, resolution: int) -> int:
        """Number of tokens of a square image of ``resolution`` pixels; a `UserError` for one it does not take."""

    @abstractmethod
    def forward(self, images: UInt8[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        """Patch tokens in float32, row by row from the top left corner, without a graph."""

    def features(self, images: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Feature maps of images in [-1, 1], differentiable in the images: what a perceptual distance compares."""
        raise UserError(
            f"teacher {self.name} has no feature maps to compare images in; choose another first teacher, or "
            "perceptual.kind 'lpips'"
        )

    def train(self, mode: bool = True) -> Teacher:
        """Stays in eval mode whatever ``mode`` says: batch statistics or dropout would make targets that move."""
        return super().train(False)
