"""All figures of a trained bundle on a small labelled image set, with the protocol that made them."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Int64, UInt8
from pydantic import Field
from torch import Tensor

from repae.config import Config
from repae.data import Dataset
from repae.evaluate.classifier import RESOLUTION, Judge, judge_for
from repae.evaluate.frechet import FLOOR_SPLITS, frechet_distance, frechet_floor
from repae.evaluate.neighbours import neighbour_figures
from repae.evaluate.reconstruction import fixed_pattern, psnr, ssim
from repae.flow import AnySampler, Euler, Guidance, LinearPath
from repae.flow import Path as FlowPath
from repae.prepare.statistics import evenly_spaced
from repae.runtime.precision import Precision
from repae.sample import Source, generate, labels_like

MOST_IMAGES = 20_000
FEWEST_PER_CLASS = 10
UNGUIDED = Guidance(scale=1.0, low=0.0, high=1.0)


class EvaluationConfig(Config):
    """How generated images and reconstructions are judged.

    `images`: unguided images for accuracy, Frechet distance and neighbours, and real ones for the reconstruction.
    `guided_images`, `guidance`: for the guided accuracy. `seed`: of the noise of generated images. `neighbours`: the k
    of precision, recall, density and coverage. `period`: side in pixels of the lattice that is searched.
    """

    images: int = Field(default=1797, ge=2)
    guided_images: int = Field(default=500, ge=1)
    sampler: AnySampler = Euler(steps=25)
    guidance: Guidance = Guidance(scale=2.0, low=0.0, high=0.85)
    seed: int = Field(default=0, ge=0)
    batch_size: int = Field(default=256, ge=1)
    neighbours: int = Field(default=5, ge=1)
    period: int = Field(default=4, ge=2)


@runtime_checkable
class Judged(Source, Protocol):
    """What is evaluated; `repae.models.bundle.Bundle` is one: a source of images that also gives images back."""

    @property
    def name(self) -> str: ...  # noqa: D102

    def reconstruct(self, images: Tensor) -> Tensor: ...  # noqa: D102


class Real(NamedTuple):
    """Real images in memory, 0..255, with their labels."""

    images: UInt8[Tensor, "n c h w"]
    labels: Int64[Tensor, " n"]


def evaluate(
    bundle: Judged,
    dataset: Dataset,
    settings: EvaluationConfig,
    *,
    precision: Precision,
    path: FlowPath = LinearPath(),  # noqa: B008 (immutable)
    cache: Path | None = None,
) -> dict[str, Any]:
    """Every figure that this data set allows, flat, with "notes" and "protocol" beside.

    Reconstruction, always: psnr, ssim, fixed_pattern. Where the classifier can judge (see `unjudgeable`):
    accuracy_guided, accuracy (share of generated images that it takes for the label they were made for), fd and
    fd_floor in its features, and the figures of `neighbour_figures` on pixels. Generated labels have the class shares
    of the data set.

    Args:
        bundle: what is judged, on `precision.device`, in evaluation mode.
        dataset: the real images.
        settings: numbers of images, sampler, guidance, seed.
        precision: of the network while sampling.
        path: the path that the model was trained on.
        cache: folder in which the classifier is kept; without one it is trained anew.
    """
    figures = reconstruction_figures(bundle, dataset, settings, precision)
    protocol = _protocol(bundle, dataset, settings, precision, path)
    reason = unjudgeable(dataset)
    if reason is not None:
        note = f"Only the reconstruction was evaluated, no generated image: {reason}."
        return {**figures, "notes": [note], "protocol": protocol}
    real = Real(*dataset.batch(torch.arange(len(dataset)))[:2])
    judge = judge_for(real.images, real.labels, dataset.num_classes, cache)
    generated = generation_figures(bundle, real, judge, settings, precision, path)
    protocol["classifier"] = {
        "digest": judge.digest,
        "weights": judge.weights,
        "held_out_accuracy": judge.held_out_accuracy,
    }
    notes = (
        [] if bundle.null_label is not None else ["The model has no null class: no image was generated with guidance."]
    )
    return {**generated, **figures, "notes": notes, "protocol": protocol}


def unjudgeable(dataset: Dataset) -> str | None:
    """Why the fixed classifier cannot judge images like these, in words; nothing if it can."""
    counts = torch.bincount(dataset.labels, minlength=dataset.num_classes)
    if dataset.resolution != RESOLUTION:
        return f"the classifier judges images of {RESOLUTION} px and these have {dataset.resolution}"
    if dataset.num_classes < 2:
        return "there is one class, so there is nothing to tell apart"
    if int(counts.min()) < FEWEST_PER_CLASS:
        scarce = dataset.class_names[int(counts.argmin())]
        return f"class {scarce!r} has {int(counts.min())} images and the classifier needs {FEWEST_PER_CLASS}"
    if len(dataset) > MOST_IMAGES:
        return f"{len(dataset)} images are too many for figures that compare all pairs (at most {MOST_IMAGES})"
    return None


def generation_figures(
    bundle: Judged, real: Real, judge: Judge, settings: EvaluationConfig, precision: Precision, path: FlowPath
) -> dict[str, float]:
    """Figures of generated images: guided accuracy, and everything else without guidance."""

    def drawn(count: int, guidance: Guidance) -> Real:
        labels = labels_like(real.labels, count)
        images = generate(
            bundle, labels, sampler=settings.sampler, path=path, precision=precision, guidance=guidance,
            seed=settings.seed, batch_size=settings.batch_size,
        )  # fmt: skip
        return Real(images, labels)

    figures = {}
    if bundle.null_label is not None:
        guided = drawn(settings.guided_images, settings.guidance)
        figures["accuracy_guided"] = _share(judge.network.judge(guided.images).classes == guided.labels)
    free = drawn(settings.images, UNGUIDED)
    of_free, of_real = judge.network.judge(free.images), judge.network.judge(real.images)
    return {
        **figures,
        "accuracy": _share(of_free.classes == free.labels),
        "fd": frechet_distance(of_free.features, of_real.features),
        "fd_floor": frechet_floor(of_real.features),
        **neighbour_figures(free.images, free.labels, real.images, real.labels, settings.neighbours),
    }


def reconstruction_figures(
    bundle: Judged, dataset: Dataset, settings: EvaluationConfig, precision: Precision
) -> dict[str, float]:
    """PSNR, SSIM and the fixed pattern of up to `settings.images` real images, spread evenly over the data set."""
    real, rebuilt = [], []
    for indices in evenly_spaced(dataset, settings.images).split(settings.batch_size):
        images = dataset.batch(indices).images
        with torch.no_grad():
            rebuilt.append(bundle.reconstruct(images.to(precision.device)).cpu())
        real.append(images)
    before, after = torch.cat(real), torch.cat(rebuilt)
    return {
        "psnr": psnr(before, after),
        "ssim": ssim(before, after),
        "fixed_pattern": fixed_pattern(before, after, settings.period),
    }


def _share(right: Tensor) -> float:
    return float(right.double().mean())


def _protocol(
    bundle: Judged, dataset: Dataset, settings: EvaluationConfig, precision: Precision, path: FlowPath
) -> dict[str, Any]:
    """What made the figures, in JSON."""
    return {
        "bundle": bundle.name,
        "images": settings.images,
        "guided_images": settings.guided_images,
        "sampler": settings.sampler.model_dump(mode="json"),
        "evaluations": settings.sampler.evaluations,
        "guidance": settings.guidance.model_dump(mode="json"),
        "path": path.model_dump(mode="json"),
        "seed": settings.seed,
        "labels": "class shares of the data set, in ascending order",
        "neighbours": settings.neighbours,
        "period": settings.period,
        "features": "raw penultimate features (64) of the classifier; all real images against all unguided ones",
        "fd_floor": f"one random half of the real images against the other, mean of {FLOOR_SPLITS} splits",
        "pixels": "neighbour figures on images pooled to 8 x 8, in [0, 1]",
        "psnr": "squared error averaged over all images; reconstruction from the posterior mean",
        "data": {
            "fingerprint": dataset.fingerprint,
            "images": len(dataset),
            "classes": list(dataset.class_names),
            "resolution": dataset.resolution,
        },
        "arithmetic": precision.name,
        "device": precision.device.type,
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in ("repae", "torch", "numpy", "scikit-learn", "scikit-image")},
        },
    }


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
