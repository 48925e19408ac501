"""Between two images: their noise or their classes mixed, a little more at each place of a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from repae.models.bundle import Bundle
from repae.runtime.modes import evaluating
from repae.sampling.generate import ImageNoise, chosen_noise


class Mixture(NamedTuple):
    """Something between `first` and `second`, numbers of images or classes: `share` of the second, in [0, 1]."""

    first: int
    second: int
    share: float


def between_noise(seed: int, mixtures: Sequence[Mixture], shape: tuple[int, ...]) -> ImageNoise:
    """Image i has a noise between those of two numbers, on the great circle through them.

    On the straight line between them it would be shorter than noise is, which a denoiser has never seen. A stochastic
    sampler's noise goes the same way.
    """
    first = chosen_noise(seed, [m.first for m in mixtures], shape)
    second = chosen_noise(seed, [m.second for m in mixtures], shape)
    shares = torch.tensor([m.share for m in mixtures])

    def noise(numbers: range, step: int | None) -> Tensor:
        return spherical(first(numbers, step), second(numbers, step), shares[numbers.start : numbers.stop])

    return noise


def spherical(
    a: Float[Tensor, "b *shape"], b: Float[Tensor, "b *shape"], shares: Float[Tensor, " b"]
) -> Float[Tensor, "b *shape"]:
    """Spherical interpolation of each row: the angle is divided evenly, the length goes from one to the other.

    `shares` 0 gives `a`, 1 gives `b`. Rows that point the same way are mixed in a straight line (Shoemake, 1985).
    """
    wide = (-1, *(1 for _ in a.shape[1:]))
    # Near parallel the arc cosine makes of a rounding error its square root.
    rows = (a.flatten(1).double(), b.flatten(1).double())
    cosine = torch.nn.functional.cosine_similarity(*rows).clamp(-1, 1)
    angle, share = cosine.acos(), shares.double()
    sine = angle.sin()
    flat = sine < 1e-6
    safe = torch.where(flat, 1.0, sine)
    of_a = torch.where(flat, 1 - share, ((1 - share) * angle).sin() / safe).view(wide)
    of_b = torch.where(flat, share, (share * angle).sin() / safe).view(wide)
    return (of_a * a + of_b * b).to(a.dtype)


class BetweenClasses:
    """A bundle whose labels are mixtures of two classes: label i is `mixtures[i]`.

    The condition that every block sees is time plus label embedded (`Backbone.embed`); two such conditions of the same
    time are mixed in a straight line, hence the label embeddings are. The last label is no class, where the bundle has
    that.
    """

    def __init__(self, bundle: Bundle, mixtures: Sequence[Mixture]) -> None:
        null = bundle.null_label
        ends = [*mixtures, *([] if null is None else [Mixture(null, null, 0.0)])]
        self.bundle = bundle
        self.latent_shape = bundle.latent_shape
        self.null_label = None if null is None else len(mixtures)
        device = bundle.latent_norm.running_mean.device
        self._first, self._second = (torch.tensor([m[end] for m in ends], device=device) for end in (0, 1))
        self._share = torch.tensor([m.share for m in ends], device=device)

    @torch.no_grad()
    def velocity(
        self, x: Float[Tensor, "b c h w"], t: Float[Tensor, " b"], y: Int[Tensor, " b"]
    ) -> Float[Tensor, "b c h w"]:
        backbone = self.bundle.denoiser.backbone
        with evaluating(self.bundle.denoiser):
            tokens, condition = backbone.embed(x, t, self._first[y])
            _, other = backbone.embed(x, t, self._second[y])
            mixed = torch.lerp(condition, other, self._share[y, None].to(condition.dtype))
            return backbone.final(backbone.run(tokens, mixed), mixed)

    def decode(self, x: Tensor) -> Tensor:
        return self.bundle.decode(x)
