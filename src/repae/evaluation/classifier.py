"""The classifier that measures small labelled image sets: fixed, and independent of everything that it measures.

Everything about it is fixed in this file: architecture, optimiser, steps, seed and the stratified 80/20 split. A digest
of all that and of the images goes into every protocol: two evaluations with the same digest had the same classifier.
Its stem is a stride-2 convolution on the full 32 px, not an average pool, so that it sees a lattice that a decoder
prints.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional as F

from repae.config import UserError, write_atomic

RESOLUTION = 32
FEATURES = 64
HELD_OUT = 0.2
STEPS = 200
BATCH = 128
SEED = 0
PEAK_LR = 5e-3
WEIGHT_DECAY = 0.01
SHIFT = 2
CHUNK = 256


class Classifier(nn.Module):
    """A small CNN for 32 px images: two stages of convolution, 64 features after a ReLU, one linear layer."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(channels, 24, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(24, 48, 3, padding=1, bias=False), nn.BatchNorm2d(48), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(48 * 4 * 4, FEATURES), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(FEATURES, num_classes)

    def forward(self, images: UInt8[Tensor, "b c 32 32"]) -> Float[Tensor, "b k"]:
        return self.head(self.trunk(images.float() / 127.5 - 1))

    @torch.no_grad()
    def predict(self, images: UInt8[Tensor, "n c 32 32"]) -> Predictions:
        """Raw penultimate features [n, 64] and predicted classes [n], in evaluation mode, on the CPU."""
        features = torch.cat([self.trunk(part.cpu().float() / 127.5 - 1) for part in images.split(CHUNK)])
        return Predictions(features, self.head(features).argmax(1))


class Predictions(NamedTuple):
    features: Float[Tensor, "n d"]
    classes: Int[Tensor, "n"]


class TrainedClassifier(NamedTuple):
    network: Classifier
    digest: str
    weights: str
    held_out_accuracy: float

    def facts(self) -> dict[str, Any]:
        return {"digest": self.digest, "weights": self.weights, "held_out_accuracy": self.held_out_accuracy}


def classifier_for(
    images: UInt8[Tensor, "n c h w"], labels: Int[Tensor, "n"], num_classes: int, cache: Path | None
) -> TrainedClassifier:
    """The classifier of a data set: loaded from `cache/classifier-DIGEST/` if one is there whole, else trained.

    `digest`: 12 hexadecimal digits of everything that enters (recipe, network, images, labels); `weights`: the same of
    the trained weights, which may differ between machines in the last bits.
    """
    if images.shape[-2:] != (RESOLUTION, RESOLUTION):
        raise UserError(f"the classifier takes images of {RESOLUTION} px, not {tuple(images.shape[-2:])}; resize them")
    digest = recipe_digest(images, labels, num_classes)
    folder = None if cache is None else Path(cache) / f"classifier-{digest}"
    kept = None if folder is None else _load(folder, digest, images.shape[1], num_classes)
    if kept is not None:
        return kept
    network, accuracy = train_classifier(images, labels, num_classes)
    data = save({name: value.contiguous() for name, value in network.state_dict().items()})
    trained = TrainedClassifier(network, digest, _hash(data), accuracy)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / "classifier.safetensors", data)
        record = json.dumps({**trained.facts(), "recipe": recipe()}, indent=2)
        write_atomic(folder / "classifier.json", record + "\n")
    return trained


def train_classifier(
    images: UInt8[Tensor, "n c 32 32"], labels: Int[Tensor, "n"], num_classes: int
) -> tuple[Classifier, float]:
    """Train on 80% of the images; returns the network in evaluation mode and its accuracy on the other 20%.

    One thread and no global random number: the weights depend on the images and on this file only.
    """
    images, labels = images.cpu(), labels.cpu()
    train, held_out = stratified_split(labels)
    generator = torch.Generator().manual_seed(SEED)
    network = _initialised(images.shape[1], num_classes, generator)
    optimiser = torch.optim.AdamW(network.parameters(), lr=PEAK_LR, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_LR, total_steps=STEPS)
    # Sums of several threads have no fixed order, and the digest of the weights stands in every protocol.
    with _one_thread(), torch.enable_grad():
        for _ in range(STEPS):
            rows = train[torch.randint(len(train), (BATCH,), generator=generator)]
            loss = F.cross_entropy(network(_shifted(images[rows], generator)), labels[rows])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
    network.eval().requires_grad_(False)
    right = network.predict(images[held_out]).classes == labels[held_out]
    return network, float(right.double().mean())


