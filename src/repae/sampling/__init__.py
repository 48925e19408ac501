"""Drawing images: noise to pixels, which labels, long lists by many processes, grids and files."""

from repae.sampling.between import BetweenClasses, Mixture, between_noise, spherical
from repae.sampling.draw import Throughput, draw, missing_batches
from repae.sampling.files import NpzOutput, Output, PngOutput, ShardOutput
from repae.sampling.generate import (
    ImageNoise,
    VelocityModel,
    chosen_noise,
    generate,
    image_noise,
    own_noise,
    step_noise,
)
from repae.sampling.labels import balanced_labels, grid_labels, labels_like, random_labels
from repae.sampling.pictures import grid, pairs, png, sheet, write_png
