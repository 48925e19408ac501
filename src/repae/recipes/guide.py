"""The user's guide to REPA-E: its loss file, read as it is, and the ranges in which it advises to tune.

The guide tunes in this order: fix the alignment weights, tune the learning rates, tune the loss weights, fine-tune the
alignment, check other autoencoders.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from repae.config import Config, UserError
from repae.losses.autoencoder import AutoencoderLossConfig
from repae.models.autoencoders import DiffusersConfig
from repae.recipes.recipe import Recipe

log = logging.getLogger("repae")

UNUSED_QUANTIZER_WEIGHT = 1.0
"""What the guide's file says of a term that its own mode, ``vae``, never adds."""

OF_ONE_MODE = {"vae": ("kl_weight", "logvar_init"), "vq": ("quantizer_weight",)}
"""The keys that the reference reads in that mode only."""

RANGES = {
    "method.proj_coeff": (0.1, 1.0),
    "method.vae_align_proj_coeff": (0.5, 3.0),
    "latent_norm.momentum": (0.01, 0.3),
    "backbone.encoder_depth": (6, 12),
    "optimisers.vae.lr": (5e-5, 1e-4),
    "optimisers.discriminator.lr": (1e-4, 1e-3),
    "losses.discriminator_weight": (0.05, 0.2),
    "losses.perceptual_weight": (0.5, 2.0),
    "losses.kl_weight": (1e-7, 1e-5),
}
"""Where the guide tunes. Its claims have no published source: a value outside is unusual, not wrong."""

ALIGNMENT_RATIO = (2.0, 3.0)
"""The guide's advice for ``vae_align_proj_coeff / proj_coeff``."""


_MAY_BE_EMPTY = BeforeValidator(lambda section: section or {})
"""For a section that YAML reads as nothing."""


class LossFileVqModel(Config):
    """A file without the key is for a codebook, as the reference reads it."""

    quantize_mode: Literal["vae", "vq"] = "vq"


class LossFileModel(Config):
    vq_model: Annotated[LossFileVqModel, _MAY_BE_EMPTY] = LossFileVqModel()


class LossFileLosses(AutoencoderLossConfig):
    perceptual_loss: str = "lpips"
    proj_coef: float = 0.0


class LossFile(Config):
    """The guide's loss file (``l1_lpips_kl_gan.yaml``)."""

    model: Annotated[LossFileModel, _MAY_BE_EMPTY] = LossFileModel()
    losses: Annotated[LossFileLosses, _MAY_BE_EMPTY] = LossFileLosses()


def losses_from(path: str | Path) -> dict[str, Any]:
    """What a loss file of the guide says as changes for ``Recipe.replace``, by dotted name.

    Raises:
        UserError: a key that is unknown (with a suggestion) or has no home here (with the reason), or a wrong value.
    """
    file = LossFile.from_yaml(path)
    mode, losses, given = file.model.vq_model.quantize_mode, file.losses, file.losses.model_fields_set
    _refuse_without_home(losses, mode, path)
    other = "vq" if mode == "vae" else "vae"
    unused = [name for name in OF_ONE_MODE[other] if name in given]
    for name in unused:
        log.warning("%s: losses.%s is not used: it counts in the mode '%s' only", path, name, other)
    own = [name for name in AutoencoderLossConfig.model_fields if name in given and name not in unused]
    changes = {f"losses.{name}": getattr(losses, name) for name in own}
    if mode == "vq":
        changes["losses.logvar_init"] = 0.0
    if "perceptual_loss" in given:
        changes |= _perceptual(losses.perceptual_loss, path)
    return changes


