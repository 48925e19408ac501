"""A run, an import or an exported folder, opened again: one bundle of what belongs together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from repae.config import UserError, check
from repae.evaluation import AutoencoderAlone
from repae.export.folders import INDEX, WEIGHTS, read_json, read_pipeline
from repae.flow import Guidance, Sampler
from repae.models.bundle import Bundle
from repae.models.denoiser import Denoiser
from repae.models.latent_norm import LatentNorm
from repae.recipes.recipe import Recipe
from repae.recipes.saved import read_recipe
from repae.runs.weights import read_part
from repae.runtime.checkpoint import CheckpointStore
from repae.runtime.precision import Precision
from repae.sampling import generate
from repae.training.build import build_vae, latent_side
from repae.training.methods.configs import VaeOnly
from repae.training.state import BUNDLES

ORIGIN = "repae.json"
"""What an exported folder says of the run that it was made of."""


@dataclass(frozen=True)
class AutoencoderRun:
    """A run that trained an autoencoder only: its recipe, what the checkpoint that was read says, and its weights."""

    folder: Path
    recipe: Recipe
    meta: dict[str, Any]
    step: int
    bundle: AutoencoderAlone

    def to(self, device: str | torch.device) -> None:
        """Moves the weights to another device."""
        self.bundle.vae.to(device)


@dataclass(frozen=True)
class Run:
    """A run or an exported folder on disk: its recipe, what the checkpoint that was read says, and the bundle."""

    folder: Path
    recipe: Recipe
    meta: dict[str, Any]
    step: int
    bundle: Bundle

    def to(self, device: str | torch.device) -> None:
        """Moves the bundle's weights and statistics to another device."""
        for module in (self.bundle.denoiser, self.bundle.vae, self.bundle.latent_norm):
            module.to(device)

    def sample(
        self,
        labels: Int[Tensor, " n"],
        *,
        seed: int = 0,
        sampler: Sampler | None = None,
        guidance: Guidance | None = None,
        batch_size: int = 256,
    ) -> UInt8[Tensor, "n c h w"]:
        """One image 0..255 for each label; image i depends on (seed, i) only.

        Sampler and guidance are those of the run's previews unless given (no guidance where there is no null class).
        """
        preview = self.recipe.preview
        if guidance is None and self.bundle.null_label is not None:
            guidance = preview.guidance
        return generate(
            self.bundle,
            labels,
            sampler=sampler or preview.sampler,
            guidance=guidance,
            path=self.recipe.path,
            precision=Precision("fp32", self.bundle.latent_norm.running_mean.device),
            seed=seed,
            batch_size=batch_size,
        )


def open_run(
    folder: str | Path, bundle: str | None = None, *, step: int | None = None, device: str | torch.device = "cpu"
) -> Run:
    """Opens a run, what `repae import` wrote, or a diffusers folder that `repae export` wrote.

    Args:
        folder: ``runs/NAME``, or the other folder.
        bundle: which weights; the recipe's own choice by default. An exported folder has only the one it was made of.
        step: of which checkpoint; the newest by default.
        device: where to.

    Raises:
        UserError: no run there, no checkpoint yet or none of that step, a run without a denoiser, or an unknown bundle.
    """
    folder = Path(folder)
    if (folder / INDEX).is_file():
        return _exported(folder, bundle, device)
    store, checkpoint = _newest(folder)
    if step is not None:
        checkpoint = store.at(step)
    saved = store.describe(checkpoint)
    meta = saved.meta
    recipe = check(Recipe, meta["recipe"], str(checkpoint))
    if isinstance(recipe.method, VaeOnly):
        raise UserError(f"{folder} trained an autoencoder only; it has no denoiser to sample from")
    name = recipe.bundle if bundle is None else bundle
    if name not in BUNDLES:
        raise UserError(f"bundle {name!r} is unknown; allowed: {', '.join(BUNDLES)}")
    vae = build_vae(recipe, meta["image_channels"])
    side = latent_side(recipe, meta["resolution"])
    own = recipe.backbone
    backbone = own.sized(side, vae.latent_channels, len(meta["class_names"])).build()
    denoiser = Denoiser(backbone, meta["z_dims"], own.encoder_depth, own.projector_dim, own.projector)
    norm = LatentNorm(vae.latent_channels, eps=recipe.latent_norm.eps, momentum=recipe.latent_norm.momentum)
    for part, module in zip(BUNDLES[name], (denoiser, vae, norm), strict=True):
        if not (checkpoint / f"{part}.safetensors").is_file():
            raise UserError(f"{folder} has no part {part!r}, hence no bundle {name!r}; its own is {recipe.bundle!r}")
        state = store.read(checkpoint, part)
        module.load_state_dict(state["module"] if part.startswith("ema_") else state)
        module.to(device).eval().requires_grad_(False)
    return Run(folder, recipe, meta, saved.step, Bundle(name, denoiser, vae, norm))


load = open_run
"""Its public name, `repae.load`."""


def open_for_evaluation(folder: str | Path, bundle: str | None = None) -> Run | AutoencoderRun:
    """Opens what can be evaluated: what `open_run` opens, and a run that trained an autoencoder only.

    Raises:
        UserError: as `open_run`, or a bundle that such a run does not have.
    """
    folder = Path(folder)
    if (folder / INDEX).is_file():
        return open_run(folder, bundle)
    store, newest = _newest(folder)
    saved = store.describe(newest)
    recipe = check(Recipe, saved.meta["recipe"], str(newest))
    if not isinstance(recipe.method, VaeOnly):
        return open_run(folder, bundle)
    if bundle not in (None, "ema", "live"):
        raise UserError(f"{folder} trained an autoencoder only, whose bundles are 'ema' and 'live'; {bundle!r} is none")
    name = bundle or "ema"
    vae = build_vae(recipe, saved.meta["image_channels"])
    vae.load_state_dict(read_part(store, newest, BUNDLES[name][1]))
    side = saved.meta["resolution"] // vae.factor
    alone = AutoencoderAlone(name, vae.eval().requires_grad_(False), (vae.latent_channels, side, side))
    return AutoencoderRun(folder, recipe, saved.meta, saved.step, alone)


def _exported(folder: Path, bundle: str | None, device: str | torch.device) -> Run:
    held, _ = read_pipeline(folder)
    origin = read_json(folder / ORIGIN)
    if bundle not in (None, origin["bundle"]):
        raise UserError(f"{folder} was exported from bundle {origin['bundle']!r}; {bundle!r} is in the run alone")
    recipe = read_recipe(folder / "recipe.yaml")
    parts = (held.denoiser, held.vae, held.latent_norm)
    for module in parts:
        module.to(device)
    return Run(folder, recipe, origin["meta"], origin["step"], Bundle(origin["bundle"], *parts))


def _newest(folder: Path) -> tuple[CheckpointStore, Path]:
    if (folder / WEIGHTS).is_file():
        raise UserError(f"{folder} holds an autoencoder only; it has no denoiser to sample from")
    if not (folder / "recipe.yaml").is_file():
        raise UserError(
            f"{folder} is no run: it has no recipe.yaml; give the folder that `repae train` named; "
            "a file of weights is imported first: `repae import FILE --out FOLDER`"
        )
    store = CheckpointStore(folder / "checkpoints")
    newest = store.latest()
    if newest is None:
        raise UserError(f"{folder} has no checkpoint yet; train it on with `repae train {folder / 'recipe.yaml'}`")
    return store, newest
