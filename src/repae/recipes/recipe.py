"""A recipe: one whole run as data, from the images to the report."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveInt, model_validator

from repae.config import Config
from repae.data import DataConfig, DigitsConfig
from repae.data.latent_dataset import LatentsConfig
from repae.evaluation.settings import EvaluationConfig
from repae.flow.guidance import Guidance
from repae.flow.samplers import AnySampler, Euler
from repae.models.autoencoders import DiffusersConfig
from repae.models.teachers.embedded import EmbeddedTeacherConfig
from repae.models.teachers.timm import TimmTeacherConfig
from repae.runtime.optimise import AdamWConfig
from repae.runtime.schedules import OneCycle
from repae.training.methods import AnyMethod, RepaE
from repae.training.setup import TrainSetup
from repae.training.state import BundleName
from repae.training.teacher_step import TEACHER_OPTIMISER

EVALUATED = "eval_"
"""How names of metrics begin that an evaluation during training has found."""


class EmbeddedTeacherTraining(Config):
    """A small teacher trained, without labels, on the run's own images before the run; made once and kept."""

    kind: Literal["embedded"] = "embedded"
    widths: tuple[PositiveInt, PositiveInt, PositiveInt] = (32, 64, 96)
    heads: PositiveInt = 4
    position_scale: float = Field(default=0.2, ge=0)
    steps: int = Field(default=200, ge=1)
    batch_size: int = Field(default=128, ge=2)
    optimiser: AdamWConfig = TEACHER_OPTIMISER
    seed: int = 0
    folder: str | None = Field(default=None, description="a saved teacher to use instead of training one")

    def architecture(self, channels: int, resolution: int) -> EmbeddedTeacherConfig:
        """The network's configuration for images of so many channels and pixels a side."""
        return EmbeddedTeacherConfig(
            image_channels=1 if channels == 1 else 3,
            resolution=resolution,
            widths=self.widths,
            heads=self.heads,
            position_scale=self.position_scale,
        )


Teacher = Annotated[EmbeddedTeacherTraining | TimmTeacherConfig, Field(discriminator="kind")]


def _by_name(teachers: Any) -> Any:
    """Names in place of teachers: ``dinov2-b,clip-l``, or a list in which a text stands for the teacher it names."""
    if teachers is None:
        return ()
    if isinstance(teachers, str) and not set(teachers) & set("[]{}"):
        teachers = [name.strip() for name in teachers.split(",")]
    if not isinstance(teachers, (list, tuple)):
        return teachers
    return tuple(_named(teacher) if isinstance(teacher, str) else teacher for teacher in teachers)


def _named(name: str) -> dict[str, str]:
    return {"kind": "embedded"} if name == "embedded" else {"kind": "timm", "name": name}


Teachers = Annotated[tuple[Teacher, ...], BeforeValidator(_by_name)]
"""Teachers, which may be given by name: ``dinov2-b,clip-l``; ``embedded`` is the one that a run trains itself."""


class FromScratch(Config):
    """The autoencoder starts from random weights."""

    kind: Literal["scratch"] = "scratch"


class FromWeights(Config):
    """The autoencoder's weights: of a run, a diffusers folder, safetensors, or the reference's ``.pt``."""

    kind: Literal["weights"] = "weights"
    path: str = Field(min_length=1)


class FromWarmup(Config):
    """The autoencoder is first trained alone on the run's images (same losses, no GAN); made once and kept."""

    kind: Literal["warmup"] = "warmup"
    steps: int = Field(default=200, ge=1)
    batch_size: int = Field(default=64, ge=1)
    optimiser: AdamWConfig = AdamWConfig(lr=2e-3, schedule=OneCycle())


class FromPublished(Config):
    """The weights that come with the autoencoder: a diffusers one's own, at ``vae.path``."""

    kind: Literal["published"] = "published"


class FromRun(Config):
    """All players start from a run, from what `repae import` wrote, or from an exported folder: fine-tuning.

    Taken are the autoencoder, the denoiser and the statistics of its own bundle, and the discriminator, as far as it
    has them and the method uses them. `--init-from PATH` says the same.
    """

    kind: Literal["run"] = "run"
    path: str = Field(min_length=1)


Start = Annotated[FromScratch | FromWeights | FromWarmup | FromPublished | FromRun, Field(discriminator="kind")]


class NoPerceptual(Config):
    """No perceptual term; ``losses.perceptual_weight`` must be 0."""

    kind: Literal["none"] = "none"


class TeacherPerceptual(Config):
    """Squared distance in the channel-normalised features of the first teacher, which needs no further weights."""

    kind: Literal["teacher"] = "teacher"


class LpipsPerceptual(Config):
    """LPIPS in VGG16 features (arXiv 1801.03924).

    Attributes:
        vgg: VGG16's weights, a file in torchvision's or timm's names; none takes them from the hub.
        linear: LPIPS's own weights; none takes those of the package lpips, the file that the reference downloads.
        precision: of the features; their distance is always taken in fp32.
    """

    kind: Literal["lpips"] = "lpips"
    vgg: str | None = Field(default=None, min_length=1)
    linear: str | None = Field(default=None, min_length=1)
    precision: Literal["fp32", "bf16"] = "fp32"


