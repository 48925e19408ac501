"""Images made anywhere, measured against a reference: figures with their protocol, as JSON and as a table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt

from repae.config import UserError, read_yaml, write_atomic
from repae.config.options import read_options
from repae.evaluation import ComparisonConfig, FeatureCache, FeaturesConfig, compare_images, open_images, open_reference
from repae.evaluation.images import ImageSet, check_same_size
from repae.evaluation.protocol import versions
from repae.evaluation.settings import KINDS, InceptionConfig
from repae.runtime.device import pick_device


class ImagesEvaluation(ComparisonConfig):
    """Images made anywhere, compared with a reference in the features of one network.

    Attributes:
        images: a folder, or an npz file with `arr_0` [N, H, W, 3] uint8.
        reference: the same, or an npz file with `mu` and `sigma` (and `mu_s` and `sigma_s`), ADM's layout.
        resolution: cut the centre of every image of a folder to this size, as ADM does; none takes them as they are.
        features: the network.
        batch_size: images at a time; it changes the memory needed and nothing else.
        device: where the network computes.
        cache: folder in which features are kept.
        out: the JSON file for figures and protocol; none puts it beside the images.
    """

    images: str = Field(min_length=1)
    reference: str = Field(min_length=1)
    resolution: PositiveInt | None = None
    features: FeaturesConfig = InceptionConfig()
    batch_size: PositiveInt = 64
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    cache: str = Field(default="runs/cache", min_length=1)
    out: str | None = Field(default=None, min_length=1)


def images_evaluation(options: Mapping[str, str | None]) -> ImagesEvaluation:
    for name, what in (("images", "the images to measure"), ("reference", "the images or statistics to compare with")):
        if not options.get(name):
            raise UserError(f"--{name} is missing: {what}, a folder or an npz file")
    named = {"features.kind" if name == "features" and text in KINDS else name: text for name, text in options.items()}
    base = ImagesEvaluation(images=str(options["images"]), reference=str(options["reference"]))
    return base.replace(**read_options(ImagesEvaluation, named))


def evaluate_images(settings: ImagesEvaluation) -> tuple[dict[str, Any], Path]:
    """Compares images with a reference; the figures, as in ``evaluation.json`` of a run, and the file they are in."""
    images = open_images(settings.images, settings.resolution)
    reference = open_reference(settings.reference, settings.resolution)
    if reference.images is not None:
        check_same_size(images, reference.images)
    network = settings.features.open(pick_device(settings.device))
    cache = FeatureCache(Path(settings.cache), settings.batch_size)
    result: dict[str, Any] = {
        "notes": [],
        "protocol": {
            "name": images.name,
            "images": len(images),
            "images_from": images.facts(),
            "made": made(settings, images),
            "reference": reference.facts(),
            "networks": {network.name: network.facts()},
            "comparison": settings.model_dump(mode="json", include=set(ComparisonConfig.model_fields)),
            "resolution": settings.resolution,
            "device": settings.device,
            "versions": versions(),
        },
    }
    compare_images(images, reference, network, settings, cache).put(result, network.name)
    if reference.images is None:
        result["notes"].append("The reference stores statistics only: nobody can check that its images have this size.")
    source = Path(settings.images).expanduser()
    beside = source / "evaluation.json" if source.is_dir() else source.with_suffix(".evaluation.json")
    path = Path(settings.out) if settings.out else beside
    write_atomic(path, json.dumps(result, indent=2) + "\n")
    return result, path


def made(settings: ImagesEvaluation, images: ImageSet) -> dict[str, Any]:
    """How the images were made: labels, sampler, steps, guidance, weights, from the manifest that lies with them.

    ``manifest.json`` of a folder, ``NAME.json`` beside ``NAME.npz``; without one the protocol says that nobody said.
    """
    path = Path(settings.images).expanduser()
    manifest = path / "manifest.json" if path.is_dir() else path.with_suffix(".json")
    if not manifest.is_file():
        counts = None if images.labels is None else images.labels.bincount()
        spread = None if counts is None else [int(counts.min()), int(counts.max())]
        return {"manifest": None, "images_per_class": spread}
    try:
        return {"manifest": read_yaml(manifest)}  # every JSON is YAML
    except UserError as error:
        raise UserError(f"{error}; it should say how the images were made: repair or remove it") from None
