"""Drawing images: noise to pixels, which labels, grids and files."""

from repae.sample.generate import Source, generate, generate_batches, image_noise, step_noise
from repae.sample.labels import balanced_labels, grid_labels, labels_like
from repae.sample.pictures import grid, pairs, png, write_npz, write_png

__all__ = [
    "Source",
    "balanced_labels",
    "generate",
    "generate_batches",
    "grid",
    "grid_labels",
    "image_noise",
    "labels_like",
    "pairs",
    "png",
    "step_noise",
    "write_npz",
    "write_png",
]