class LpipsConvnextPerceptual(LpipsPerceptual):
    """(a LPIPS + b squared difference of ConvNeXt-S's logits) / (a + b): the reference's ``lpips-convnext_s-a-b``.

    Attributes:
        vgg: as for kind lpips.
        linear: as for kind lpips.
        precision: as for kind lpips.
        convnext: ConvNeXt-S's weights, a file of timm's; none takes them from the hub.
        lpips_weight: a.
        convnext_weight: b.
    """

    kind: Literal["lpips-convnext_s"] = "lpips-convnext_s"  # type: ignore[assignment]
    convnext: str | None = Field(default=None, min_length=1)
    lpips_weight: float = Field(default=1.0, gt=0)
    convnext_weight: float = Field(default=0.1, gt=0)


Perceptual = Annotated[
    NoPerceptual | TeacherPerceptual | LpipsPerceptual | LpipsConvnextPerceptual, Field(discriminator="kind")
]


class RuntimeConfig(Config):
    """Where and in what precision a run computes. ``threads`` and ``workers`` change no result."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    compile: bool = False
    tf32: bool = True
    threads: int | None = Field(default=None, ge=1)
    workers: int = Field(default=0, ge=0)


class PreviewConfig(Config):
    """The grid drawn during training and at its end, always from the same noise and labels."""

    every: int = Field(default=500, ge=1)
    per_class: int = Field(default=10, ge=1)
    classes: int = Field(default=10, ge=1)
    sampler: AnySampler = Euler(steps=50)
    guidance: Guidance = Guidance(scale=2.0, low=0.0, high=0.85)


class RecipeEvaluation(EvaluationConfig):
    """How a run is evaluated: by `repae evaluate`, and during its training if `every` says so.

    Figures that are found during training are logged with ``eval_`` before their names, such as ``eval_fd``; with
    ``loop.best.metric`` one of them decides which checkpoint is kept as the best.

    Attributes:
        every: steps between two evaluations during training, of the weights that ``bundle`` names; none for no such.
        quick_images: images in an evaluation during training at most, guided ones or not; none takes as many as
            `repae evaluate` does.
    """

    every: int | None = Field(default=None, ge=1)
    quick_images: int | None = Field(default=500, ge=2)

    def quick(self) -> EvaluationConfig:
        """The evaluation that is done during training: fewer images, no bootstrap, and otherwise the same."""
        settings = EvaluationConfig(**self.model_dump(exclude={"every", "quick_images"}))
        most = self.quick_images or max(self.images, self.guided_images)
        images, guided = min(self.images, most), min(self.guided_images, most)
        return settings.replace(images=images, guided_images=guided, **{"comparison.resamples": 0})


class TrackConfig(Config):
    """Where metrics go besides ``metrics.jsonl``."""

    tensorboard: bool = True
    wandb: bool = False
    wandb_project: str = "repae"
    wandb_offline: bool = False
    progress: bool = True


class Recipe(TrainSetup):
    """Everything that determines a run.

    ``about`` says what the recipe is for, ``target`` what its origin published, in words. ``num_classes`` is read
    from the data unless given, and must agree with it. ``latents`` are those of ``data``, computed beforehand by the
    frozen autoencoder: training then reads them, and images only for teachers that are not cached too. ``bundle``
    names the weights that are sampled, evaluated and exported. ``class_mean_targets`` replaces the teacher's tokens by
    their means over (class, position): a control.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    about: str = ""
    target: str = ""
    method: AnyMethod = RepaE()
    data: DataConfig = DigitsConfig(resolution=32)
    num_classes: int | None = Field(default=None, ge=1)
    latents: LatentsConfig | None = None
    teachers: Teachers = Field(
        default=(), description="by name, with commas between (`repae teachers` lists them), or each in full"
    )
    class_mean_targets: bool = False
    start: Start = FromScratch()
    perceptual: Perceptual = NoPerceptual()
    bundle: BundleName = "ema"
    runtime: RuntimeConfig = RuntimeConfig()
    preview: PreviewConfig = PreviewConfig()
    evaluation: RecipeEvaluation = RecipeEvaluation()
    track: TrackConfig = TrackConfig()

    @model_validator(mode="after")
    def _published_by_someone(self) -> Recipe:
        if isinstance(self.start, FromPublished) and getattr(self.vae, "path", None) is None:
            raise ValueError(
                f"start.kind is 'published', and a vae of kind {self.vae.kind!r} without a path comes with no weights; "
                "set vae.kind to 'diffusers' and vae.path, or start.kind to 'weights', 'warmup' or 'scratch'"
            )
        return self

    @model_validator(mode="after")
    def _best_by_something(self) -> Recipe:
        best = self.loop.best
        if best is not None and best.metric.startswith(EVALUATED) and self.evaluation.every is None:
            raise ValueError(
                f"loop.best.metric is {best.metric!r}, which an evaluation during training finds, and there is none; "
                "set evaluation.every to the number of steps between two, or choose a metric that is logged"
            )
        return self

    @model_validator(mode="after")
    def _latents_of_a_frozen_autoencoder(self) -> Recipe:
        if self.latents is not None and not self.method.traits.from_latents:
            raise ValueError(
                f"latents.path is {self.latents.path!r}, but method.kind {self.method.kind!r} trains the autoencoder, "
                "so that they would be wrong after one step; set method.kind to 'repa', whose autoencoder is frozen, "
                "or --latents none"
            )
        return self

    @property
    def own_bundle(self) -> BundleName:
        """The weights that are sampled, evaluated and exported: ``bundle``, as far as the method leaves it."""
        return self.method.traits.bundle(self.bundle)

    def resolved(self) -> Recipe:
        """The same with the architecture of an autoencoder that it only points at; refused where there is none."""
        return self.replace(vae=self.vae.resolved()) if isinstance(self.vae, DiffusersConfig) else self
