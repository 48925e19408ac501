"""Figures that tell a teacher worth aligning to from one whose tokens say little."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

_WORDS = {
    "random_cosine": "cosine of two tokens of different images",
    "position_share": "share of token variance that is the place in the image",
    "image_share": "share of token variance that is the image as a whole",
    "label_cosine": "cosine reached from class and place alone",
    "probe_accuracy": "accuracy of a linear probe on mean tokens, held-out fifth",
    "neighbour_accuracy": "accuracy of the nearest other mean token",
}


@torch.no_grad()
def degeneracy(
    tokens: Float[Tensor, "n l d"], labels: Int64[Tensor, " n"], centre: Float[Tensor, "l d"] | None = None
) -> dict[str, float]:
    """Measure the tokens that a denoiser is to be aligned to; a few thousand images are plenty.

    The labels serve these figures only. They are computed on the CPU in float32, with one fixed split.

    ``centre`` is what has been subtracted from the tokens at each place, if anything has.

    Returns:
        ``random_cosine``: mean cosine of two tokens of different images at any places; 1 is a teacher that says the
        same of everything. ``position_share`` and ``image_share``: how much of the token variance remains when tokens
        are averaged over the images, or over the places. ``label_cosine``: mean cosine of a token with the mean token
        of its class and place, which a denoiser that is given the label can learn without looking at the latent.
        ``probe_accuracy``: of a logistic regression on mean tokens, trained on 80% of the images and measured on the
        rest. ``neighbour_accuracy``: how often the image with the most similar mean token has the same class. With
        ``centre``, the first three also as ``..._raw``, before the subtraction. A figure that cannot be computed
        (one class only, a single image, tokens that are all equal) is NaN.
    """
    tokens, labels = tokens.detach().float().cpu(), labels.cpu()
    figures = _spread(tokens)
    if centre is not None:
        figures |= {f"{name}_raw": value for name, value in _spread(tokens + centre.float().cpu()).items()}
    means = tokens.mean(1)
    return figures | {
        "label_cosine": _label_cosine(tokens, labels),
        "probe_accuracy": linear_probe(means, labels),
        "neighbour_accuracy": _neighbours(means, labels),
    }


def describe(figures: Mapping[str, float]) -> str:
    """The figures as a short table in words, one line each; those before centring in brackets."""
    width = max(len(words) for words in _WORDS.values())
    lines = []
    for name, words in _WORDS.items():
        raw = f"  ({_text(figures[f'{name}_raw'])} before centring)" if f"{name}_raw" in figures else ""
        lines.append(f"{words:<{width}}  {_text(figures[name])}{raw}")
    return "\n".join(lines)


def _text(value: float) -> str:
    return "not known" if math.isnan(value) else f"{value + 0.0:.3f}"


def _spread(tokens: Float[Tensor, "n l d"]) -> dict[str, float]:
    """How alike tokens are, and what their variance is made of."""
    images, places, _ = tokens.shape
    units = F.normalize(tokens, dim=-1).double()
    by_image = units.sum(1)
    # The mean over all pairs of tokens from different images, from sums alone.
    pairs = (images**2 - images) * places**2
    cosine = (by_image.sum(0).square().sum() - by_image.square().sum()) / pairs if pairs else math.nan
    mean = tokens.mean((0, 1))
    total = (tokens - mean).square().sum(-1).mean()
    return {
        "random_cosine": float(cosine),
        "position_share": float((tokens.mean(0) - mean).square().sum(-1).mean() / total),
        "image_share": float((tokens.mean(1) - mean).square().sum(-1).mean() / total),
    }


def _label_cosine(tokens: Float[Tensor, "n l d"], labels: Int64[Tensor, " n"]) -> float:
    return float(F.cosine_similarity(tokens, class_means(tokens, labels)[labels], dim=-1).mean())


def class_means(tokens: Float[Tensor, "n l d"], labels: Int64[Tensor, " n"]) -> Float[Tensor, "k l d"]:
    """Mean token of every class at every place, for classes 0 to the largest label; 0 for a class without images."""
    classes = int(labels.max()) + 1
    sums = tokens.new_zeros(classes, *tokens.shape[1:]).index_add_(0, labels, tokens)
    counts = torch.bincount(labels, minlength=classes).clamp(min=1)
    return sums / counts[:, None, None]


def linear_probe(means: Float[Tensor, "n d"], labels: Int64[Tensor, " n"]) -> float:
    """Accuracy of a logistic regression on standardised rows, trained on four fifths, tested on the rest; NaN if none.

    The split is fixed. With one class, or no row to measure, there is no accuracy.
    """
    from sklearn.linear_model import LogisticRegression

    order = torch.randperm(len(means), generator=torch.Generator().manual_seed(0))
    seen, unseen = order[: len(order) * 4 // 5], order[len(order) * 4 // 5 :]
    if len(labels[seen].unique()) < 2 or not len(unseen):
        return math.nan
    # By the training part alone, so that nothing of the held-out fifth leaks into the probe.
    features = (means - means[seen].mean(0)) / means[seen].std(0).clamp(min=1e-6)
    probe = LogisticRegression(max_iter=1000).fit(features[seen].numpy(), labels[seen].numpy())
    return float(probe.score(features[unseen].numpy(), labels[unseen].numpy()))


def _neighbours(means: Float[Tensor, "n d"], labels: Int64[Tensor, " n"]) -> float:
    if len(means) < 2:
        return math.nan
    units = F.normalize(means, dim=-1)
    hits = 0
    for first in range(0, len(units), 1024):
        similar = units[first : first + 1024] @ units.T
        rows = torch.arange(len(similar))
        # An image is its own nearest neighbour.
        similar[rows, rows + first] = -math.inf
        hits += int((labels[similar.argmax(1)] == labels[rows + first]).sum())
    return hits / len(units)
