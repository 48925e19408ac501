"""A run, an import or an exported folder, opened again: one bundle of what belongs together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from repae.config import UserError, check
from repae.export.folders import INDEX, WEIGHTS, read_json, read_pipeline
from repae.flow import Guidance, Sampler
from repae.models.autoencoders import Autoencoder
from repae.models.bundle import Bundle
from repae.models.denoiser import Denoiser
from repae.models.latent_norm import LatentNorm
from repae.recipes.recipe import Recipe
from repae.recipes.saved import check_run, read_recipe
from repae.runs.weights import newest_of, read_part
from repae.runtime.checkpoint import CheckpointStore
from repae.runtime.precision import Precision
from repae.sampling import generate
from repae.training.build import build_vae, latent_side
from repae.training.state import BUNDLES, BundleName

ORIGIN = "repae.json"
"""What an exported folder says of the run that it was made of."""

_NO_DENOISER = "it has no denoiser to sample from; give a run of a method that trains one"


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
        self.bundle.to(device)

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
            precision=Precision("fp32", self.bundle.device),
            seed=seed,
            batch_size=batch_size,
        )


def load(
    folder: str | Path, bundle: str | None = None, *, step: int | None = None, device: str | torch.device = "cpu"
) -> Run:
    """Opens a run, what `repae import` wrote, or a diffusers folder that `repae export` wrote, to sample from it.

    Arguments and errors are those of `open_run`; a run without a denoiser is refused too.
    """
    run = open_run(folder, bundle, step=step, device=device)
    if not run.bundle.generates:
        raise UserError(f"{folder} trained an autoencoder only; {_NO_DENOISER}")
    return run


def open_run(
    folder: str | Path, bundle: str | None = None, *, step: int | None = None, device: str | torch.device = "cpu"
) -> Run:
    """Opens whatever has a bundle: what `load` opens, and a run that trained an autoencoder only.

    Args:
        folder: ``runs/NAME``, or the other folder.
        bundle: which weights; the recipe's own choice by default. An exported folder has only the one it was made of.
        step: of which checkpoint; the newest by default.
        device: where to.

    Raises:
        UserError: no run there, no checkpoint yet or none of that step, or a bundle that is unknown or not there.
    """
    folder = Path(folder)
    if (folder / INDEX).is_file():
        return _exported(folder, bundle, device)
    store, checkpoint = _newest(folder)
    if step is not None:
        checkpoint = store.at(step)
    saved = store.describe(checkpoint)
    recipe = check(Recipe, saved.meta["recipe"], str(checkpoint))
    name = _bundle_name(folder, recipe, bundle)
    vae = build_vae(recipe, saved.meta["image_channels"])
    denoiser = norm = None
    if recipe.method.traits.generates:
        denoiser, norm = _denoiser(recipe, saved.meta, vae)
    for part, module in zip(BUNDLES[name], (denoiser, vae, norm), strict=True):
        if module is None:
            continue
        if not (checkpoint / f"{part}.safetensors").is_file():
            raise UserError(
                f"{folder} has no part {part!r}, hence no bundle {name!r}; open its own, {recipe.own_bundle!r}"
            )
        module.load_state_dict(read_part(store, checkpoint, part))
        module.to(device).eval().requires_grad_(False)
    return Run(folder, recipe, saved.meta, saved.step, Bundle(name, denoiser, vae, norm))


def _bundle_name(folder: Path, recipe: Recipe, wanted: str | None) -> BundleName:
    allowed = recipe.method.traits.bundles
    for name in allowed:
        if name == (recipe.own_bundle if wanted is None else wanted):
            return name
    if wanted in BUNDLES and not recipe.method.traits.generates:
        which = ", ".join(allowed)
        raise UserError(f"{folder} trained an autoencoder only, not bundle {wanted!r}; allowed: {which}")
    raise UserError(f"bundle {wanted!r} is unknown; allowed: {', '.join(name for name in BUNDLES if name in allowed)}")


def _denoiser(recipe: Recipe, meta: dict[str, Any], vae: Autoencoder) -> tuple[Denoiser, LatentNorm]:
    side = latent_side(recipe, meta["resolution"])
    own = recipe.backbone
    backbone = own.sized(side, vae.latent_channels, len(meta["class_names"])).build()
    denoiser = Denoiser(backbone, meta["z_dims"], own.encoder_depth, own.projector_dim, own.projector)
    norm = LatentNorm(vae.latent_channels, eps=recipe.latent_norm.eps, momentum=recipe.latent_norm.momentum)
    return denoiser, norm


def _exported(folder: Path, bundle: str | None, device: str | torch.device) -> Run:
    held, _ = read_pipeline(folder)
    origin = read_json(folder / ORIGIN)
    if bundle not in (None, origin["bundle"]):
        raise UserError(
            f"{folder} was exported from bundle {origin['bundle']!r} and has no {bundle!r}; open the run itself, or "
            f"export it with --bundle {bundle}"
        )
    held.to(device)
    named = Bundle(origin["bundle"], held.denoiser, held.vae, held.latent_norm)
    return Run(folder, read_recipe(folder / "recipe.yaml"), origin["meta"], origin["step"], named)


def _newest(folder: Path) -> tuple[CheckpointStore, Path]:
    if (folder / WEIGHTS).is_file():
        raise UserError(f"{folder} holds an autoencoder only; {_NO_DENOISER}")
    check_run(folder)
    return newest_of(folder)
