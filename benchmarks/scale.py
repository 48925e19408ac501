"""What a data set costs on paper: bytes, files, memory, requests and money, from the code's own formulas.

    python benchmarks/scale.py [--resolution 256] [--per-shard N] [--nodes 8]

docs/scale.md holds what this prints. What is assumed and not computed stands in capitals below.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass

from repae.data.order import WINDOW
from repae.data.shard_folder import FieldSpec, ShardInfo, ShardPlan
from repae.preparation.images import default_per_shard, needed_bytes
from repae.preparation.summary import show_bytes

COUNTS = {"1.3 M": 1_281_167, "100 M": 100_000_000, "5 B": 5_000_000_000}

JPEG_BYTES, NAME_BYTES, PER_TAR = 110_000, 28, 10_000
"""An image as it comes and its name, as in ImageNet; images of one tar."""

STORE_DOLLARS, GET_DOLLARS = 0.023, 0.0000004
"""List prices of object storage near the machines: a gigabyte for a month, and one request."""

MANIFEST_MEMORY = 1500
"""Bytes that a process keeps in memory for each shard of a manifest; a test measures it."""

INDEX_BYTES = 8
"""An offset, a size or a label in memory."""


@dataclass(frozen=True)
class Cost:
    """One layout of one data set. `memory` is of each process; `requests` are those of an epoch on every machine."""

    layout: str
    bytes: float
    files: int
    memory: float
    requests: float

    @property
    def dollars(self) -> tuple[float, float]:
        """For a month of storage, and for the requests of an epoch."""
        return self.bytes / 1e9 * STORE_DOLLARS, self.requests * GET_DOLLARS


def plan_of(count: int, resolution: int = 256, per_shard: int | None = None) -> ShardPlan:
    """The plan that `repae prepare` would make."""
    field = FieldSpec(name="images", dtype="uint8", shape=(3, resolution, resolution))
    per_shard = per_shard or default_per_shard(count, field.item_bytes)
    return ShardPlan(kind="images", count=count, per_shard=per_shard, fields=(field,), about={})


def folders(count: int) -> Cost:
    """A file for each image, read one by one."""
    return Cost("files in folders", count * JPEG_BYTES, count, count * (NAME_BYTES + 2 * INDEX_BYTES), count)


def tars(count: int) -> Cost:
    """Tars in object storage; an image is a range of one, padded to blocks of 512 bytes behind a header of as many."""
    padded = 512 + math.ceil(JPEG_BYTES / 512) * 512
    memory = count * (NAME_BYTES + 4 * INDEX_BYTES)
    return Cost("tars, by range", count * padded, math.ceil(count / PER_TAR), memory, count)


def shards(plan: ShardPlan, nodes: int) -> Cost:
    """Prepared shards: two arrays and a list of names each, all labels, plan, manifest and contact sheet."""
    arrays = sum(needed_bytes(plan, [number]) * times for number, times in _kinds(plan))
    names = plan.count * (NAME_BYTES + len('"",\n'))
    labels = 128 + 8 * plan.count
    files = 3 * plan.shards + 4
    return Cost("prepared shards", arrays + names + labels, files, plan.shards * MANIFEST_MEMORY, nodes * plan.shards)


def manifest_bytes(plan: ShardPlan) -> int:
    """The manifest's size in JSON."""
    info = ShardInfo(
        count=plan.per_shard,
        files={f"000000.{name}.npy": (10**8, "0" * 64) for name in ("images", "labels")},
    )
    return plan.shards * len(info.model_dump_json(indent=1))


def window_bytes(plan: ShardPlan) -> int:
    """What is in use at once in block-wise order with blocks of one shard."""
    return WINDOW * needed_bytes(plan, [0])


def _kinds(plan: ShardPlan) -> list[tuple[int, int]]:
    """A number of each kind of shard with how many there are: full ones and the last."""
    return [(0, plan.shards - 1), (plan.shards - 1, 1)]


def tables(resolution: int, per_shard: int | None, nodes: int) -> str:
    """Both tables, in Markdown."""
    lines = [
        "| images | layout | bytes | files | memory of a process | requests, an epoch | storage, a month | requests |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, count in COUNTS.items():
        for cost in (folders(count), tars(count), shards(plan_of(count, resolution, per_shard), nodes)):
            store, requests = cost.dollars
            lines.append(
                f"| {name} | {cost.layout} | {show_bytes(cost.bytes)} | {cost.files:,} | {show_bytes(cost.memory)} | "
                f"{cost.requests:,.0f} | ${store:,.0f} | ${requests:,.2f} |"
            )
    lines += [
        "",
        "| images | shards | images in a shard | a shard | labels, mapped | manifest | in use by blocks |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, count in COUNTS.items():
        for plan in (plan_of(count, resolution, per_shard), plan_of(count, resolution, 50_000)):
            volumes = (needed_bytes(plan, [0]), 8 * count, manifest_bytes(plan), window_bytes(plan))
            sizes = " | ".join(map(show_bytes, volumes))
            lines.append(f"| {name} | {plan.shards:,} | {plan.per_shard:,} | {sizes} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--per-shard", type=int)
    parser.add_argument("--nodes", type=int, default=8)
    arguments = parser.parse_args()
    print(tables(arguments.resolution, arguments.per_shard, arguments.nodes))


if __name__ == "__main__":
    main()
