"""A backbone and its projectors: the unit that is wrapped, optimised and averaged."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from repae.config import UserError
from repae.models.backbones.base import Backbone, Dropped, Labels, Latents, Times, Tokens
from repae.models.projector import MLP, AnyProjector
from repae.runtime.parallel import Stacked

Projected = list[Float[Tensor, "b n _"]]
"""For each teacher the projected tokens ``[B, T, z_k]``."""


class Denoiser(Stacked):
    """A backbone whose tokens after block number ``encoder_depth`` (from 1) are projected to each teacher's width.

    Without ``z_dims`` it is the backbone alone. ``projector_dim`` is the width of an MLP projector's hidden layers.

    Raises:
        UserError: ``encoder_depth`` lies outside the model.
    """

    def __init__(
        self,
        backbone: Backbone,
        z_dims: Sequence[int],
        encoder_depth: int,
        projector_dim: int,
        projector: AnyProjector = MLP,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        depth = backbone.config.depth
        if not 1 <= encoder_depth <= depth:
            raise UserError(
                f"encoder_depth {encoder_depth} is not a block of this model, whose depth is {depth}; "
                f"allowed: 1 to {depth}"
            )
        self.encoder_depth = encoder_depth
        self.z_dims = tuple(z_dims)
        width = backbone.config.hidden_size
        self.projectors = nn.ModuleList(projector.build(width, projector_dim, z_dim) for z_dim in z_dims)

    def forward(self, x: Latents, t: Times, y: Labels, drop: Dropped | None = None) -> tuple[Latents, Projected]:
        """Velocity and projected tokens in one pass: the training pass. Arguments as for `Backbone.forward`."""
        tokens, condition = self.backbone.embed(x, t, y, drop)
        tokens = self.backbone.run(tokens, condition, stop=self.encoder_depth)
        projected = self._project(tokens)
        tokens = self.backbone.run(tokens, condition, start=self.encoder_depth)
        return self.backbone.final(tokens, condition), projected

    def project(self, x: Latents, t: Times, y: Labels, drop: Dropped | None = None) -> Projected:
        """Projected tokens alone: the alignment pass, which stops after block number ``encoder_depth``."""
        tokens, condition = self.backbone.embed(x, t, y, drop)
        return self._project(self.backbone.run(tokens, condition, stop=self.encoder_depth))

    def velocity(self, x: Latents, t: Times, y: Labels) -> Latents:
        # Projectors serve training alone.
        return self.backbone(x, t, y)

    def repeated_parts(self) -> list[nn.Module]:
        return [*self.backbone.repeated_parts(), *self.projectors]

    def _project(self, tokens: Tokens) -> Projected:
        return [projector(tokens) for projector in self.projectors]
