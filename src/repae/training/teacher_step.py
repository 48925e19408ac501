"""The embedded teacher learns from the run's own images, without their labels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from repae.config import Config
from repae.data.batch import Batch
from repae.models.teachers.embedded import PATCH, EmbeddedNetwork, EmbeddedTeacher, EmbeddedTeacherConfig
from repae.runtime.optimise import AdamWConfig, Optimiser
from repae.runtime.precision import Precision, float32
from repae.runtime.schedules import OneCycle
from repae.runtime.seeds import Share, generator, seed_of
from repae.training.state import Metrics, Stateful

TEACHER_OPTIMISER = AdamWConfig(lr=2e-3, weight_decay=0.05, schedule=OneCycle(rise=0.15))
"""What 200 steps of 128 images were tuned with."""


class PretextConfig(Config):
    """What the teacher is asked: VICReg (arXiv 2105.04906) between two views, and the pixels behind a mask.

    Attributes:
        invariance: weight of the distance between the two views' embeddings.
        variance: weight of the hinge that keeps every dimension's standard deviation at 1 or more.
        covariance: weight of the squared correlations between dimensions.
        pixels: weight of the squared error of masked patches, levels in [0, 1].
        mask_ratio: the share of hidden patches is uniform in [0, mask_ratio], drawn for each view.
        projector_width: of the two layers between the mean token and the embedding.
    """

    invariance: NonNegativeFloat = 1.0
    variance: NonNegativeFloat = 1.0
    covariance: NonNegativeFloat = 0.04
    pixels: NonNegativeFloat = 0.3
    mask_ratio: float = Field(default=0.3, ge=0, le=1)
    projector_width: PositiveInt = 192


class Pretext(nn.Module):
    """The network that is kept, and the two heads that are thrown away."""

    def __init__(self, architecture: EmbeddedTeacherConfig, projector_width: int) -> None:
        super().__init__()
        self.network = EmbeddedNetwork(architecture)
        self.projector = nn.Sequential(
            nn.Linear(architecture.dim, projector_width),
            nn.BatchNorm1d(projector_width),
            nn.ReLU(inplace=True),
            nn.Linear(projector_width, projector_width),
        )
        self.pixels = nn.Linear(architecture.dim, architecture.image_channels * PATCH**2)
        self.hidden_token = nn.Parameter(torch.zeros(architecture.dim))

    def forward(
        self, views: Float[Tensor, "b c h w"], hidden: Bool[Tensor, "b n"]
    ) -> tuple[Float[Tensor, "b p"], Float[Tensor, "b n q"]]:
        """The embedding of the mean token, and a guess at the pixels of every patch, without the hidden tokens."""
        local = self.network.local(views)
        tokens = self.network.mixed(torch.where(hidden[:, :, None], self.hidden_token.to(local.dtype), local))
        return self.projector(tokens.mean(1)), self.pixels(tokens)


class TeacherStep:
    """One step of the embedded teacher: two views of every image, one objective, one optimiser.

    Needs the whole batch in one piece, since the objective is about statistics of a batch: where there are several
    processes, each does the same whole step. All randomness is a function of (seed, step).
    """

    def __init__(
        self,
        architecture: EmbeddedTeacherConfig,
        *,
        total_steps: int,
        seed: int,
        device: torch.device,
        precision: Precision,
        pretext: PretextConfig | None = None,
        optimiser: AdamWConfig = TEACHER_OPTIMISER,
    ) -> None:
        self.architecture = architecture
        self.config = pretext or PretextConfig()
        self.seed = seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(seed, "teacher weights"))
            self.pretext = Pretext(architecture, self.config.projector_width).to(device)
        self.optimise = Optimiser(self.pretext.parameters(), optimiser, precision, total_steps=total_steps)

    def __call__(self, batch: Batch, step: int, share: Share) -> Metrics:
        """VICReg between the mean tokens of two views + the pixels behind the mask, from the same forward pass."""
        assert share.micros * share.size == 1, "the teacher's objective needs the whole batch in one piece"
        config, images = self.config, batch.images
        source = generator(images.device, self.seed, "teacher step", step)
        with float32():
            # Both views in one call: each row draws a map of its own, so they differ.
            views = augment(torch.cat((images, images)).float() / 255, source)
        hidden = draw_mask(len(views), self.architecture.grid, config.mask_ratio, source)
        embedding, guess = self.pretext(views, hidden)
        with float32():
            # Variances and correlations over a batch are small differences of large sums.
            invariance, variance, covariance = vicreg(*embedding.float().chunk(2))
            pixels = masked_error(guess.float(), to_patches(views), hidden)
            loss = config.invariance * invariance + config.variance * variance
            loss = loss + config.covariance * covariance + config.pixels * pixels
        grad_norm = self.optimise(loss)
        assert grad_norm is not None
        metrics = {
            "teacher_loss": loss,
            "teacher_invariance": invariance,
            "teacher_variance": variance,
            "teacher_covariance": covariance,
            "teacher_pixels": pixels,
            "grad_norm_teacher": grad_norm,
        }
        return {name: value.detach() for name, value in metrics.items()}

    def parts(self) -> Mapping[str, Stateful]:
        return {"teacher": self.pretext, "optimiser_teacher": self.optimise}

    def modules(self) -> list[nn.Module]:
        return [self.pretext]

    def teacher(self, batches: Iterable[UInt8[Tensor, "_ c h w"]]) -> EmbeddedTeacher:
        """The frozen teacher with the present weights, its tokens centred on the images of ``batches``."""
        teacher = EmbeddedTeacher(self.architecture)
        teacher.network.load_state_dict(self.pretext.network.state_dict())
        teacher.to(next(self.pretext.parameters()).device)
        teacher.fit_centre(batches)
        return teacher


def vicreg(
    one: Float[Tensor, "b p"], other: Float[Tensor, "b p"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, ""]]:
    """Invariance, variance and covariance of two batches of embeddings (VICReg, arXiv 2105.04906, Eq. 1, 4 to 6).

    Invariance is a mean over dimensions as well as samples; variance and covariance are sums over the two batches.
    """
    invariance = (one - other).square().mean()
    variance, covariance = torch.zeros_like(invariance), torch.zeros_like(invariance)
    for embedding in (one, other):
        centred = embedding - embedding.mean(0)
        # The 1e-4 keeps the root's gradient finite where a dimension has collapsed.
        spread = (centred.square().sum(0) / (len(centred) - 1) + 1e-4).sqrt()
        variance = variance + F.relu(1 - spread).mean()
        matrix = centred.T @ centred / (len(centred) - 1)
        off_diagonal = matrix.square().sum() - matrix.diagonal().square().sum()
        covariance = covariance + off_diagonal / matrix.shape[0]
    return invariance, variance, covariance


def masked_error(
    guess: Float[Tensor, "b n q"], patches: Float[Tensor, "b n q"], hidden: Bool[Tensor, "b n"]
) -> Float[Tensor, ""]:
    """Mean squared error over the pixels of the hidden patches; 0 where none is hidden."""
    error = (guess - patches).square().mean(-1)
    return (error * hidden).sum() / hidden.sum().clamp(min=1)


def draw_mask(views: int, grid: int, ratio: float, source: torch.Generator) -> Bool[Tensor, "b n"]:
    """Which patches of each view are hidden: each with a probability drawn for the view from U(0, ratio)."""
    device = source.device
    probability = ratio * torch.rand(views, 1, generator=source, device=device)
    return torch.rand(views, grid**2, generator=source, device=device) < probability


def to_patches(images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n q"]:
    """Images cut into 8 x 8 patches, row by row; each patch holds its channels, rows and columns in this order."""
    return F.pixel_unshuffle(images, PATCH).flatten(2).transpose(1, 2)


def augment(images: Float[Tensor, "b c h w"], source: torch.Generator) -> Float[Tensor, "b c h w"]:
    """One random view of each image, levels in [0, 1] times a gain: bent, dimmed or brightened, and partly erased.

    One affine map with an elastic field, sampled once: rotation +-17 degrees, axis scales e^+-.18, shear +-.2, shift
    +-.16 of half the side, displacements N(0, .06) of half the side on a 4 x 4 grid; gain e^+-.25; with probability
    .3 a black box of 3/16 to 3/8 of the side. What comes from outside the image is black.
    """
    count, _, height, width = images.shape

    def uniform(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=source, device=images.device) * 2 - 1

    angle, shear = math.radians(17) * uniform(), 0.2 * uniform()
    scale, shift = torch.exp(0.18 * uniform(2)), 0.16 * uniform(2)
    cosine, sine = angle.cos(), angle.sin()
    across = torch.stack((cosine * scale[:, 0], shear - sine * scale[:, 1], shift[:, 0]), 1)
    down = torch.stack((sine * scale[:, 0], cosine * scale[:, 1], shift[:, 1]), 1)
    places = F.affine_grid(torch.stack((across, down), 1), [count, 1, height, width], align_corners=False)
    field = 0.06 * torch.randn(count, 2, 4, 4, generator=source, device=images.device)
    field = F.interpolate(field, (height, width), mode="bicubic", align_corners=False)
    views = F.grid_sample(images, places + field.permute(0, 2, 3, 1), align_corners=False)
    views = views * torch.exp(0.25 * uniform(1, 1, 1))
    erased = uniform() < 2 * 0.3 - 1
    sides = (9 + 3 * uniform(2)) / 32
    first = (1 - sides) * (uniform(2) + 1) / 2
    rows = _between(first[:, 0], sides[:, 0], height)
    columns = _between(first[:, 1], sides[:, 1], width)
    box = (rows[:, :, None] & columns[:, None, :]) & erased[:, None, None]
    return views.masked_fill(box[:, None], 0.0)


def _between(first: Float[Tensor, " b"], length: Float[Tensor, " b"], size: int) -> Bool[Tensor, "b size"]:
    """Which of ``size`` pixels have their centre inside [first, first + length], as fractions of the side."""
    centres = (torch.arange(size, device=first.device) + 0.5) / size
    return (centres >= first[:, None]) & (centres < (first + length)[:, None])
