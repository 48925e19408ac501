"""Networks in whose features images are compared: one small interface, and teachers and the classifier behind it."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from repae.config import UserError
from repae.evaluation.classifier import Classifier
from repae.evaluation.images import ImageSet
from repae.models.teachers.embedded import EmbeddedTeacher
from repae.models.teachers.timm import TimmTeacher
from repae.runtime.digest import weights_digest

POOL = "pool"
"""The part that every extractor has: one vector per image, in which sets are compared."""

Token = Literal["class", "mean"]


class FeatureExtractor(ABC):
    """A frozen network that gives numbers for images as they are, levels 0..255; it owns its preprocessing.

    Attributes:
        name: what its figures are called after.
        parts: name and width of every output; `POOL` is always among them.
        channels: what images must have, or None where one or three will do.
    """

    name: str
    parts: Mapping[str, int]
    network: nn.Module
    channels: int | None = None

    @property
    def dim(self) -> int:
        return self.parts[POOL]

    @cached_property
    def digest(self) -> str:
        """24 hexadecimal digits that change with the weights and with what is done to an image first."""
        facts = json.dumps([self.about(), weights_digest(self.network)], sort_keys=True)
        return hashlib.sha256(facts.encode()).hexdigest()[:24]

    @abstractmethod
    def __call__(self, images: UInt8[Tensor, "b c h w"]) -> dict[str, Float[Tensor, "b _"]]:
        """Every part for these images, float32 on the CPU. A row depends on its image only."""

    @abstractmethod
    def about(self) -> dict[str, Any]:
        """What it is, weights apart, in JSON."""

    def facts(self) -> dict[str, Any]:
        return {**self.about(), "dim": self.dim, "sha256": self.digest}

    def check(self, images: ImageSet) -> None:
        if self.channels not in (None, images.shape[0]):
            raise UserError(
                f"{self.name} features are of images in {self.channels} channels; {images.name} has "
                f"{images.shape[0]}; repeat a grey channel three times if that is meant"
            )


class TeacherFeatures(FeatureExtractor):
    """One vector per image from a teacher: its class token, or the mean of its patch tokens.

    FD-DINOv2 (Stein et al., arXiv 2306.04675) is the Frechet distance of the class tokens, after the final norm, of
    DINOv2 ViT-L/14 that sees images at 224 px. A teacher that a run was aligned to flatters that run: it is what the
    run was trained towards.
    """

    def __init__(self, teacher: TimmTeacher | EmbeddedTeacher, name: str, token: Token) -> None:
        self.network, self.name, self.token = teacher, name, token
        self.parts = {POOL: teacher.dim}
        self._device = next(teacher.parameters()).device
        # Where the weights lie says nothing of what they are.
        self._config = {"teacher": teacher.name, **teacher.config.model_dump(mode="json", exclude={"weights"})}
        if token == "mean":
            self._vectors = lambda images: teacher(images).mean(1)
        elif isinstance(teacher, TimmTeacher):
            self._vectors = teacher.class_token
        else:
            raise UserError(f"teacher {teacher.name} has no class token; use the mean of its patch tokens")

    @torch.no_grad()
    def __call__(self, images: UInt8[Tensor, "b c h w"]) -> dict[str, Float[Tensor, "b _"]]:
        return {POOL: self._vectors(images.to(self._device)).float().cpu()}

    def about(self) -> dict[str, Any]:
        return {**self._config, "token": self.token}


class ClassifierFeatures(FeatureExtractor):
    """The 64 raw penultimate features of the fixed classifier of small labelled sets."""

    name = "classifier"

    def __init__(self, network: Classifier) -> None:
        self.network, self._predict = network, network.predict
        self.parts = {POOL: network.head.in_features}

    def __call__(self, images: UInt8[Tensor, "b c h w"]) -> dict[str, Float[Tensor, "b _"]]:
        return {POOL: self._predict(images).features}

    def about(self) -> dict[str, Any]:
        return {"kind": self.name}
