"""What was prepared, in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from repae.data.shard_folder import Manifest
from repae.track.progress import duration

SHOWN = 5


TURNED = "exif_turned"
"""In the manifest's tally: images whose EXIF orientation is not 1."""


@dataclass(frozen=True)
class PreparedImages:
    """What a call did, in words as its text. `manifest` is None while `lacking` shards, of other machines, are missing.

    `images` were looked at now, in `seconds`.
    """

    folder: Path
    manifest: Manifest | None
    lacking: int
    images: int
    seconds: float

    def __str__(self) -> str:
        rate = f", {self.images / self.seconds:,.0f} images/s" if self.images and self.seconds else ""
        made = f"made now: {self.images:,} images in {duration(self.seconds)}{rate}"
        if self.manifest is not None:
            return "\n".join([made, *_whole(self.folder, self.manifest)])
        return (
            f"{made}\n{self.lacking:,} shards are still missing: those of other parts; whichever is done last "
            f"completes {self.folder}"
        )


def _whole(folder: Path, manifest: Manifest) -> Iterator[str]:
    classes = len(manifest.class_counts)
    least, most = min(manifest.class_counts), max(manifest.class_counts)
    volume = sum(size for shard in manifest.shards for size, _ in shard.files.values()) + manifest.labels[0]
    yield (
        f"{folder}: {manifest.count:,} images, {classes:,} classes of {least:,} to {most:,}, "
        f"{len(manifest.shards):,} shards, {show_bytes(volume)}"
    )
    if manifest.refused:
        yield f"{len(manifest.refused):,} images were refused; all are listed in {folder / 'manifest.json'}:"
        yield from (f"  {item.name}: {item.reason}" for item in manifest.refused[:SHOWN])
    if len(manifest.refused) > SHOWN:
        yield f"  and {len(manifest.refused) - SHOWN:,} more"
    turned = manifest.tally.get(TURNED, 0)
    if turned and manifest.plan.about.get("upright"):
        yield f"{turned:,} images were turned as their EXIF orientation says"
    elif turned:
        yield (
            f"{turned:,} images have an EXIF orientation other than 1 and stay as they are stored, as in ADM and the "
            "published runs; --upright turns them"
        )
    yield f"look at {folder / 'contact-sheet.png'}; train with --data.kind shards --data.path {folder}"


def show_bytes(size: int | float) -> str:
    for unit, factor in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size / 1e3:.3g} kB"
