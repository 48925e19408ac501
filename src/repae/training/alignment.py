"""What the denoiser's tokens are aligned to at a given step, and how strongly."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from repae.config import UserError
from repae.data.batch import Batch
from repae.flow.path import Path
from repae.models.denoiser import Denoiser
from repae.models.teachers.targets import SpatialNormConfig, Targets, spatially_normalised
from repae.runtime.schedules import Constant, WeightSchedule
from repae.training.draw import Draw
from repae.training.method import MethodConfig, SelfTeacherConfig


class AlignedMethod(MethodConfig):
    """A method that aligns the denoiser's tokens with those of teachers.

    Attributes:
        proj_coeff: weight of the alignment in the denoiser's objective.
        align_schedule: the factor of all weights of the alignment at each step; once it is 0, no teacher is asked.
        spatial_norm: normalises the teachers' tokens over places.
    """

    proj_coeff: float = Field(default=0.5, ge=0)
    align_schedule: WeightSchedule = Constant()
    spatial_norm: SpatialNormConfig | None = None


@dataclass(frozen=True)
class SelfTeacher:
    """The averaged denoiser's tokens after a later block, of the same latents with less of the same noise (SRA).

    It sees the labels that the denoiser sees, dropped ones included. SRA (arXiv 2505.02831) measures the distance by a
    smooth L1; here it is the cosine of all alignment, so that one weight means the same for every teacher.
    """

    average: Denoiser
    path: Path
    config: SelfTeacherConfig

    @torch.no_grad()
    def __call__(self, x: Float[Tensor, "b c h w"], batch: Batch, draw: Draw) -> Float[Tensor, "b n d"]:
        """Target tokens of normalised latents ``x``, float32 and without a graph."""
        assert draw.earlier is not None, "a self teacher needs times of its own"
        # The same noise, only less of it: the teacher's task is easier, never another one.
        time = (draw.time - self.config.interval * draw.earlier).clamp(min=0)
        x_t, _ = self.path.sample(x, draw.noise, time)
        backbone = self.average.backbone
        tokens, condition = backbone.embed(x_t, time, batch.labels, draw.dropped_labels)
        return backbone.run(tokens, condition, stop=self.config.depth).float()


@dataclass(frozen=True)
class Alignment:
    """The targets of every step and the factor of the alignment's weights.

    Attributes:
        method: weights, schedule, normalisation.
        targets: of the teachers that see images.
        total_steps: of the run.
        own: the teacher that sees latents, where there is one.
    """

    method: AlignedMethod
    targets: Targets
    total_steps: int
    own: SelfTeacher | None = None

    def factor(self, step: int) -> float:
        """Of the weights at step ``step`` (from 0), in [0, 1]; a function of the step, so that resuming is exact."""
        return self.method.align_schedule.factor(step, self.total_steps)

    def of_images(self, batch: Batch, step: int) -> list[Tensor]:
        """For each teacher the tokens ``[B, N, D]`` of the images, which the batch may bring along.

        None, and no teacher is asked, once alignment is over.
        """
        if not self.factor(step):
            return []
        if batch.tokens is not None:
            return self._normalised(list(batch.tokens))
        return self._normalised(self.targets(batch.images, batch.labels, batch.indices))

    def of_latents(self, x: Float[Tensor, "b c h w"], batch: Batch, draw: Draw, step: int) -> list[Tensor]:
        """The self teacher's tokens of normalised latents, where there is one and alignment is not over."""
        if self.own is None or not self.factor(step):
            return []
        return self._normalised([self.own(x, batch, draw)])

    def _normalised(self, tokens: list[Tensor]) -> list[Tensor]:
        norm = self.method.spatial_norm
        return tokens if norm is None else [spatially_normalised(part, norm) for part in tokens]


def check_self_teacher(config: SelfTeacherConfig, encoder_depth: int, depth: int) -> None:
    """Refuses a self teacher that is not behind the aligned block, or outside the model."""
    if not encoder_depth < config.depth <= depth:
        raise UserError(
            f"method.self_teacher.depth {config.depth} is not behind the aligned block, backbone.encoder_depth "
            f"{encoder_depth}, of a model with {depth} blocks; allowed: {encoder_depth + 1} to {depth}"
        )
