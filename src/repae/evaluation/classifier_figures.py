"""What the fixed classifier and the pixels say of generated images of a small labelled set."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from repae.data import Dataset
from repae.evaluation.classifier import RESOLUTION, TrainedClassifier
from repae.evaluation.frechet import frechet_distance, frechet_floor
from repae.evaluation.neighbours import neighbour_figures

MOST_IMAGES = 20_000
FEWEST_PER_CLASS = 10


class LabelledImages(NamedTuple):
    """Images 0..255 with their labels, or those that they were made for."""

    images: UInt8[Tensor, "n c h w"]
    labels: Int64[Tensor, " n"]


def unclassifiable(dataset: Dataset) -> str | None:
    """Why the fixed classifier cannot measure images like these, in words; None if it can."""
    counts = torch.bincount(dataset.labels, minlength=dataset.num_classes)
    if dataset.resolution != RESOLUTION:
        return f"the classifier takes images of {RESOLUTION} px and these have {dataset.resolution}"
    if dataset.num_classes < 2:
        return "there is one class, so there is nothing to tell apart"
    if int(counts.min()) < FEWEST_PER_CLASS:
        scarce = dataset.class_names[int(counts.argmin())]
        return f"class {scarce!r} has {int(counts.min())} images and the classifier needs {FEWEST_PER_CLASS}"
    if len(dataset) > MOST_IMAGES:
        return f"{len(dataset)} images are too many for figures that compare all pairs (at most {MOST_IMAGES})"
    return None


def classifier_figures(
    free: LabelledImages,
    guided: LabelledImages | None,
    real: LabelledImages,
    classifier: TrainedClassifier,
    neighbours: int,
) -> dict[str, float]:
    """Guided accuracy, where guided images were drawn, and everything else of images drawn without guidance.

    accuracy_guided, accuracy (share of generated images that the classifier takes for the label they were made for),
    fd and fd_floor in its features, and the figures of `neighbour_figures` on pixels.
    """
    figures = {} if guided is None else {"accuracy_guided": _share(_right(guided, classifier))}
    of_free, of_real = classifier.network.predict(free.images), classifier.network.predict(real.images)
    return {
        **figures,
        "accuracy": _share(of_free.classes == free.labels),
        "fd": frechet_distance(of_free.features, of_real.features),
        "fd_floor": frechet_floor(of_real.features),
        **neighbour_figures(free.images, free.labels, real.images, real.labels, neighbours),
    }


def accuracy_by_class(free: LabelledImages, classifier: TrainedClassifier) -> list[dict[str, Any]]:
    """For each class that was drawn: its number of images and the share that the classifier takes for it."""
    right, rows = _right(free, classifier), []
    for label in free.labels.unique().tolist():
        of_class = right[free.labels == label]
        rows.append({"class": label, "generated": len(of_class), "accuracy": _share(of_class)})
    return rows


def _right(drawn: LabelledImages, classifier: TrainedClassifier) -> Tensor:
    return classifier.network.predict(drawn.images).classes == drawn.labels


def _share(right: Tensor) -> float:
    return float(right.double().mean())