def stratified_split(labels: Int[Tensor, "n"]) -> tuple[Int[Tensor, "a"], Int[Tensor, "b"]]:
    """Row numbers of the training 80% and of the held-out 20%, the same share of every class, fixed by the seed."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(SEED))
    train, held_out = [], []
    for label in labels.unique():
        rows = order[labels[order] == label]
        count = round(HELD_OUT * len(rows))
        held_out.append(rows[:count])
        train.append(rows[count:])
    return torch.cat(train), torch.cat(held_out)


def recipe() -> dict[str, str | int | float]:
    """Everything fixed in this file that shapes the network's weights, the architecture in torch's own words."""
    with torch.device("meta"):
        network = Classifier(1, 10)
    return {
        "network": repr(network),
        "initialisation": "Kaiming normal (fan in, gain sqrt 2; head gain 1), biases 0",
        "optimiser": "AdamW, OneCycleLR",
        "peak_lr": PEAK_LR,
        "weight_decay": WEIGHT_DECAY,
        "steps": STEPS,
        "batch": BATCH,
        "shift": SHIFT,
        "seed": SEED,
        "held_out": HELD_OUT,
    }


def recipe_digest(images: UInt8[Tensor, "n c h w"], labels: Int[Tensor, "n"], num_classes: int) -> str:
    """12 hexadecimal digits of the recipe, the number of classes and every image and label."""
    head = json.dumps({**recipe(), "classes": num_classes, "shape": list(images.shape)}, sort_keys=True)
    parts = (images.cpu().contiguous().numpy().tobytes(), labels.cpu().to(torch.int64).numpy().tobytes())
    return _hash(head.encode() + b"".join(parts))


def _initialised(channels: int, num_classes: int, generator: torch.Generator) -> Classifier:
    with torch.device("meta"):
        network = Classifier(channels, num_classes)
    # Built empty, since torch's own initialisation would draw from the global generator.
    network.to_empty(device="cpu")
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.reset_parameters()
        elif isinstance(module, nn.Conv2d | nn.Linear):
            slope = "linear" if module is network.head else "relu"
            nn.init.kaiming_normal_(module.weight, nonlinearity=slope, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network.train()


def _shifted(images: UInt8[Tensor, "b c h w"], generator: torch.Generator) -> UInt8[Tensor, "b c h w"]:
    """Each image moved by up to SHIFT px each way, black (0) where nothing was."""
    size = images.shape[-1]
    padded = F.pad(images, [SHIFT] * 4)
    offsets = torch.randint(2 * SHIFT + 1, (2, len(images), 1), generator=generator) + torch.arange(size)
    batch = torch.arange(len(images))[:, None, None]
    return padded[batch, :, offsets[0][:, :, None], offsets[1][:, None, :]].permute(0, 3, 1, 2)


def _load(folder: Path, digest: str, channels: int, num_classes: int) -> TrainedClassifier | None:
    """None if it is missing, cut short or altered."""
    try:
        record = json.loads((folder / "classifier.json").read_text(encoding="utf-8"))
        data = (folder / "classifier.safetensors").read_bytes()
        if record["digest"] != digest or record["weights"] != _hash(data):
            return None
        network = Classifier(channels, num_classes)
        network.load_state_dict(load(data))
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError):
        return None
    network.eval().requires_grad_(False)
    return TrainedClassifier(network, digest, record["weights"], record["held_out_accuracy"])


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
