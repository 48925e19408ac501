"""How fast images are prepared and read: ratios against a plain loop, interleaved in one run.

    python benchmarks/data.py [--images 1000] [--workers 2] [--rounds 5] [--json FILE]

Preparation: `repae prepare` as a whole (listing, decoding, cropping, writing, checksums, manifest, contact sheet)
against a loop with Pillow that decodes, crops (ADM) and writes PNG at compress_level 0, in as many processes.
The JPEGs are made here: 1/f content, 0.37 megapixel and about 120 kB on average. Pixels are compared.

Reading: batches of 64 in random order on one core, from prepared shards against PNGs in an HDF5 file, the layout of
the reference. All files are in the page cache.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing as mp
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import torch
from PIL import Image

from repae.data import FolderConfig, ShardsConfig
from repae.data.shard_folder import ShardFolder
from repae.preparation.images import PrepareConfig, prepare

RESOLUTION, BATCH, DISTINCT, CLASSES = 256, 64, 200, 10
SIZES = ((500, 375), (375, 500), (640, 480), (480, 640), (800, 600), (600, 800), (1024, 768), (640, 480), (600, 450),
         (750, 500))  # fmt: skip
QUALITY = 86


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = make_photos(folder / "photos", arguments.images)
        report = {
            "images": arguments.images,
            "workers": arguments.workers,
            "cores": os.cpu_count(),
            "source": describe(source),
            "prepare": time_preparation(source, folder, arguments.workers, arguments.rounds),
            "read": time_reading(folder, arguments.rounds),
        }
    show(report)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


# The photographs


def make_photos(root: Path, count: int) -> Path:
    """JPEGs in class folders; a few distinct ones many times, as separate files."""
    encoded = [photo(number, *SIZES[number % len(SIZES)]) for number in range(min(count, DISTINCT))]
    for number in range(count):
        path = root / f"class-{number % CLASSES}" / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded[number % len(encoded)])
    return root


def photo(seed: int, width: int, height: int) -> bytes:
    """A picture whose spectrum falls as that of photographs does, a little steeper than 1/f."""
    random = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1
    spectrum = np.fft.rfft2(random.standard_normal((3, height, width))) / frequency**1.3
    planes = np.fft.irfft2(spectrum, s=(height, width))
    planes = planes / planes.std((1, 2), keepdims=True)
    grey = planes.mean(0) * 3**0.5
    pixels = np.stack([0.9 * grey + 0.3 * plane for plane in planes], -1) * 48 + 120
    out = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(out, "JPEG", quality=QUALITY)
    return out.getvalue()


def describe(source: Path) -> dict[str, float]:
    paths = sorted(source.rglob("*.jpg"))
    pixels = [width * height for width, height in (Image.open(path).size for path in paths)]
    return {
        "mean_kilobytes": statistics.mean(path.stat().st_size for path in paths) / 1e3,
        "mean_megapixels": statistics.mean(pixels) / 1e6,
    }


# Preparation


def time_preparation(source: Path, folder: Path, workers: int, rounds: int) -> dict[str, object]:
    """Seconds of both, in turns, and whether they made the same pixels."""
    config = PrepareConfig(resolution=RESOLUTION, workers=workers)
    paths = sorted(source.rglob("*.jpg"))
    seconds: dict[str, list[float]] = {"pillow": [], "repae": []}
    cpu: dict[str, list[float]] = {"pillow": [], "repae": []}
    stderr, sys.stderr = sys.stderr, io.StringIO()
    for _ in range(rounds):
        for name, work in (
            ("pillow", lambda: pillow(paths, folder / "pillow", workers)),
            ("repae", lambda: prepare(FolderConfig(path=str(source)), folder / "repae", config, say=lambda _: None)),
        ):
            shutil.rmtree(folder / name, ignore_errors=True)
            began, used = time.perf_counter(), sum(os.times()[:4])
            work()
            seconds[name].append(time.perf_counter() - began)
            cpu[name].append(sum(os.times()[:4]) - used)
    sys.stderr = stderr
    ratios = [one / other for one, other in zip(seconds["pillow"], seconds["repae"])]
    shards, different = ShardFolder(folder / "repae", "images"), 0
    for index in range(len(paths)):
        expected = np.asarray(Image.open(folder / "pillow" / f"{index}.png")).transpose(2, 0, 1)
        different += not (shards.rows("images", [index])[0].numpy() == expected).all()
    rates = {name: [len(paths) / value for value in values] for name, values in seconds.items()}
    of_cpu = statistics.median(one / other for one, other in zip(cpu["pillow"], cpu["repae"]))
    return {
        "images_per_second": rates,
        "ratios": ratios,
        "median": statistics.median(ratios),
        "cpu_milliseconds_per_image": {name: [1e3 * t / len(paths) for t in times] for name, times in cpu.items()},
        "cpu_median": of_cpu,
        "different": different,
    }


def pillow(paths: list[Path], out: Path, workers: int) -> None:
    """What a person would write: each process takes every n-th file."""
    out.mkdir()
    context = mp.get_context("fork")
    processes = [context.Process(target=_pillow, args=(paths, out, worker, workers)) for worker in range(workers)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0


def _pillow(paths: list[Path], out: Path, worker: int, workers: int) -> None:
    for index in range(worker, len(paths), workers):
        with Image.open(paths[index]) as image:
            pixels = crop(image.convert("RGB"), RESOLUTION)
        Image.fromarray(pixels).save(out / f"{index}.png", compress_level=0)


def crop(image: Image.Image, size: int) -> np.ndarray:
    """ADM's centre crop (arXiv 2105.05233), written plainly."""
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    pixels = np.array(image)
    top, left = (pixels.shape[0] - size) // 2, (pixels.shape[1] - size) // 2
    return pixels[top : top + size, left : left + size]


