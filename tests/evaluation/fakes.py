"""A data set and a bundle that tests fill as they need."""

from __future__ import annotations

import torch

from repae.data import Batch, Dataset
from repae.evaluation import FeatureExtractor, Inception
from repae.models.bundle import Bundle


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


class FakeBundle(Bundle):
    """A bundle whose images are drawn by `draw(labels, numbers)`; reconstructions by `rebuild`."""

    name = "live"
    generates = True
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

    def encode(self, images):
        return torch.nn.functional.adaptive_avg_pool2d(images.float(), 4)[:, :1] / 127.5 - 1


class Random(FeatureExtractor):
    """An extractor of random projections of the pixels; `asked` counts the images it has seen."""

    def __init__(self, name="random", dim=6, parts=(), seed=0):
        self.name, self.parts, self.asked = name, {"pool": dim, **dict(parts)}, 0
        self.network = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.constant_(self.network.weight, float(seed))

    def __call__(self, images):
        self.asked += len(images)
        rows = images.flatten(1).double() / 255
        out = {}
        for number, (part, dim) in enumerate(self.parts.items()):
            generator = torch.Generator().manual_seed(number)
            out[part] = (rows @ torch.randn(rows.shape[1], dim, generator=generator, dtype=torch.float64)).float()
        return out

    def about(self):
        return {"kind": self.name}


class SmallInception(Random, Inception):
    """What calls itself Inception and has its three parts, small ones."""

    published = False
    channels = 3

    def __init__(self):
        Random.__init__(self, "inception", 6, {"spatial": 4, "logits": 5})
