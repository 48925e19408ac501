"""How long the figures of 50,000 images take from cached features, and how much longer with scipy's matrix root.

    python benchmarks/evaluate.py --images 50000 [--dim 2048] [--classes 1008] [--no-scipy] [--all]

Seconds of a busy machine say little: those of the CPU stand beside them, of all threads together. Random features of
Inception's sizes, read from files as `FeatureCache` maps them. FID: moments of both sets, factors of both
covariances, singular values of their product. The ratio is to numpy's covariances and scipy's `sqrtm`, the usual way.
`--all` adds KID and, which compares all pairs, precision and recall against 10,000 reference images.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy import linalg

from repae.evaluation import frechet_distance, inception_score, kernel_distance, manifolds

REFERENCE = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--classes", type=int, default=1008)
    parser.add_argument("--no-scipy", action="store_true")
    parser.add_argument("--all", action="store_true")
    arguments = parser.parse_args()
    seconds: dict[str, float] = {}
    cpu_seconds: dict[str, float] = {}

    def timed(name: str, work: Callable[[], float]) -> float:
        began, busy = time.perf_counter(), time.process_time()
        value = work()
        seconds[name] = round(time.perf_counter() - began, 2)
        cpu_seconds[name] = round(time.process_time() - busy, 2)
        return value

    with tempfile.TemporaryDirectory() as folder:
        # Every dimension has its own scale, so that the covariances have a spectrum.
        mixing = np.geomspace(1, 0.01, arguments.dim, dtype=np.float32)
        real, generated = (_kept(Path(folder), arguments.images, mixing, seed) for seed in (1, 2))
        logits = torch.randn(arguments.images, arguments.classes)
        fid = timed("fid", lambda: frechet_distance(generated, real))
        timed("inception_score", lambda: inception_score(logits).mean)
        report = {"images": arguments.images, "dim": arguments.dim, "threads": torch.get_num_threads()}
        if not arguments.no_scipy:
            expected = timed("fid_scipy", lambda: _by_scipy(generated.numpy(), real.numpy()))
            report |= {"ratio_to_scipy": round(seconds["fid_scipy"] / seconds["fid"], 2)}
            report |= {"relative_difference": abs(fid - expected) / expected}
        if arguments.all:
            timed("kid", lambda: kernel_distance(generated, real).mean)
            timed("precision_recall", lambda: manifolds(generated, real[:REFERENCE]).precision)
    fast = seconds["fid"] + seconds["inception_score"]
    report |= {"fid_and_is_seconds": round(fast, 2), "seconds": seconds, "cpu_seconds": cpu_seconds}
    print(json.dumps({**report, "cpu_cores": os.cpu_count(), "load": os.getloadavg()[0]}))


def _kept(folder: Path, images: int, mixing: np.ndarray, seed: int) -> torch.Tensor:
    """Features in a file, mapped."""
    draw = np.random.default_rng(seed)
    rows = np.lib.format.open_memmap(folder / f"{seed}.npy", "w+", np.float32, (images, len(mixing)))
    for first in range(0, images, 4096):
        part = rows[first : first + 4096]
        part[:] = draw.standard_normal(part.shape, np.float32) * mixing + 0.01 * seed
    return torch.from_numpy(rows)


def _by_scipy(a: np.ndarray, b: np.ndarray) -> float:
    """As pytorch-fid and ADM's evaluator do it."""
    (mean_a, cov_a), (mean_b, cov_b) = ((x.mean(0), np.cov(x, rowvar=False)) for x in (a, b))
    root = linalg.sqrtm(cov_a @ cov_b)
    return float(np.square(mean_a - mean_b).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * np.trace(root.real))


if __name__ == "__main__":
    main()
