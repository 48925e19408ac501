"""Any source of images as shards of plain pixels, made once before the runs that train on them."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from pydantic import Field, PositiveInt

from repae.config import Config, UserError
from repae.data import ImageDataset, PixelsConfig
from repae.data.decode import MOST_PIXELS, orientation
from repae.data.image_source import BrokenImageError
from repae.data.shard_folder import HEADER_BYTES, FieldSpec, ShardPlan
from repae.data.shard_writer import ShardWriter, begin, finish, missing_shards
from repae.preparation.part import MachinePart, scratch
from repae.preparation.progress import image_bar
from repae.preparation.sheet import write_sheet
from repae.preparation.summary import TURNED, PreparedImages, show_bytes
from repae.preparation.worker_pool import make_all
from repae.runtime.remote import NO_ROOM

SHARD_BYTES = 2**28
"""Where `per_shard` is not given, shards grow to so many bytes, ..."""

FEW_SHARDS, SMALL_SHARD = 256, 64
"""... but if there were fewer than 256 of them to share the work, they are smaller, down to 64 images."""


class PrepareConfig(Config):
    """How images become shards.

    Attributes:
        resolution: side of the square crop in pixels, as ADM cuts it; smaller images are enlarged.
        per_shard: images of one shard; none takes shards of 256 MiB, smaller ones for few images.
        workers: processes that decode; none takes as many as this machine has cores. The bytes are the same.
        part: K/N, the K-th of N parts, for N machines that write into one folder.
        upright: turn photographs as their EXIF orientation says. ADM and the published runs do not.
        most_pixels: a larger image is refused before it fills the memory.
    """

    resolution: int = Field(default=256, ge=4, le=8192)
    per_shard: PositiveInt | None = None
    workers: PositiveInt | None = None
    part: str = "1/1"
    upright: bool = False
    most_pixels: int = Field(default=MOST_PIXELS, ge=1, le=2 * MOST_PIXELS)


def prepare(
    source: PixelsConfig, out: Path, config: PrepareConfig, say: Callable[[str], None] = print
) -> PreparedImages:
    """Crops every image of ``source`` and writes it into ``out``; goes on where a killed call stopped.

    The files depend on source, resolution, ``per_shard``, ``upright``, ``most_pixels`` and the versions of Pillow and
    simplejpeg (which may change a last bit, so that a folder is not continued by others) only, byte for byte: not on
    the number of workers or parts, nor on where it was interrupted. Images that cannot be read are left out and listed
    with the reason. Resolution, ``upright`` and ``most_pixels`` are those of ``config``, whatever ``source`` says;
    ``say`` tells a person what is about to be done.

    Raises:
        UserError: the source, the folder or the room on the disk do not fit; says what to do.
    """
    part = MachinePart.read(config.part)
    images = source.replace(**config.model_dump(include={"resolution", "upright", "most_pixels"})).open()
    plan = plan_of(images, config)
    began = time.monotonic()
    try:
        out.mkdir(parents=True, exist_ok=True)
        with scratch(out, part) as corner:
            plan = begin(out, plan, corner)
            missing = missing_shards(out, plan, part.of_shards(plan.shards))
            done = _make(_Shard(images, out, plan, corner), missing, config, say)
            lacking = len(missing_shards(out, plan))
            manifest = None
            if not lacking:
                manifest = finish(out, plan, images.num_classes, corner)
                write_sheet(out, corner)
    except OSError as error:
        raise _failed(error, out, plan) from error
    return PreparedImages(out, manifest, lacking, done, time.monotonic() - began)


def plan_of(images: ImageDataset, config: PrepareConfig) -> ShardPlan:
    field = FieldSpec(name="images", dtype="uint8", shape=(3, images.resolution, images.resolution))
    return ShardPlan(
        kind="images",
        count=len(images),
        per_shard=config.per_shard or default_per_shard(len(images), field.item_bytes),
        fields=(field,),
        about={
            "where": images.config.where,
            "source": images.source.fingerprint,
            "resolution": images.resolution,
            "upright": config.upright,
            "most_pixels": config.most_pixels,
            "made_with": {name: metadata.version(name) for name in ("pillow", "simplejpeg")},
            "classes": list(images.class_names),
        },
    )


def default_per_shard(count: int, item_bytes: int) -> int:
    """Images of a shard: a matter of count and size only, so that all machines agree."""
    return max(1, min(SHARD_BYTES // item_bytes, max(SMALL_SHARD, count // FEW_SHARDS)))


@dataclass(frozen=True)
class _Shard:
    images: ImageDataset
    folder: Path
    plan: ShardPlan
    scratch: Path

    def __call__(self, number: int, count: Callable[[], None]) -> None:
        source = self.images.source
        with ShardWriter(self.folder, self.plan, number, self.scratch) as shard:
            for index in self.plan.span(number):
                try:
                    encoded = self.images.encoded(index)
                    pixels = self.images.decoded(encoded)
                except BrokenImageError as error:
                    shard.refuse(source.name(index), str(error))
                else:
                    shard.add(source.name(index), int(source.labels[index]), images=pixels.numpy())
                    if orientation(encoded) != 1:
                        shard.count(TURNED)
                count()
            shard.commit()


def _make(make: _Shard, missing: list[int], config: PrepareConfig, say: Callable[[str], None]) -> int:
    """Makes what is missing, with a bar; gives the number of images that were looked at."""
    plan = make.plan
    total = sum(len(plan.span(number)) for number in missing)
    if not total:
        return 0
    needed, free = needed_bytes(plan, missing), shutil.disk_usage(make.folder).free
    workers = config.workers or _cores()
    say(
        f"{total:,} images of {make.images.resolution} px into {len(missing):,} shards, {workers} process(es); "
        f"{show_bytes(needed)} needed, {show_bytes(free)} free"
    )
    if needed > free:
        raise UserError(
            f"the shards need {show_bytes(needed)} and {make.folder} has {show_bytes(free)} free; free "
            f"{show_bytes(needed - free)} there, give an --out on another disk, or a smaller --resolution"
        )
    with image_bar(total, "prepare") as show:
        make_all(make, missing, workers, show)
    return total


def needed_bytes(plan: ShardPlan, numbers: list[int]) -> int:
    """Bytes of the arrays of these shards if every image can be read."""
    item = sum(field.item_bytes for field in plan.fields) + 8
    return sum(len(plan.span(number)) * item + (len(plan.fields) + 1) * HEADER_BYTES for number in numbers)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _failed(error: OSError, out: Path, plan: ShardPlan) -> UserError:
    if error.errno not in NO_ROOM:
        return UserError(f"{out} cannot be written: {error.strerror or error}; run the same command again to go on")
    missing = missing_shards(out, plan)
    needed, free = needed_bytes(plan, missing), shutil.disk_usage(out).free
    return UserError(
        f"the disk is full: {plan.shards - len(missing):,} of {plan.shards:,} shards in {out} are complete and stay; "
        f"the rest needs {show_bytes(needed)}, {show_bytes(free)} are free; free {show_bytes(max(0, needed - free))} "
        "and run the same command again: it goes on where it stopped"
    )
