"""Players that start from those of another run: what fits is taken, what contradicts is refused by name."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from repae.config import UserError, check
from repae.export.folders import INDEX
from repae.models.denoiser import Denoiser
from repae.models.latent_norm import LatentNorm
from repae.models.weight_files import fit
from repae.recipes.recipe import FromRun, Recipe
from repae.runs.open import open_run
from repae.runs.weights import newest_of, own_part, read_part
from repae.runtime.parallel import unwrap

_FREE = {"class_dropout_prob", "fused_attn", "encoder_depth", "projector_dim"}
"""Fields of the denoiser that another run may change: no weight that is taken over depends on them."""

_REMEDY = "use the same sizes, as in the recipe.yaml there, or another start"

log = logging.getLogger("repae")


def check_start(recipe: Recipe, num_classes: int | None = None) -> None:
    """Refuses a run to start from that is not there or has other sizes, naming the fields that differ.

    ``num_classes`` is that of the data, where it is known; the label table must be of as many.
    """
    if not isinstance(recipe.start, FromRun):
        return
    source, classes = _described(Path(recipe.start.path))
    pairs = [("vae", recipe.vae.model_dump(), source.vae.model_dump())]
    if source.method.traits.generates and recipe.method.traits.generates:
        pairs += [
            ("backbone", recipe.backbone.model_dump(exclude=_FREE), source.backbone.model_dump(exclude=_FREE)),
            ("path", recipe.path.model_dump(), source.path.model_dump()),
            ("latent_norm", {"eps": recipe.latent_norm.eps}, {"eps": source.latent_norm.eps}),
            ("data", {"classes": num_classes or classes}, {"classes": classes}),
        ]
    differing = [
        f"{part}.{name} is {mine.get(name)!r} here and {theirs.get(name)!r} there"
        for part, mine, theirs in pairs
        for name in sorted(mine.keys() | theirs.keys())
        if mine.get(name) != theirs.get(name)
    ]
    if differing:
        raise UserError(f"this recipe cannot start from {recipe.start.path}: {'; '.join(differing[:5])}; {_REMEDY}")


def start_denoiser(recipe: Recipe, denoiser: Denoiser, latent_norm: LatentNorm) -> bool:
    """Gives denoiser and normaliser what the run to start from has, and says whether it had statistics.

    Projectors belong to teachers: they are taken over where number and widths are the same, and stay fresh otherwise.
    """
    if not isinstance(recipe.start, FromRun):
        return False
    path = Path(recipe.start.path)
    states = _states(path)
    if "latent_norm" in states:
        latent_norm.load_state_dict(states["latent_norm"])
    if "denoiser" not in states:
        log.warning("%s has no denoiser: this run's starts from random weights", path)
        return "latent_norm" in states
    taken = states["denoiser"]
    own, theirs = _projectors(denoiser.state_dict()), _projectors(taken)
    if {name: value.shape for name, value in own.items()} != {name: value.shape for name, value in theirs.items()}:
        if own and theirs:
            log.warning("the projectors of %s are those of other teachers: this run's start from random weights", path)
        taken = {name: value for name, value in taken.items() if name not in theirs} | own
    fit(denoiser, taken, f"the denoiser of {path} does not fit this run", _REMEDY)
    return "latent_norm" in states


def start_discriminator(recipe: Recipe, discriminator: nn.Module | None, given: dict[str, Tensor] | None) -> None:
    """Gives the discriminator, if there is one, the ``given`` weights, or those of the run to start from, if any."""
    if discriminator is None:
        return
    if given is None and isinstance(recipe.start, FromRun):
        given = _states(Path(recipe.start.path)).get("discriminator")
    if given is not None:
        fit(unwrap(discriminator), given, "the discriminator to start from does not fit this run", _REMEDY)


def _projectors(state: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in state.items() if name.startswith("projectors.")}


def _described(path: Path) -> tuple[Recipe, int]:
    """The recipe of a run or exported folder, and the number of its classes."""
    if not (path / INDEX).is_file():
        if not (path / "checkpoints").is_dir():
            raise UserError(
                f"{path} is no run to start from; name a run, what `repae import` wrote, or an exported folder"
            )
        store, newest = newest_of(path)
        meta = store.describe(newest).meta
        return check(Recipe, meta["recipe"], str(newest)), len(meta["class_names"])
    run = open_run(path)
    return run.recipe, len(run.meta["class_names"])


def _states(path: Path) -> dict[str, Any]:
    """States of denoiser, latent_norm and discriminator, as far as they are there."""
    if (path / INDEX).is_file():
        bundle = open_run(path).bundle
        return {"denoiser": bundle.denoiser.state_dict(), "latent_norm": bundle.latent_norm.state_dict()}
    store, newest = newest_of(path)
    named = {"denoiser": own_part(store, newest, 0), "latent_norm": own_part(store, newest, 2)}
    if (newest / "discriminator.safetensors").is_file():
        named["discriminator"] = "discriminator"
    return {name: read_part(store, newest, part) for name, part in named.items() if part is not None}
