"""Drawing images: noise to pixels, which labels, long lists by many processes, grids and files."""

from repae.sample.draw import Drawn, draw, missing_batches
from repae.sample.files import Npz, Output, Pngs, Shards
from repae.sample.generate import Source, generate, generate_batches, image_noise, step_noise
from repae.sample.labels import balanced_labels, grid_labels, labels_like, random_labels
from repae.sample.pictures import grid, pairs, png, write_png

__all__ = [
    "Drawn",
    "Npz",
    "Output",
    "Pngs",
    "Shards",
    "Source",
    "balanced_labels",
    "draw",
    "generate",
    "generate_batches",
    "grid",
    "grid_labels",
    "image_noise",
    "labels_like",
    "missing_batches",
    "pairs",
    "png",
    "random_labels",
    "step_noise",
    "write_png",
]
