"""A data set and a bundle that tests fill as they need."""

from __future__ import annotations

import torch

from repae.data import Batch, Dataset


class Memory(Dataset):
    """Any images and labels as a data set."""

    def __init__(self, images, labels, classes=2):
        self.images, self.labels = images, labels
        self.channels, self.resolution = images.shape[1], images.shape[-1]
        self.class_names = tuple(f"class-{i}" for i in range(classes))
        self.flip, self.broken = False, {}

    @property
    def fingerprint(self):
        return "memory"

    def batch(self, indices, flips=None):
        return Batch(self.images[indices], self.labels[indices], indices)


class FakeBundle:
    """A bundle whose images are drawn by `draw(labels, numbers)`; reconstructions by `rebuild`."""

    name = "live"
    null_label: int | None = 10
    latent_shape = (1, 4, 4)

    def __init__(self, draw, rebuild=lambda images: images):
        self.draw, self.rebuild, self.labels, self.batches = draw, rebuild, None, []

    def velocity(self, x, t, y):
        self.labels = y[: len(x)]
        self.batches.append(len(x))
        return torch.zeros_like(x)

    def decode(self, x):
        return self.draw(self.labels[: len(x)])

    def reconstruct(self, images):
        return self.rebuild(images)
