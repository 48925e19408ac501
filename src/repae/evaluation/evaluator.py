"""All figures of a trained bundle on the images it was trained on, with the protocol that made them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import UInt8
from torch import Tensor

from repae.data import Dataset
from repae.evaluation.cache import FeatureCache
from repae.evaluation.classifier import TrainedClassifier, classifier_for
from repae.evaluation.classifier_figures import LabelledImages, accuracy_by_class, classifier_figures, unclassifiable
from repae.evaluation.comparison import compare_images
from repae.evaluation.features import POOL, ClassifierFeatures, FeatureExtractor
from repae.evaluation.frechet import FLOOR_SPLITS
from repae.evaluation.images import ImagesInMemory, ImagesOfDataset
from repae.evaluation.latent_space import latent_figures
from repae.evaluation.perceptual import LpipsMeter
from repae.evaluation.protocol import versions
from repae.evaluation.reconstruction import fixed_pattern, psnr, ssim
from repae.evaluation.reference import Reference
from repae.evaluation.settings import EvaluationConfig
from repae.flow import UNGUIDED, Guidance, LinearPath
from repae.flow import Path as FlowPath
from repae.models.bundle import Bundle
from repae.preparation.statistics import evenly_spaced
from repae.runtime.precision import Precision
from repae.sampling import generate, labels_like

LABEL_RULE = "class shares of the data set, in ascending order"

LATENT_IMAGES = 2_000
"""Images whose latents are looked at, at most: alignment is a table of all pairs."""


class Networks(NamedTuple):
    """The networks at hand to measure with, besides the classifier, and what is `missing`, in words.

    Sets are compared in the features of the `extractors`; that called "teacher" also measures the latents.
    """

    extractors: Sequence[FeatureExtractor] = ()
    lpips: LpipsMeter | None = None
    missing: Sequence[str] = ()


@dataclass(frozen=True)
class Evaluator:
    """One evaluation: what is measured, on which images, how, and where features and the classifier are kept.

    `precision` is that of the network while sampling, `path` the one that the model was trained on. Features of images
    that are `passing`, because the weights that made them will have changed before anyone looks again, are not kept.
    """

    bundle: Bundle
    dataset: Dataset
    settings: EvaluationConfig
    precision: Precision
    path: FlowPath = field(default_factory=LinearPath)
    networks: Networks = field(default_factory=Networks)
    cache: Path | None = None
    passing: bool = False

    @cached_property
    def classifier(self) -> TrainedClassifier | None:
        if unclassifiable(self.dataset) is not None:
            return None
        real = self.real
        return classifier_for(real.images, real.labels, self.dataset.num_classes, self.cache)

    @cached_property
    def real(self) -> LabelledImages:
        """The whole data set, which is small where there is a classifier."""
        return LabelledImages(*self.dataset.batch(torch.arange(len(self.dataset)))[:2])

    @property
    def features(self) -> FeatureCache:
        return FeatureCache(self.cache, self.settings.batch_size)

    def draw(self, count: int, guidance: Guidance) -> LabelledImages:
        """Generated images with the labels they were made for, which have the class shares of the data set."""
        settings, labels = self.settings, labels_like(self.dataset.labels, count)
        images = generate(
            self.bundle, labels, sampler=settings.sampler, path=self.path, precision=self.precision,
            guidance=guidance, seed=settings.seed, batch_size=settings.batch_size,
        )  # fmt: skip
        return LabelledImages(images, labels)

    def reconstructed(self) -> tuple[UInt8[Tensor, "n c h w"], UInt8[Tensor, "n c h w"]]:
        """Real images, spread evenly over the data set, and what the autoencoder makes of them."""
        real, rebuilt = [], []
        for indices in evenly_spaced(self.dataset, self.settings.images).split(self.settings.batch_size):
            images = self.dataset.batch(indices).images
            with torch.no_grad():
                rebuilt.append(self.bundle.reconstruct(images.to(self.precision.device)).cpu())
            real.append(images)
        return torch.cat(real), torch.cat(rebuilt)

    def evaluate(self) -> dict[str, Any]:
        """Every figure that this data set and the networks at hand allow, flat; beside them, as far as there are any:

        "notes" (what was left out and why), "protocol", "intervals", "deviations" and "warnings" by figure, "classes"
        and "pairs" (the closest generated and real images; `real` is an index of the data set) by network, "latents".

        Reconstruction and latents, always. Where there is a classifier (`unclassifiable`), `classifier_figures`; for
        each network at hand its `Comparison` of unguided images with real ones, and `rfid` or `rfd_NAME` of
        reconstructions with the images they were made of. Of an autoencoder alone there are the figures of
        reconstruction and latents, and the protocol says nothing of sampling.
        """
        result: dict[str, Any] = {"notes": [], "protocol": self._protocol()}
        reason = unclassifiable(self.dataset)
        if not self.bundle.generates:
            result["notes"].append("An autoencoder alone: no image was generated.")
        elif reason is None or self.networks.extractors:
            self._generation(result)
        if reason is not None and self.bundle.generates:
            what = "Only the reconstruction was evaluated, no generated image"
            if self.networks.extractors:
                what = "No figure of the classifier"
            result["notes"].append(f"{what}: {reason}.")
        self._reconstruction(result)
        self._latents(result)
        result["notes"] += self.networks.missing
        return result

    def _generation(self, result: dict[str, Any]) -> None:
        settings, dataset, classifier = self.settings, self.dataset, self.classifier
        free = self.draw(settings.images, UNGUIDED)
        if self.bundle.null_label is None:
            result["notes"].append("The model has no null class: no image was generated with guidance.")
        if classifier is not None:
            guided = None if self.bundle.null_label is None else self.draw(settings.guided_images, settings.guidance)
            result |= classifier_figures(free, guided, self.real, classifier, settings.neighbours)
            result["protocol"]["classifier"] = classifier.facts()
        images = ImagesInMemory("generated images", *free, keep=not self.passing)
        indices = evenly_spaced(dataset, settings.reference_images)
        reference = Reference("the data set", ImagesOfDataset("the data set", dataset, indices))
        result["protocol"]["reference"] = reference.facts()
        for network in self.networks.extractors:
            found = compare_images(images, reference, network, settings.comparison, self.features)
            for pair in found.pairs:
                # From a place in the reference to an index of the data set, by which people find the image.
                pair["real"] = int(indices[pair["real"]])
            found.put(result, network.name)
        if classifier is not None:
            # Its Frechet distance is among the classifier's own figures already.
            only = settings.comparison.replace(metrics=("kid", "precision-recall"))
            network = ClassifierFeatures(classifier.network)
            compare_images(images, reference, network, only, self.features).put(result, network.name)
            result["classes"][network.name] = accuracy_by_class(free, classifier)

    def _reconstruction(self, result: dict[str, Any]) -> None:
        before, after = self.reconstructed()
        result |= {
            "psnr": psnr(before, after),
            "ssim": ssim(before, after),
            "fixed_pattern": fixed_pattern(before, after, self.settings.period),
        }
        if self.networks.lpips is not None:
            result["lpips"] = self.networks.lpips(before, after)
        # No interval: reconstructions come in pairs with the images, and the bootstrap draws one side only.
        only_frechet = self.settings.comparison.replace(metrics=("fid",), resamples=0)
        networks = list(self.networks.extractors)
        if self.classifier is not None:
            networks.append(ClassifierFeatures(self.classifier.network))
            result["protocol"]["classifier"] = self.classifier.facts()
        reference = Reference("real images", ImagesInMemory("real images", before))
        images = ImagesInMemory("reconstructions", after, keep=not self.passing)
        for network in networks:
            found = compare_images(images, reference, network, only_frechet, self.features)
            result |= {f"r{key}": value for key, value in found.figures.items()}
            result.setdefault("warnings", {}).update({f"r{key}": words for key, words in found.warnings.items()})

    def _latents(self, result: dict[str, Any]) -> None:
        """Latents of real images by the posterior's mean, normalised, beside the teacher's features of the same images.

        An autoencoder alone has no statistics: mean and deviation of its channels are told as they are, and taken out
        for the other figures, as a denoiser's training would.
        """
        indices = evenly_spaced(self.dataset, min(self.settings.images, LATENT_IMAGES))
        images = ImagesOfDataset("the data set", self.dataset, indices)
        teacher = next((network for network in self.networks.extractors if network.name == "teacher"), None)
        features = None if teacher is None else self.features.features(images, teacher)[POOL]
        parts, raw = [], {}
        for batch in images.batches(self.settings.batch_size):
            with torch.no_grad():
                parts.append(self.bundle.encode(batch.to(self.precision.device)).float().cpu())
        latents = torch.cat(parts)
        if not self.bundle.generates:
            mean, std = (getattr(latents.double(), of)((0, 2, 3), keepdim=True).float() for of in ("mean", "std"))
            raw = {"latent_mean": mean.flatten().tolist(), "latent_std": std.flatten().tolist()}
            latents = (latents - mean) / std.clamp_min(1e-6)
        figures = {**latent_figures(latents, self.dataset.labels[indices], features), **raw}
        result |= {key: value for key, value in figures.items() if isinstance(value, float)}
        by_channel = {key: value for key, value in figures.items() if not isinstance(value, float)}
        result["latents"] = {key.removeprefix("latent_"): value for key, value in by_channel.items()}
        result["latents"] |= {"normalised": self.bundle.generates, "images": len(indices)}

    def _protocol(self) -> dict[str, Any]:
        settings, dataset = self.settings, self.dataset
        networks = {network.name: network.facts() for network in self.networks.extractors}
        if self.networks.lpips is not None:
            networks["lpips"] = self.networks.lpips.facts()
        return {
            "bundle": self.bundle.name,
            "images": settings.images if self.bundle.generates else min(settings.images, len(dataset)),
            **(self._sampling() if self.bundle.generates else {}),
            "neighbours": settings.neighbours,
            "period": settings.period,
            "comparison": settings.comparison.model_dump(mode="json"),
            "networks": networks,
            "fd": "raw penultimate features (64) of the classifier; all real images against all unguided ones",
            "fd_floor": f"one random half of the real images against the other, mean of {FLOOR_SPLITS} splits",
            "pixels": "neighbour figures on images pooled to 8 x 8, in [0, 1]",
            "psnr": "squared error averaged over all images; reconstruction from the posterior mean",
            "data": {
                "fingerprint": dataset.fingerprint,
                "images": len(dataset),
                "classes": list(dataset.class_names),
                "resolution": dataset.resolution,
            },
            "arithmetic": self.precision.name,
            "device": self.precision.device.type,
            "versions": versions(),
        }

    def _sampling(self) -> dict[str, Any]:
        settings = self.settings
        return {
            "guided_images": settings.guided_images,
            "sampler": settings.sampler.model_dump(mode="json"),
            "evaluations": settings.sampler.evaluations,
            "guidance": settings.guidance.model_dump(mode="json"),
            "path": self.path.model_dump(mode="json"),
            "seed": settings.seed,
            "labels": LABEL_RULE,
        }
