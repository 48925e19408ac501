"""What sampling costs beside the network, and what writing beside the sampler is worth against a plain loop.

    python benchmarks/sample.py                                                the demo's networks, random weights
    python benchmarks/sample.py --network SiT-XL/2 --precision bf16            256 px, on a GPU
    python benchmarks/sample.py --network sleep --velocity-ms 35               a network of known cost

`overhead` is the share of the time in which the network (velocity and decoder) does not compute: noise, sampler,
copies, hand-over, writing of the last batch. On a GPU the network's time is measured there, by events; elsewhere it is
the sampling thread's processor time inside and outside of it, which other programs do not stretch. The sleeping network
makes images of 256 px, and nothing overlaps with it. The plain loop draws the same images and saves PNG files one by
one, with Pillow's defaults, before it draws on. Files go to a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image

from repae.flow import AnySampler, Euler, EulerMaruyama, Guidance, LinearPath
from repae.models.autoencoders import KLConfig
from repae.models.backbones import SiTBackbone
from repae.models.bundle import Bundle
from repae.models.teachers.targets import NoTargets
from repae.recipes.catalogue import find
from repae.runtime.device import pick_device
from repae.runtime.distributed import World
from repae.runtime.precision import Precision, enable_tf32
from repae.sampling import NpzOutput, Output, PngOutput, ShardOutput, draw, generate, missing_batches
from repae.training.build import build_players
from repae.training.methods import RepaE
from repae.training.setup import TrainSetup

RESOLUTION, CLASSES = 256, 1000
FORMATS: dict[str, type[Output]] = {"npz": NpzOutput, "shards": ShardOutput, "png": PngOutput}


class Sleeping:
    """A network of known cost: so many seconds for an evaluation of a whole batch, and for decoding one."""

    latent_shape = (4, RESOLUTION // 8, RESOLUTION // 8)
    null_label = CLASSES

    def __init__(self, velocity: float, decode: float) -> None:
        self.costs = velocity, decode

    def velocity(self, x, t, y):
        time.sleep(self.costs[0])
        return x

    def decode(self, x):
        time.sleep(self.costs[1])
        pixels = torch.nn.functional.interpolate(x[:, :3].float(), scale_factor=8, mode="bilinear")
        return (pixels * 40 + 128).clamp(0, 255).to(torch.uint8)


class Timed:
    """A source that measures its own time: by events on a GPU, else the processor's and what it slept."""

    def __init__(self, source, device: torch.device) -> None:
        self.source, self.device = source, device
        self.latent_shape, self.null_label = source.latent_shape, source.null_label
        self.asleep = getattr(source, "costs", (0.0, 0.0))
        self.reset()

    def reset(self):
        self.events, self.computed, self.slept = [], 0.0, 0.0

    def velocity(self, x, t, y):
        self.slept += self.asleep[0]
        return self._timed(self.source.velocity, x, t, y)

    def decode(self, x):
        self.slept += self.asleep[1]
        return self._timed(self.source.decode, x)

    def _timed(self, function, *arguments):
        if self.device.type == "cuda":
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            result = function(*arguments)
            end.record()
            self.events.append((begin, end))
            return result
        began = time.thread_time()
        result = function(*arguments)
        self.computed += time.thread_time() - began
        return result

    def overhead(self, wall: float, computed: float) -> float:
        """The share of the time outside, of `wall` seconds in which this thread computed for `computed` seconds."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            return 1 - sum(begin.elapsed_time(end) for begin, end in self.events) / 1000 / wall
        return (computed - self.computed) / (computed + self.slept)


def network(arguments: argparse.Namespace, device: torch.device) -> Timed:
    if arguments.network == "sleep":
        return Timed(Sleeping(arguments.velocity_ms / 1000, arguments.decode_ms / 1000), device)
    torch.manual_seed(0)
    setup, resolution, channels, classes = find("digits"), 32, 1, 10
    if arguments.network != "digits":
        backbone = SiTBackbone.preset(arguments.network)
        setup = TrainSetup(method=RepaE(), vae=KLConfig.preset("f8d4"), backbone=backbone)
        resolution, channels, classes = RESOLUTION, 3, CLASSES
    players = build_players(
        setup, resolution=resolution, image_channels=channels, num_classes=classes, targets=NoTargets()
    )
    bundle = Bundle("live", players.denoiser, players.vae, players.latent_norm)
    for part in (bundle.denoiser, bundle.vae, bundle.latent_norm):
        part.to(device).eval().requires_grad_(False)
    return Timed(bundle, device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="digits", help="digits, a size such as SiT-B/2, or sleep")
    parser.add_argument("--velocity-ms", type=float, default=35.0)
    parser.add_argument("--decode-ms", type=float, default=250.0)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--sampler", default="euler", choices=["euler", "euler-maruyama"])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--format", default="npz", choices=list(FORMATS))
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "fp16"])
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    device = pick_device("cpu" if arguments.network == "sleep" else arguments.device)
    enable_tf32(True)
    sampler: AnySampler = {"euler": Euler, "euler-maruyama": EulerMaruyama}[arguments.sampler](steps=arguments.steps)
    settings = {
        "sampler": sampler,
        "path": LinearPath(),
        "precision": Precision(arguments.precision, device),
        "guidance": Guidance(scale=arguments.scale, low=0.0, high=1.0),
    }
    source = network(arguments, device)
    labels = torch.arange(arguments.batch * arguments.batches) % 10
    generate(source, labels[: arguments.batch], **{**settings, "sampler": sampler.replace(steps=2)})  # warm-up
    with tempfile.TemporaryDirectory() as name:
        source.reset()
        began, computed = time.perf_counter(), time.thread_time()
        output = FORMATS[arguments.format](Path(name, "ours"), len(labels))
        batches = missing_batches(range(len(labels)), [], arguments.batch, World(0, 1, 0))
        draw(source, labels, batches, output, **settings)
        drawn = time.perf_counter() - began
        overhead = source.overhead(drawn, time.thread_time() - computed)
        output.finish(labels.numpy())
        whole = time.perf_counter() - began
        began = time.perf_counter()
        for numbers in batches:
            images = generate(source, labels[numbers.start : numbers.stop], first=numbers.start, **settings)
            for number, image in zip(numbers, images.permute(0, 2, 3, 1).numpy()):
                Image.fromarray(image.squeeze()).save(Path(name, f"{number:06d}.png"))
        plain = time.perf_counter() - began
    report = {
        **vars(arguments),
        "torch": torch.__version__,
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "overhead": overhead,
        "finish_seconds": whole - drawn,
        "images_per_second": {"ours": len(labels) / whole, "plain": len(labels) / plain},
        "ratio": plain / whole,
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
