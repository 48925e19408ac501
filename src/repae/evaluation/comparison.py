"""A set of images against a reference in the features of one network: every figure of that network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, get_args

from jaxtyping import Float, Int64
from torch import Tensor

from repae.config import UserError
from repae.evaluation.bootstrap import interval
from repae.evaluation.cache import FeatureCache, Features
from repae.evaluation.features import POOL, FeatureExtractor
from repae.evaluation.frechet import Gaussian, rank_warning
from repae.evaluation.images import ImageSet, check_same_size
from repae.evaluation.inception import LOGITS, SPATIAL, Inception
from repae.evaluation.manifold import copies, manifolds, nearest_images
from repae.evaluation.reference import Reference
from repae.evaluation.scores import inception_score, kernel_distance
from repae.evaluation.settings import ComparisonConfig, Metric

PER_DIMENSION = 10
"""Images for each dimension below which a Frechet distance is marked: it is too large by about dimensions / images."""

FEWEST = {"inception-score": 5_000, "kid": 1_000, "precision-recall": 1_000}
"""Images below which the other figures are marked."""

OWN_NAMES = {"fid": "fid", "sfid": "sfid", "kid": "kid", "inception-score": "inception_score"}
"""What figures in Inception features are called; in others a Frechet distance is `fd_NAME`, a kernel one `kd_NAME`."""

PARTS = {"sfid": SPATIAL, "inception-score": LOGITS}
"""Parts of the features that metrics are of, where that is not `POOL`."""

PAIRS = 20
"""Closest pairs of a generated and a real image that are kept with the figures."""


@dataclass
class Comparison:
    """What came out of one comparison.

    Attributes:
        figures: single numbers by name.
        intervals: 95%, of some of them, from the bootstrap.
        deviations: standard deviations over parts or subsets, where a figure is a mean over such.
        warnings: by figure, why it is not to be trusted as it stands.
        notes: what was left out and why.
        classes: one row for each class: numbers of images, `fd`, `precision`, `recall`.
        pairs: the closest pairs of a generated and a real image: `generated`, `real`, `distance`.
    """

    figures: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, list[float]] = field(default_factory=dict)
    deviations: dict[str, float] = field(default_factory=dict)
    warnings: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    classes: list[dict[str, Any]] = field(default_factory=list)
    pairs: list[dict[str, Any]] = field(default_factory=list)

    def put(self, result: dict[str, Any], network: str) -> None:
        """Into the figures of a whole evaluation; what is a table goes under the network's name."""
        result |= self.figures
        for kind in ("intervals", "deviations", "warnings"):
            result.setdefault(kind, {}).update(getattr(self, kind))
        for kind in ("classes", "pairs"):
            result.setdefault(kind, {})
            if rows := getattr(self, kind):
                result[kind][network] = rows
        result["notes"] += [note for note in self.notes if note not in result["notes"]]


class _Sides(NamedTuple):
    """Both sets as one network sees them; `real` has no part where only statistics are stored."""

    extractor: FeatureExtractor
    generated: Features
    real: Features
    reference: Reference
    config: ComparisonConfig


def compare_images(
    images: ImageSet, reference: Reference, extractor: FeatureExtractor, config: ComparisonConfig, cache: FeatureCache
) -> Comparison:
    """Every figure that the network and the reference allow, or those that `config.metrics` names.

    Raises:
        UserError: images of another size than the reference's, a named metric that cannot be had here, images that
            the network cannot take.
    """
    if reference.images is not None:
        check_same_size(images, reference.images)
    possible = {metric: _impossible(metric, extractor, reference, config) for metric in get_args(Metric)}
    for metric in config.metrics or ():
        if reason := possible[metric]:
            raise UserError(f"{metric} was asked for, but {reason}; leave it out of metrics")
    wanted = [m for m in get_args(Metric) if not possible[m] and (config.metrics is None or m in config.metrics)]
    real = {} if reference.images is None else cache.features(reference.images, extractor)
    sides = _Sides(extractor, cache.features(images, extractor), real, reference, config)
    out = Comparison()
    for metric in wanted:
        _METRICS[metric](out, sides)
    if config.metrics is None:
        # What belongs to networks of another family is not missed.
        own = {metric: reason for metric, reason in possible.items() if PARTS.get(metric, POOL) in extractor.parts}
        out.notes += [f"No {metric}: {reason}." for metric, reason in own.items() if reason]
    if reference.images is not None and config.metrics is None:
        _closest(out, sides)
        if images.labels is not None and reference.images.labels is not None:
            out.classes = per_class(
                sides.generated[POOL], images.labels, real[POOL], reference.images.labels, config.neighbours
            )
    return out


def figure_name(metric: str, extractor: str) -> str:
    """The key of a figure: `fid`, `sfid`, `kid`, `inception_score`, else `METRIC_EXTRACTOR`."""
    if extractor == Inception.name and metric in OWN_NAMES:
        return OWN_NAMES[metric]
    return f"{ {'fid': 'fd', 'kid': 'kd'}.get(metric, metric) }_{extractor}"