def check_mode(path: str | Path, recipe: Recipe) -> None:
    """Refuses a file that says ``vq`` for an autoencoder without a codebook, or the other way round."""
    vq_model = LossFile.from_yaml(path).model.vq_model
    mode, quantised = vq_model.quantize_mode, isinstance(recipe.vae, DiffusersConfig) and recipe.vae.quantised
    if quantised != (mode == "vq"):
        missing = "" if vq_model.model_fields_set else ", the default of a file that does not say"
        has = "has a codebook" if quantised else "has none"
        raise UserError(
            f"{path}: model.vq_model.quantize_mode is {mode!r}{missing}; 'vq' needs an autoencoder with a codebook and "
            f"'vae' one without, and recipe {recipe.name!r} {has}; correct the file, or choose the vae "
            "(--vae.kind diffusers with a VQModel has a codebook)"
        )


def _refuse_without_home(losses: LossFileLosses, mode: str, path: str | Path) -> None:
    if mode == "vae" and losses.quantizer_weight != UNUSED_QUANTIZER_WEIGHT:
        raise UserError(
            f"{path}: losses.quantizer_weight is {losses.quantizer_weight!r}; it weighs a vector quantiser, of which "
            f"there is none in the mode 'vae'; leave it out, or at the {UNUSED_QUANTIZER_WEIGHT} of the guide's file"
        )
    if losses.proj_coef != 0:
        raise UserError(
            f"{path}: losses.proj_coef is {losses.proj_coef!r}; the alignment of the autoencoder is weighed once, "
            "by method.vae_align_proj_coeff; leave proj_coef out and set that"
        )
    if "commitment_cost" in losses.model_fields_set:
        raise UserError(f"{path}: losses.commitment_cost is no key of the guide's loss file; leave it out")


def _perceptual(name: str, path: str | Path) -> dict[str, Any]:
    if name == "lpips":
        return {"perceptual.kind": "lpips"}
    weighted = re.fullmatch(r"lpips-convnext_s-(\d+\.?\d*)-(\d+\.?\d*)", name)
    if weighted is None:
        raise UserError(
            f"{path}: losses.perceptual_loss is {name!r}; allowed: 'lpips', 'lpips-convnext_s-A-B' with two weights; "
            "for distances in a teacher's features leave it out and set --perceptual.kind teacher"
        )
    return {
        "perceptual.kind": "lpips-convnext_s",
        "perceptual.lpips_weight": float(weighted[1]),
        "perceptual.convnext_weight": float(weighted[2]),
    }


def warnings(recipe: Recipe, named: Recipe | None = None) -> list[str]:
    """One line for every value that leaves the guide's tuning ranges and that the run uses.

    Args:
        recipe: what is going to run.
        named: the named recipe it was made from; what that recipe says itself is not warned of.
    """
    values, origin = _numbers(recipe), {} if named is None else _numbers(named)
    lines = [
        f"{name} {value:g} is outside the guide's tuning range, {low:g} to {high:g}"
        for name, (low, high) in RANGES.items()
        if (value := values.get(name)) is not None and not low <= value <= high and value != origin.get(name)
    ]
    ratio, low, high = values.get("ratio"), *ALIGNMENT_RATIO
    if ratio is not None and not low <= ratio <= high and ratio != origin.get("ratio"):
        lines.append(
            f"method.vae_align_proj_coeff is {ratio:.3g} times method.proj_coeff; "
            f"the guide advises {low:g} to {high:g} times"
        )
    return lines


def _numbers(recipe: Recipe) -> dict[str, float]:
    """The values that the guide speaks of, without those that the recipe's method does not use."""
    traits = recipe.method.traits
    used = {name: float(value) for name in RANGES if (value := _value(recipe, name)) is not None}
    if not traits.generates:
        used = {name: value for name, value in used.items() if not name.startswith(("latent_norm.", "backbone."))}
    if not traits.reconstructs:
        used = {name: value for name, value in used.items() if name in ("method.proj_coeff", "backbone.encoder_depth")}
    if used.get("method.proj_coeff") and "method.vae_align_proj_coeff" in used:
        used["ratio"] = used["method.vae_align_proj_coeff"] / used["method.proj_coeff"]
    return used


def _value(recipe: Recipe, name: str) -> Any:
    value: Any = recipe
    for part in name.split("."):
        value = getattr(value, part, None)
    return value