# Reading


def time_reading(folder: Path, rounds: int) -> dict[str, object]:
    """Images per second of both, in turns, each in a random order of its own."""
    data = ShardsConfig(path=str(folder / "repae")).open()
    path = folder / "images.h5"
    with h5py.File(path, "w") as file:
        for index in range(len(data)):
            png = np.frombuffer((folder / "pillow" / f"{index}.png").read_bytes(), np.uint8)
            file.create_dataset(f"{index // 1000:05}/img{index:08}.png", data=png)
    rates: dict[str, list[float]] = {"hdf5": [], "repae": []}
    with h5py.File(path, "r") as file:
        readers: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], int]] = {
            "hdf5": (lambda indices: from_hdf5(file, indices), 4),
            "repae": (lambda indices: data.batch(indices).images, 100),
        }
        warm = torch.arange(min(BATCH, len(data)))
        assert all(torch.equal(read(warm), data.batch(warm).images) for read, _ in readers.values())
        for number in range(rounds):
            for name, (read, batches) in readers.items():
                generator = torch.Generator().manual_seed(number)
                chosen = [torch.randint(len(data), (BATCH,), generator=generator) for _ in range(batches)]
                began = time.perf_counter()
                for indices in chosen:
                    read(indices)
                rates[name].append(batches * BATCH / (time.perf_counter() - began))
    ratios = [one / other for one, other in zip(rates["repae"], rates["hdf5"])]
    return {"images_per_second": rates, "ratios": ratios, "median": statistics.median(ratios)}


def from_hdf5(file: h5py.File, indices: torch.Tensor) -> torch.Tensor:
    images = []
    for index in indices.tolist():
        png = np.array(file[f"{index // 1000:05}/img{index:08}.png"])
        images.append(np.array(Image.open(io.BytesIO(png))).transpose(2, 0, 1))
    return torch.from_numpy(np.stack(images))


def show(report: dict) -> None:
    source, made, read = report["source"], report["prepare"], report["read"]
    print(
        f"{report['images']} JPEGs of {source['mean_megapixels']:.2f} megapixel and {source['mean_kilobytes']:.0f} kB; "
        f"{report['workers']} processes on {report['cores']} cores; {len(made['ratios'])} interleaved rounds\n"
    )
    print("| what | images/s, median | images/s, range | ratio, median | ratio, range |\n|---|---|---|---|---|")
    for title, part, names in (
        ("prepare", made, (("Pillow and PNG", "pillow"), ("repae prepare", "repae"))),
        ("read, one core", read, (("HDF5 and PNG", "hdf5"), ("shards", "repae"))),
    ):
        for label, name in names:
            rates = part["images_per_second"][name]
            ratio = "1 | " if name != "repae" else (
                f"{part['median']:.2f} | {min(part['ratios']):.2f} to {max(part['ratios']):.2f}"
            )  # fmt: skip
            print(
                f"| {title}: {label} | {statistics.median(rates):,.0f} | {min(rates):,.0f} to {max(rates):,.0f} "
                f"| {ratio} |"
            )
    cpu = {name: statistics.median(values) for name, values in made["cpu_milliseconds_per_image"].items()}
    print(
        f"\nprocessor time of preparing: {cpu['pillow']:.2f} and {cpu['repae']:.2f} ms an image, ratio "
        f"{made['cpu_median']:.2f} (the one to read where other programs share the cores)"
    )
    print(f"pixels: {made['different']} of {report['images']} images differ")


if __name__ == "__main__":
    main()