def per_class(
    generated: Float[Tensor, "n d"],
    labels: Int64[Tensor, " n"],
    real: Float[Tensor, "m d"],
    real_labels: Int64[Tensor, " m"],
    k: int,
) -> list[dict[str, Any]]:
    """Every class by itself: `fd`, `precision`, `recall` of its generated against its real images.

    A class with k images or fewer on a side has its numbers of images only. A class has few images, so its distances
    are too large (`rank_warning`); they rank the classes of one table and mean nothing beside other tables.
    """
    rows = []
    for label in sorted({*labels.tolist(), *real_labels.tolist()}):
        a, b = generated[labels == label], real[real_labels == label]
        row: dict[str, Any] = {"class": label, "generated": len(a), "real": len(b)}
        if min(len(a), len(b)) > max(k, 1):
            inside = manifolds(a, b, k)
            distance = Gaussian.fit(a).distance(Gaussian.fit(b))
            row |= {"fd": distance, "precision": inside.precision, "recall": inside.recall}
        rows.append(row)
    return rows


def _impossible(metric: str, extractor: FeatureExtractor, reference: Reference, config: ComparisonConfig) -> str | None:
    part = PARTS.get(metric, POOL)
    if part not in extractor.parts:
        return f"{extractor.name} features have no {part} part; it is a figure of Inception features"
    if metric == "inception-score" or reference.images is not None:
        return None
    if metric in ("kid", "precision-recall"):
        return f"the reference {reference.name} holds statistics and no images (arr_0)"
    if not isinstance(extractor, Inception):
        return f"the statistics in {reference.name} are of Inception features; give the reference's images (arr_0)"
    if not config.stored:
        return f"the reference {reference.name} holds no images (arr_0), and its statistics are not to be used"
    if part not in reference.statistics:
        return f"the reference {reference.name} has no {part} statistics (mu_s and sigma_s) and no images (arr_0)"
    return None


def _frechet(out: Comparison, sides: _Sides, part: str, metric: Metric) -> None:
    key = figure_name(metric, sides.extractor.name)
    features = sides.generated[part]
    # Stored statistics are of Inception's features, whatever other network is at hand.
    stored = sides.reference.statistics.get(part) if isinstance(sides.extractor, Inception) else None
    if stored is not None and sides.config.stored:
        # Stored statistics do not say how many images they are of.
        real, counts = Gaussian.of(*stored), [len(features)]
    else:
        real, counts = Gaussian.fit(sides.real[part]), [len(features), len(sides.real[part])]
    value = out.figures[key] = Gaussian.fit(features).distance(real)
    few, dim = min(counts), features.shape[1]
    if words := rank_warning(few, dim):
        out.warnings[key] = words
    elif few < PER_DIMENSION * dim:
        out.warnings[key] = f"{few:,} images; below {PER_DIMENSION * dim:,} the distance is too large"
    if sides.config.resamples > 1:
        out.intervals[key] = interval(
            lambda rows: Gaussian.fit(features[rows]).distance(real), value, len(features), sides.config.resamples
        )


def _score(out: Comparison, sides: _Sides) -> None:
    key = figure_name("inception-score", sides.extractor.name)
    out.figures[key], out.deviations[key] = inception_score(sides.generated[LOGITS], sides.config.part)
    _few(out, key, "inception-score", len(sides.generated[LOGITS]))


def _kernel(out: Comparison, sides: _Sides) -> None:
    key = figure_name("kid", sides.extractor.name)
    a, b = sides.generated[POOL], sides.real[POOL]
    smallest = min(len(a), len(b))
    # Smaller subsets rather than no figure: a warning says that it is rough.
    size = min(sides.config.subset, smallest)
    out.figures[key], out.deviations[key] = kernel_distance(a, b, sides.config.subsets, size)
    _few(out, key, "kid", smallest)


def _manifold(out: Comparison, sides: _Sides) -> None:
    inside = manifolds(sides.generated[POOL], sides.real[POOL], sides.config.neighbours)
    for name, value, flags in (
        ("precision", inside.precision, inside.generated),
        ("recall", inside.recall, inside.real),
    ):
        key = figure_name(name, sides.extractor.name)
        out.figures[key] = value
        _few(out, key, "precision-recall", min(map(len, inside)))
        if sides.config.resamples > 1:
            numbers = flags.double()
            out.intervals[key] = interval(
                lambda rows, numbers=numbers: float(numbers[rows].mean()), value, len(flags), sides.config.resamples
            )


def _closest(out: Comparison, sides: _Sides) -> None:
    near = nearest_images(sides.generated[POOL], sides.real[POOL])
    out.figures[figure_name("copies", sides.extractor.name)] = copies(near, sides.real[POOL])
    for i in near.distances[:, 0].argsort()[:PAIRS].tolist():
        real, distance = int(near.indices[i, 0]), float(near.distances[i, 0])
        out.pairs.append({"generated": i, "real": real, "distance": distance})


def _few(out: Comparison, key: str, metric: str, count: int) -> None:
    if count < FEWEST[metric]:
        out.warnings[key] = f"{count:,} images; below {FEWEST[metric]:,} the figure is rough"


_METRICS: dict[str, Callable[[Comparison, _Sides], None]] = {
    "fid": lambda out, sides: _frechet(out, sides, POOL, "fid"),
    "sfid": lambda out, sides: _frechet(out, sides, SPATIAL, "sfid"),
    "inception-score": _score,
    "kid": _kernel,
    "precision-recall": _manifold,
}
