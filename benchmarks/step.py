"""How fast a joint step is: images per second and peak memory of REPA-E at 256 px, with random weights and images.

    python benchmarks/step.py --size SiT-B/2 --vae f8d4 --batch 32 --steps 50 --precision bf16 [--compile]

Everything of a step is timed: teacher (a DINOv2-B/14 architecture with random weights), VAE, discriminator, SiT,
optimisers, averages. The perceptual term is off. Zero-initialised layers are randomised, or the backward pass would
multiply zeros. The first steps are warm-up; then blocks of ten steps, each closed by one synchronisation.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch

from repae.data.batch import Batch
from repae.losses.autoencoder import AutoencoderLossConfig
from repae.models.autoencoders import KLConfig
from repae.models.backbones import SiTBackbone
from repae.models.teachers.targets import OnlineTargets
from repae.models.teachers.timm import TimmTeacher, TimmTeacherConfig
from repae.runtime.device import pick_device
from repae.runtime.precision import Precision, enable_tf32
from repae.runtime.seeds import Share
from repae.training.build import StepBuilder, build_players
from repae.training.loop import LoopConfig
from repae.training.methods import RepaE
from repae.training.setup import TrainSetup

RESOLUTION, CLASSES, BLOCK, WARM_UP = 256, 1000, 10, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="SiT-B/2")
    parser.add_argument("--vae", default="f8d4", choices=["f8d4", "f16d32"])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--precision", default="bf16", choices=["fp32", "bf16", "fp16"])
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    device = pick_device(arguments.device)
    enable_tf32(True)
    precision = Precision(arguments.precision, device)
    torch.manual_seed(0)
    setup = TrainSetup(
        method=RepaE(),
        vae=KLConfig.preset(arguments.vae),
        backbone=SiTBackbone.preset(arguments.size),
        losses=AutoencoderLossConfig(perceptual_weight=0.0),
        loop=LoopConfig(steps=arguments.steps + WARM_UP, batch_size=arguments.batch),
    )
    teacher = TimmTeacher(TimmTeacherConfig(name="vit_base_patch14_dinov2.lvd142m"), load=False).to(device)
    targets = OnlineTargets([teacher], RESOLUTION)
    players = build_players(setup, resolution=RESOLUTION, image_channels=3, num_classes=CLASSES, targets=targets)
    assert players.denoiser is not None
    with torch.no_grad():
        for parameter in players.denoiser.parameters():
            if not parameter.any():
                parameter.normal_(std=0.02)
    step = setup.method.build(players, StepBuilder(setup, precision, device, arguments.compile))
    images = torch.randint(0, 256, (arguments.batch, 3, RESOLUTION, RESOLUTION), dtype=torch.uint8, device=device)
    labels = torch.randint(0, CLASSES, (arguments.batch,), device=device)
    batch = Batch(images, labels, torch.arange(arguments.batch, device=device))
    share = Share(0, 1, 0, 1)

    def synchronise() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def train(number: int) -> dict[str, torch.Tensor]:
        with precision.autocast():
            return step(batch, number, share)

    began = time.perf_counter()
    for number in range(WARM_UP):
        train(number)
    synchronise()
    warm_up = time.perf_counter() - began
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    rates, metrics = [], {}
    for block in range(arguments.steps // BLOCK):
        began = time.perf_counter()
        for number in range(BLOCK):
            metrics = train(WARM_UP + block * BLOCK + number)
        synchronise()
        rates.append(BLOCK * arguments.batch / (time.perf_counter() - began))
    report = {
        **vars(arguments),
        "torch": torch.__version__,
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "images_per_second": {"median": statistics.median(rates), "min": min(rates), "max": max(rates)},
        "peak_memory_gib": torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None,
        "warm_up_seconds": warm_up,
        "sit_loss": float(metrics["sit_loss"]),
        "vae_loss": float(metrics["vae_loss"]),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
