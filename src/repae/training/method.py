"""What a method of training is: its fields, what it says of itself as plain data, and the step that it builds.

Everything else asks this interface, so a method is one file: `register_method` makes it a choice of every recipe.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from repae.config import Config
from repae.config.registry import Registry
from repae.models.bundle import Bundle
from repae.training.state import BundleName, Players, Step

# At run time the import goes the other way: the builder needs the methods' base.
if TYPE_CHECKING:
    from repae.training.build import StepBuilder

Player = Literal["vae", "denoiser", "discriminator"]
"""A network that takes part in a training, by its name in a checkpoint."""

ALL_PLAYERS: frozenset[Player] = frozenset({"vae", "denoiser", "discriminator"})


class SelfTeacherConfig(Config):
    """The denoiser's own average as a teacher, at a later block and with less noise (SRA, arXiv 2505.02831).

    Nothing is downloaded. In joint training there is none: an autoencoder would please such a teacher by latents that
    say little.

    Attributes:
        depth: 1-based number of the block whose tokens are aligned to; behind ``backbone.encoder_depth``.
        interval: the teacher's time is up to so much smaller, uniformly drawn for each image, and never below 0.
    """

    depth: int = Field(ge=2)
    interval: float = Field(default=0.2, ge=0, le=1)


@dataclass(frozen=True)
class MethodTraits:
    """What there is to know of a method without its step.

    Attributes:
        players: the networks that it needs.
        trains: those of them that it updates; the others stay as they start.
        bundles: the combinations of weights that its checkpoints hold; the first is taken where a recipe names another.
        self_teacher: the average as a teacher, where there is one.
        from_latents: whether latents computed before the run can stand for the images.
        end_to_end: whether the diffusion loss reaches the autoencoder, so that both are kept for one backward pass.
        depends_on_total: whether a weight of a step depends on how many steps there are in all.
    """

    players: frozenset[Player]
    trains: frozenset[Player]
    bundles: tuple[BundleName, ...] = ("ema", "live", "reference")
    self_teacher: SelfTeacherConfig | None = None
    from_latents: bool = False
    end_to_end: bool = False
    depends_on_total: bool = False

    @property
    def generates(self) -> bool:
        """Whether it leaves a denoiser: then samples are drawn and evaluated, else only reconstructions and latents."""
        return "denoiser" in self.players

    @property
    def reconstructs(self) -> bool:
        """Whether the losses of a reconstruction take part."""
        return bool(self.trains & {"vae", "discriminator"})

    def bundle(self, wanted: BundleName) -> BundleName:
        """The bundle that a recipe means by ``wanted``."""
        return wanted if wanted in self.bundles else self.bundles[0]


class MethodStep(Step, ABC):
    """The step of a run: what the loop calls, and the weights that previews and evaluations take from it."""

    @abstractmethod
    def bundle(self, name: BundleName) -> Bundle:
        """The weights as they are now, in one of the combinations that the method's traits name."""


class MethodConfig(Config, ABC):
    """Base of the methods: their fields are a recipe's ``method``."""

    kind: Any
    """A literal, different in every method."""

    @property
    @abstractmethod
    def traits(self) -> MethodTraits:
        """What others ask of the method."""

    @abstractmethod
    def build(self, players: Players, builder: StepBuilder) -> MethodStep:
        """The step that trains ``players``, which are moved, given their modes and wrapped.

        Modes are set here once; the step restores whatever it changes.
        """


METHODS = Registry("method")
register_method = METHODS.register
"""Decorates the configuration of a method, which a recipe can then choose by its ``kind``."""

AnyMethod = Annotated[MethodConfig, METHODS]
