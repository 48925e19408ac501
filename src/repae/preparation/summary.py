"""What was prepared, in words."""

from __future__ import annotations

from pathlib import Path

from repae.data.shard_folder import Manifest
from repae.track.progress import duration

SHOWN = 5


def summary(folder: Path, manifest: Manifest | None, lacking: int, images: int, seconds: float) -> str:
    """What a call of `prepare` did, and what the folder holds now or how many shards it lacks."""
    rate = f", {images / seconds:,.0f} images/s" if images and seconds else ""
    lines = [f"made now: {images:,} images in {duration(seconds)}{rate}"]
    if manifest is None:
        lines.append(
            f"{lacking:,} shards are still missing: those of other parts; whichever is done last completes {folder}"
        )
        return "\n".join(lines)
    classes = len(manifest.class_counts)
    least, most = min(manifest.class_counts), max(manifest.class_counts)
    volume = sum(size for shard in manifest.shards for size, _ in shard.files.values()) + manifest.labels[0]
    lines.append(
        f"{folder}: {manifest.count:,} images, {classes:,} classes of {least:,} to {most:,}, "
        f"{len(manifest.shards):,} shards, {show_bytes(volume)}"
    )
    lines += _refused(folder, manifest)
    turned = manifest.tally.get("exif_turned", 0)
    if turned and manifest.plan.about.get("upright"):
        lines.append(f"{turned:,} images were turned as their EXIF orientation says")
    elif turned:
        lines.append(
            f"{turned:,} images have an EXIF orientation other than 1 and stay as they are stored, as in ADM and the "
            "published runs; --upright turns them"
        )
    lines.append(f"look at {folder / 'contact-sheet.png'}; train with --data.kind shards --data.path {folder}")
    return "\n".join(lines)


def _refused(folder: Path, manifest: Manifest) -> list[str]:
    if not manifest.refused:
        return []
    lines = [f"{len(manifest.refused):,} images were refused; all are listed in {folder / 'manifest.json'}:"]
    lines += [f"  {item.name}: {item.reason}" for item in manifest.refused[:SHOWN]]
    if len(manifest.refused) > SHOWN:
        lines.append(f"  and {len(manifest.refused) - SHOWN:,} more")
    return lines


def show_bytes(size: int | float) -> str:
    for unit, factor in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size / 1e3:.3g} kB"
