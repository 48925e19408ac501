"""End points of the reference's samplers on the closed-form velocity of Gaussian data, with and without guidance."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from repae.flow import (
    CosinePath,
    Guidance,
    LinearPath,
    Network,
    Path,
    VelocityField,
    euler,
    euler_maruyama,
    guide,
    heun,
)

CASE = re.compile(
    r"(?P<path>linear|cosine)\.cfg(?P<scale>[\d.]+)_(?P<low>[\d.]+)_(?P<high>[\d.]+)"
    r"\.steps(?P<steps>\d+)\.(?P<sampler>\w+)"
)
TOLERANCE = 1e-6
"""Relative to the largest entry. The network runs in float32 as the reference's did: where the processor rounds alike
the end points agree to 4e-16, and a network in float64 is 7e-8 away."""


class Case(NamedTuple):
    name: str
    path: Path
    guidance: Guidance
    steps: int
    sampler: str


def cases(vectors: dict[str, Tensor]) -> list[Case]:
    found = []
    for name in vectors:
        if match := CASE.fullmatch(name):
            path = {"linear": LinearPath(), "cosine": CosinePath()}[match["path"]]
            guidance = Guidance(scale=float(match["scale"]), low=float(match["low"]), high=float(match["high"]))
            found.append(Case(name, path, guidance, int(match["steps"]), match["sampler"]))
    return found


def gaussian_network(kind: str, std: float, means: Tensor, null_label: int) -> Network:
    """The exact velocity of N(mean, std^2 I) in the arithmetic of its input.

    `means` holds one row for each row of the batch and, last, the one of the null label.
    """

    def network(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        t = t.view(-1, *[1] * (x.ndim - 1))
        if kind == "linear":
            alpha, sigma, d_alpha, d_sigma = 1 - t, t, -1.0, 1.0
        else:
            alpha, sigma = torch.cos(t * math.pi / 2), torch.sin(t * math.pi / 2)
            d_alpha, d_sigma = -math.pi / 2 * sigma, math.pi / 2 * alpha
        own = torch.arange(len(x)) % (len(means) - 1)
        rows = means[torch.where(y == null_label, len(means) - 1, own)]
        mean = rows.view(len(x), -1, *[1] * (x.ndim - 2)).to(x.dtype)
        variance = alpha**2 * std**2 + sigma**2
        slope = (alpha * d_alpha * std**2 + sigma * d_sigma) / variance
        return d_alpha * mean + slope * (x - alpha * mean)

    return network


def end_point(case: Case, field: VelocityField, x: Tensor, wiener: Tensor) -> Tensor:
    if case.sampler == "euler":
        return euler(field, x, case.steps)
    if case.sampler == "heun":
        return heun(field, x, case.steps)
    assert case.sampler == "euler_maruyama", f"no such sampler here: {case.name}"
    return euler_maruyama(field, x, case.steps, case.path, lambda index, like: wiener[index])


def test_samplers(load: Callable[[str], dict[str, Tensor]], manifest: dict[str, Any]) -> None:
    """Protects: grids, updates, guidance and its interval (Heun's corrector included), and the last random step."""
    vectors, settings = load("samplers"), manifest["samplers"]
    (wiener,) = (value for name, value in vectors.items() if name.startswith("wiener_noise"))
    null_label = settings["null_label"]
    todo = cases(vectors)
    assert todo, "the file holds no case"
    wrong = {}
    for case in todo:
        network = gaussian_network(case.name.split(".")[0], settings["sd"], vectors["class_means"], null_label)
        field = guide(network, vectors["labels"], null_label, case.guidance)
        expected = vectors[case.name]
        error = (end_point(case, field, vectors["latents"], wiener) - expected).abs().max() / expected.abs().max()
        if not error <= TOLERANCE:
            wrong[case.name] = error.item()
    assert not wrong
