from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from repae.sampling import grid, pairs, write_png
from repae.track import JsonlTracker

RECIPE = """\
name: digits
about: REPA-E on <scanned> digits & a small VAE.
seed: 3
method: {kind: repa-e}
loop: {steps: 1000, batch_size: 64}
losses: {discriminator_weight: 0.0}
teachers: [{kind: embedded}]
class_mean_targets: false
preview: {sampler: {kind: euler, steps: 50}, guidance: {scale: 2.0}}
"""

EVALUATION = {
    "accuracy_guided": 0.994, "accuracy": 0.915, "fd": 8.91, "fd_floor": 2.97, "nn_accuracy": 0.9,
    "nn_accuracy_real": 0.988, "precision": 0.44, "recall": 0.5, "density": 0.4, "coverage": 0.35,
    "nn_distance": 0.9, "nn_distance_real": 0.78,
    "copies": 0.01, "psnr": 39.7, "ssim": 0.987, "fixed_pattern": 0.0002, "bits_per_dim": 1.5, "notes": [],
    "latents": {"mean": [0.01, -0.02, 0.0], "std": [1.01, 0.98, 1.2], "spectrum": [0.6, 0.3, 0.1], "images": 1797},
    "protocol": {
        "bundle": "ema", "images": 1797, "guided_images": 500, "sampler": {"kind": "euler", "steps": 25},
        "guidance": {"scale": 2.0, "low": 0.0, "high": 0.85}, "seed": 0,
        "classifier": {"digest": "62759d9eb1ff", "held_out_accuracy": 0.9944}, "versions": {"torch": "2.15"},
    },
}  # fmt: skip

TEACHER = {
    "name": "embedded", "steps": 200, "seconds": 46.0, "random_cosine": 0.0, "random_cosine_raw": 0.19,
    "position_share": 0.0, "position_share_raw": 0.21, "image_share": 0.8, "label_cosine": 0.865,
    "probe_accuracy": math.nan, "neighbour_accuracy": 0.986,
}  # fmt: skip

GALLERY = {
    "bundle": "ema", "step": 1000,
    "pictures": [
        {"file": "scales.png", "title": "Across <scales>", "caption": "Sampler euler, 25 steps, weights 'ema'."},
        {"file": "../../secret.png", "title": "Elsewhere", "caption": ""},
    ],
    "notes": ["Nothing across checkpoints: fewer than two are there."],
}  # fmt: skip


def fill(folder, steps=1000):
    """A run's folder as training leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "environment.json").write_text(
        json.dumps({"device": "cpu", "versions": {"torch": "2.15"}, "commit": None})
    )
    (folder / "evaluation.json").write_text(json.dumps(EVALUATION))
    (folder / "teacher.json").write_text(json.dumps([TEACHER]))
    tracker, random = JsonlTracker(folder / "metrics.jsonl"), np.random.default_rng(0)
    for step in range(10, steps + 1, 10):
        falling, noise = math.exp(-step / 200), 1 + 0.05 * random.standard_normal()
        row = {
            "sit_loss": 0.5 + falling * noise, "denoising_loss": 0.7 + 0.8 * falling * noise,
            "proj_loss": -0.6 + 0.6 * falling, "vae_loss": 0.05 + falling,
            "reconstruction_loss": 0.02 * noise + 0.3 * falling, "perceptual_loss": 0.0,
            "kl_loss": 5e-4 * noise, "vae_align_loss": -0.8 + 0.8 * falling, "gan_loss": 0.0, "d_loss": 0.0,
            "grad_norm_sit": 0.6 * noise, "grad_norm_vae": math.inf if step == 500 else 0.4 * noise,
            "latent_std": 1 + step / 600, "latent_std_max": 1.2 + step / 500,
            "epoch": float(step * 64 // 1797), "extra": 2.0,
        }  # fmt: skip
        tracker.log(step, row, {"time": 1.7e9 + step, "seconds": step * 0.2, "images_per_second": 320 * noise})
    digits = torch.randint(256, (20, 1, 32, 32), dtype=torch.uint8)
    write_png(folder / "samples" / "grid.png", grid(digits, 10))
    write_png(folder / "samples" / "reconstructions.png", pairs(digits, digits, 10))
    write_png(folder / "samples" / "gallery" / "scales.png", grid(digits, 10))
    (folder / "samples" / "gallery" / "gallery.json").write_text(json.dumps(GALLERY))
    for step in range(100, steps + 1, 100):
        write_png(folder / "samples" / f"step-{step:07d}.png", grid(digits, 10))
    return folder


@pytest.fixture(scope="session")
def filled(tmp_path_factory):
    return fill(tmp_path_factory.mktemp("filled"))


@pytest.fixture
def run(filled, tmp_path):
    """A folder of its own for each test, which may damage it."""
    return Path(shutil.copytree(filled, tmp_path / "runs" / "digits"))
