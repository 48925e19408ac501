"""What is measured and in whose features, as configurations."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field

from repae.config import Config
from repae.evaluation.features import FeatureExtractor, TeacherFeatures, Token
from repae.evaluation.inception import Inception
from repae.evaluation.manifold import NEIGHBOURS
from repae.evaluation.perceptual import LpipsConfig
from repae.evaluation.scores import PART, SUBSET, SUBSETS
from repae.flow import AnySampler, Euler, Guidance
from repae.models.teachers.embedded import EmbeddedTeacher
from repae.models.teachers.timm import TimmTeacher, TimmTeacherConfig

Metric = Literal["fid", "sfid", "inception-score", "kid", "precision-recall"]


class InceptionConfig(Config):
    """Inception V3 of FID, with its weights in a local file, in torch's cache, or from the net.

    Attributes:
        weights: torch-fidelity's file; none looks into torch's cache of downloads and then asks for it over the net.
    """

    kind: Literal["inception"] = "inception"
    weights: str | None = None

    def open(self, device: torch.device) -> FeatureExtractor:
        return Inception(self.weights, device)


class Dinov2Config(Config):
    """DINOv2 ViT-L/14 at 224 px, class token: FD-DINOv2 (Stein et al., arXiv 2306.04675).

    Attributes:
        weights: a local file, timm's or Meta's own; none takes them from the hub, or its cache.
    """

    kind: Literal["dinov2"] = "dinov2"
    weights: str | None = None

    def open(self, device: torch.device) -> FeatureExtractor:
        config = TimmTeacherConfig(name="vit_large_patch14_dinov2.lvd142m", weights=self.weights, grid=16)
        return TeacherFeatures(TimmTeacher(config).to(device), "dinov2", "class")


class TimmFeaturesConfig(TimmTeacherConfig):
    """Any plain vision transformer of timm.

    Attributes:
        token: the class token, or the mean of the patch tokens.
    """

    kind: Literal["timm"] = "timm"
    token: Token = "class"

    def open(self, device: torch.device) -> FeatureExtractor:
        config = TimmTeacherConfig(**self.model_dump(exclude={"token"}))
        return TeacherFeatures(TimmTeacher(config).to(device), "timm", self.token)


class EmbeddedFeaturesConfig(Config):
    """A small teacher that a run has trained; the mean of its patch tokens.

    Attributes:
        folder: where it is kept, such as ``runs/cache/teacher-.../teacher``.
    """

    kind: Literal["embedded"] = "embedded"
    folder: str = Field(min_length=1)

    def open(self, device: torch.device) -> FeatureExtractor:
        return TeacherFeatures(EmbeddedTeacher.load(self.folder).to(device), "teacher", "mean")


FeaturesConfig = Annotated[
    InceptionConfig | Dinov2Config | TimmFeaturesConfig | EmbeddedFeaturesConfig, Field(discriminator="kind")
]

KINDS = ("inception", "dinov2", "timm", "embedded")
"""Kinds of networks that `--features` names by one word."""


class ComparisonConfig(Config):
    """How two sets of features are compared.

    Attributes:
        metrics: what is computed; none computes all that the features and the reference allow. What is named and
            cannot be had is refused.
        neighbours: k of precision and recall; 3 is ADM's.
        subsets: of the kernel distance.
        subset: images in each of them; a smaller set is taken whole.
        part: images in a part of the Inception Score.
        resamples: of the bootstrap behind the 95% intervals; 0 for none. Each repeats the Frechet distance.
        stored: take stored statistics of the reference where it has them (ADM's rule), else its images.
    """

    metrics: tuple[Metric, ...] | None = None
    neighbours: int = Field(default=NEIGHBOURS, ge=1)
    subsets: int = Field(default=SUBSETS, ge=1)
    subset: int = Field(default=SUBSET, ge=2)
    part: int = Field(default=PART, ge=1)
    resamples: int = Field(default=20, ge=0)
    stored: bool = True


class EvaluationConfig(Config):
    """How generated images and reconstructions of a run are measured.

    Attributes:
        images: unguided images for accuracy, Frechet distances and neighbours, and real ones for the reconstruction.
        guided_images: for the guided accuracy.
        sampler: how the velocity is integrated.
        guidance: of the guided images.
        seed: of the noise of generated images.
        batch_size: images at a time.
        neighbours: k of precision, recall, density and coverage in pixels.
        period: side in pixels of the lattice that is searched.
        reference_images: real images that features are compared with, spread evenly over the data, at most.
        features: networks in whose features to compare besides those at hand, which are the classifier, the run's own
            teacher and, for RGB images, the Inception in torch's cache.
        comparison: how sets of features are compared.
        lpips: the network of LPIPS; none takes VGG16 where its weights are in torch's cache.
    """

    images: int = Field(default=1797, ge=2)
    guided_images: int = Field(default=500, ge=1)
    sampler: AnySampler = Euler(steps=25)
    guidance: Guidance = Guidance(scale=2.0, low=0.0, high=0.85)
    seed: int = Field(default=0, ge=0)
    batch_size: int = Field(default=256, ge=1)
    neighbours: int = Field(default=5, ge=1)
    period: int = Field(default=4, ge=2)
    reference_images: int = Field(default=50_000, ge=2)
    features: tuple[FeaturesConfig, ...] = ()
    comparison: ComparisonConfig = ComparisonConfig()
    lpips: LpipsConfig | None = None
