"""A method that the package does not know: registered here, and every command works with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from errors import assert_tells, refused
from pydantic import Field
from torch import nn

import repae
from repae.cli import main
from repae.config import UserError
from repae.data.batch import Batch
from repae.models.autoencoders import Autoencoder
from repae.models.bundle import Bundle
from repae.models.denoiser import Denoiser
from repae.models.latent_norm import LatentNorm
from repae.models.pixels import to_symmetric
from repae.recipes.catalogue import find
from repae.runtime.checkpoint import CheckpointStore
from repae.runtime.optimise import Optimiser
from repae.runtime.seeds import Share
from repae.training.build import StepBuilder
from repae.training.draw import Randomness
from repae.training.method import METHODS, MethodConfig, MethodStep, MethodTraits
from repae.training.state import BundleName, Metrics, Players, Stateful, named_parts

TINY = {
    "data.resolution": 16,
    "loop.batch-size": 8,
    "loop.checkpoint-every": 2,
    "loop.log-every": 1,
    "start.kind": "scratch",
    "teachers.0.steps": 1,
    "teachers.0.batch-size": 8,
    "backbone.hidden-size": 16,
    "backbone.depth": 2,
    "backbone.num-heads": 2,
    "backbone.encoder-depth": 1,
    "backbone.projector-dim": 8,
    "preview.sampler.steps": 1,
    "preview.per-class": 1,
    "preview.classes": 2,
    "evaluation.every": 2,
    "evaluation.images": 24,
    "evaluation.guided-images": 10,
    "evaluation.sampler.steps": 1,
    "evaluation.comparison.resamples": 0,
    "optimisers.denoiser.schedule.kind": "constant",
    "optimisers.vae.schedule.kind": "constant",
    "optimisers.discriminator.schedule.kind": "constant",
    "track.tensorboard": "false",
    "track.progress": "false",
    "runtime.device": "cpu",
}


class Robust(MethodConfig):
    """The denoiser alone, by a Huber loss, without teachers and without averages.

    Attributes:
        delta: where the loss turns from squares to absolute values.
    """

    kind: Literal["robust"] = "robust"
    delta: float = Field(default=1.0, gt=0)

    @property
    def traits(self) -> MethodTraits:
        return MethodTraits(
            players=frozenset({"vae", "denoiser"}), trains=frozenset({"denoiser"}), bundles=("live",), from_latents=True
        )

    def build(self, players: Players, builder: StepBuilder) -> RobustStep:
        assert players.denoiser is not None and players.latent_norm is not None
        builder.prepare(players.vae, trained=False)
        builder.prepare(players.denoiser, trained=True)
        players.latent_norm.to(builder.device).eval()
        denoiser, optimise = builder.trained(players.denoiser, builder.setup.optimisers.denoiser)
        setup = builder.setup
        randomness = Randomness(setup.seed, players.latent_shape, setup.path, setup.time, label_dropout=0.1)
        return RobustStep(self, players.vae, denoiser, players.latent_norm, optimise, randomness)


@dataclass
class RobustStep(MethodStep):
    method: Robust
    vae: Autoencoder
    denoiser: Denoiser
    latent_norm: LatentNorm
    optimise: Optimiser
    randomness: Randomness

    def __call__(self, batch: Batch, step: int, share: Share) -> Metrics:
        draw = self.randomness(step, len(batch.images), share, batch.images.device)
        with torch.no_grad():
            x = self.latent_norm(self.vae.encode(to_symmetric(batch.images))[0])
        x_t, velocity = self.randomness.path.sample(x, draw.noise, draw.time)
        predicted, projected = self.denoiser(x_t, draw.time, batch.labels, draw.dropped_labels)
        loss = nn.functional.huber_loss(predicted, velocity, delta=self.method.delta)
        self.optimise(loss + 0.0 * sum(part.sum() for part in projected))
        return {"robust_loss": loss.detach()}

    def parts(self) -> Mapping[str, Stateful]:
        return named_parts(
            vae=self.vae, denoiser=self.denoiser, latent_norm=self.latent_norm, optimiser_denoiser=self.optimise
        )

    def modules(self) -> list[nn.Module]:
        return [self.denoiser]

    def bundle(self, name: BundleName) -> Bundle:
        assert name == "live"
        return Bundle(name, self.denoiser, self.vae, self.latent_norm)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """For this test only: what others refuse by listing all kinds stays as it is."""
    monkeypatch.setattr(METHODS, "members", dict(METHODS.members))
    METHODS.register(Robust)


def train(runs: Path, name: str, steps: int) -> Path:
    options: dict[str, Any] = {**TINY, "method.delta": 0.5, "method.kind": "robust", "loop.steps": steps}
    words = [word for field, value in options.items() for word in (f"--{field}", str(value))]
    assert main(["train", "digits", *words, "--name", name, "--runs", str(runs)]) == 0
    return runs / name


def test_it_is_a_choice_of_every_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Read and written like the others, in the help, and a slip of the pen finds it."""
    recipe = find("digits").replace(**{"method.kind": "robust", "method.delta": 2.0})
    assert recipe.method == Robust(delta=2.0) and recipe.own_bundle == "live"
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    assert type(recipe).from_yaml(tmp_path / "recipe.yaml") == recipe
    with refused(UserError, "method.kind", "robus", "'robust'", "'repa-e'"):
        find("digits").replace(**{"method.kind": "robus"})
    with refused(UserError, "method.delta", "-1.0", "greater than 0"):
        recipe.replace(**{"method.delta": -1.0})
    assert main(["train", str(tmp_path / "recipe.yaml"), "--help"]) == 0
    assert_tells(capsys.readouterr().out, "--method.delta 2.0", "where the loss turns", "| robust")
    assert main(["train", "digits", "--method.kind", "robust", "--runs", str(tmp_path), "--dry-run"]) == 0
    assert_tells(capsys.readouterr().out, "denoiser", "trained", "vae", "frozen")


def test_every_command_works_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Trained, resumed bit for bit, sampled, evaluated, reported: on the command line and in Python."""
    whole, halves = train(tmp_path, "whole", 4), train(tmp_path, "halves", 2)
    train(tmp_path, "halves", 4)
    stores = [CheckpointStore(folder / "checkpoints") for folder in (whole, halves)]
    one, other = (store.read(store.at(4), "denoiser") for store in stores)
    assert all(torch.equal(one[name], other[name]) for name in one)

    logged = [json.loads(line) for line in (halves / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in logged] == [1, 2, 3, 4]
    assert all(row["robust_loss"] > 0 for row in logged) and "eval_psnr" in logged[1]

    run = repae.load(halves)
    assert run.bundle.name == "live" and run.sample(torch.tensor([1, 2])).shape == (2, 1, 16, 16)
    assert main(["sample", str(halves), "--num", "4", "--sampler.steps", "1"]) == 0
    capsys.readouterr()
    assert main(["sample", str(halves), "--num", "4", "--bundle", "ema"]) == 2
    assert_tells(capsys.readouterr().err, "'ema'", "live")

    assert main(["evaluate", str(halves)]) == 0
    figures = json.loads((halves / "evaluation.json").read_text())
    assert figures["protocol"]["bundle"] == "live" and figures["protocol"]["step"] == 4
    assert {"psnr", "fd_teacher"} <= figures.keys()
    assert main(["report", str(halves)]) == 0
    page = (halves / "report.html").read_text()
    assert_tells(page, "method robust", "Generated images", "Gallery")
