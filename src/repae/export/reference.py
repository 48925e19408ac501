"""Files of the reference, of REPA, SiT and LightningDiT: what they hold, in our parts, and in their layout again.

Layouts (a dict written by ``torch.save``):

- REPA-E, joint: ``model``, ``ema``, ``vae``, ``discriminator``, ``opt``, ``opt_vae``, ``opt_disc``, ``args``, and
  ``steps``; on a frozen autoencoder the same without the autoencoder's players. ``model`` and ``ema`` hold statistics.
- REPA: ``model``, ``ema``, ``opt``, ``args``, ``steps``; SiT: without ``steps``. No statistics: both scale by .18215.
- LightningDiT: ``model``, ``ema``, ``opt``, ``config``, or ``ema`` alone; see `repae.export.lightning`.
- a bare state dict of a SiT or LightningDiT.
- a bare state dict of an autoencoder, with ``NAME-latents-stats.pt`` and ``NAME-discriminator-ckpt.pt``.

Time runs from data to noise in REPA-E and REPA as it does here. SiT's and LightningDiT's runs the other way and is
turned round; see `repae.export.original_sit`.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from repae.config import UserError
from repae.export.lightning import denoiser_from_lightning, is_lightning, lightning_sizes
from repae.export.original_sit import to_our_time, without_sigma
from repae.export.sizes import GeneratorSizes, discriminator_sizes, generator_sizes
from repae.models.autoencoders import KLConfig
from repae.models.discriminator import PatchGANConfig
from repae.models.latent_norm import LatentNorm
from repae.models.reference_keys import (
    discriminator_from_reference,
    discriminator_to_reference,
    kl_config_from_reference,
    sit_from_reference,
    sit_to_reference,
    vae_from_reference,
    vae_to_reference,
)
from repae.models.weight_files import is_state, read_file

State = dict[str, Any]
Origin = Literal["REPA-E", "REPA", "SiT", "LightningDiT"]

SD_SCALE, SD_CHANNELS = 0.18215, 4
"""What REPA and SiT multiply the latents of Stable Diffusion's autoencoder by, and its channels."""

STATISTICS, DISCRIMINATOR = "-latents-stats", "-discriminator-ckpt"
"""Endings of the names of the files beside an autoencoder's."""

_TRAINED, _OPTIMISERS = ("model", "ema"), ("opt", "opt_vae", "opt_disc")
_PATHS = {"linear": "linear", "cosine": "cosine", "Linear": "linear", "GVP": "cosine"}
_WRAPPERS = ("module.", "_orig_mod.")


@dataclass
class Contents:
    """What a file holds, under our names.

    Attributes:
        origin: whose layout it is; None for an autoencoder alone.
        parts: states by the names of a checkpoint's parts: denoiser, latent_norm, ema_denoiser, vae and so on.
        sizes: of the denoiser.
        path: kind of the path that the denoiser was trained on.
        settings: the ``args`` of the checkpoint.
        step: updates made.
        extra: what only the file's own layout has a place for, to be written back.
        notes: what was done with it that its owner should know, in words.
    """

    origin: Origin | None
    parts: dict[str, State] = field(default_factory=dict)
    sizes: GeneratorSizes | None = None
    vae: tuple[KLConfig, int] | None = None
    discriminator: PatchGANConfig | None = None
    path: str = "linear"
    settings: dict[str, Any] = field(default_factory=dict)
    step: int = 0
    extra: State = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_reference(
    file: Path, *, num_heads: int | None = None, origin: Origin | None = None, statistics: Path | None = None
) -> Contents:
    """Reads a checkpoint or bare weights, with the files that belong beside an autoencoder where they are there.

    Args:
        file: a ``.pt`` or ``.safetensors`` file.
        num_heads: attention heads, where neither the file nor a published size says.
        origin: whose file it is, where it does not show: it decides the direction of time.
        statistics: a ``-latents-stats.pt`` file, for a file that has no statistics of its own.

    Raises:
        UserError: refused, of no known layout, or with keys missing or unknown.
    """
    held = read_file(file)
    if is_state(held.get("state_dict")):
        held = dict(held["state_dict"])
    if any(is_state(held.get(name)) for name in _TRAINED):
        return _checkpoint(held, file, num_heads, origin, statistics)
    if "encoder.conv_in.weight" in held:
        return _autoencoder(held, file, statistics)
    if "latents_scale" in held or "main.0.weight" in held:
        raise UserError(
            f"{file} holds {'statistics' if 'latents_scale' in held else 'a discriminator'} only; import the "
            "autoencoder's file, beside which it is found"
        )
    held = _unwrapped(held)
    if "x_embedder.proj.weight" in held:
        contents = _checkpoint({"model": held, "ema": held}, file, num_heads, origin, statistics)
        if contents.extra:
            contents.extra["layout"] = ["bare"]
        return contents
    names = ", ".join(list(held)[:6])
    known = "REPA-E, REPA, SiT, LightningDiT, an autoencoder"
    raise UserError(f"{file} has no layout that is known here ({known}): it holds {names}; give another")


def to_reference(parts: Mapping[str, State], bundle: tuple[str, str, str], args: Mapping[str, Any], step: int) -> State:
    """A checkpoint in the reference's layout, ready for ``torch.save``.

    ``model`` holds the live denoiser; ``ema`` and ``vae`` hold those of the bundle, because the reference samples with
    that pair. What an imported checkpoint brought along (``parts["reference"]``) is written back as it was.

    Args:
        parts: states by the names of our checkpoints.
        bundle: the parts, denoiser, autoencoder and statistics, that are used together.
        args: settings for the ``args`` of a checkpoint that was not imported.
        step: updates made.
    """
    kept = parts.get("reference", {})
    denoiser, vae, norm = bundle
    # In the order of the file that came in, so that what is not changed comes out as it was.
    layout = list(kept.get("layout", ("model", "ema", "vae", "discriminator", "args", "steps")))
    entries: dict[str, Any] = {"args": argparse.Namespace(**kept.get("args", args)), "steps": step}
    entries |= {name: kept[name] for name in _OPTIMISERS if name in kept}
    if denoiser in parts:
        # The reference keeps its batch norm inside the SiT; ours is a part of its own and goes back in.
        entries["model"] = sit_to_reference(parts["denoiser"], parts["latent_norm"])
        entries["ema"] = sit_to_reference(_bare(parts[denoiser]), _bare(parts[norm]))
        if kept.get("origin") == "REPA":
            for name in _TRAINED:
                entries[name] = {key: value for key, value in entries[name].items() if not key.startswith("bn.")}
    if vae in parts:
        entries["vae"] = vae_to_reference(_bare(parts[vae]))
    if "discriminator" in parts:
        entries["discriminator"] = discriminator_to_reference(parts["discriminator"])
    if layout == ["bare"]:
        return entries["ema"]
    return {name: entries[name] for name in layout if name in entries}


def autoencoder_files(parts: Mapping[str, State], bundle: tuple[str, str, str]) -> dict[str, State]:
    """The reference's files of an autoencoder, by the ending of their names: weights, statistics, discriminator."""
    _, vae, norm = bundle
    files: dict[str, State] = {"": vae_to_reference(_bare(parts[vae]))}
    kept = parts.get("reference", {})
    if "statistics" in kept:
        files[STATISTICS] = kept["statistics"]
    elif norm in parts:
        state = _bare(parts[norm])
        shape = (1, -1, 1, 1)
        scale, bias = state["running_var"].rsqrt().reshape(shape), state["running_mean"].reshape(shape)
        files[STATISTICS] = {"latents_scale": scale, "latents_bias": bias}
    if "discriminator" in parts:
        files[DISCRIMINATOR] = discriminator_to_reference(parts["discriminator"])
    return files


def _checkpoint(
    held: State, file: Path, num_heads: int | None, origin: Origin | None, statistics: Path | None
) -> Contents:
    named = [_unwrapped(held[name]) for name in _TRAINED if is_state(held.get(name))]
    if is_lightning(named[0]):
        return _lightning(held, named, file, origin, statistics)
    args = held.get("args")
    settings = _plain(dict(vars(args)), file) if isinstance(args, argparse.Namespace) else {}
    states = {name: _with_projectors(_unwrapped(held[name])) for name in _TRAINED if is_state(held.get(name))}
    first = next(iter(states.values()))
    sizes = generator_sizes(first, settings, num_heads)
    known = _origin(first, settings, sizes, file, origin)
    contents = Contents(known, sizes=sizes, settings=settings, step=_step(held, file))
    contents.path = _path(settings, file)
    contents.extra = {"origin": known, "layout": list(held), "args": settings}
    norms = {}
    if known != "REPA-E":
        norms = _norm_entries(sizes.backbone.in_channels, statistics, contents)
    for name, prefix in (("model", ""), ("ema", "ema_")):
        state = states.get(name, first)
        if known == "SiT":
            state = _turned(state, sizes, contents)
        denoiser, norm = sit_from_reference({**state, **norms})
        contents.parts |= {f"{prefix}denoiser": denoiser, f"{prefix}latent_norm": norm}
    _players(held, contents)
    return contents


def _lightning(held: State, named: list[State], file: Path, origin: Origin | None, statistics: Path | None) -> Contents:
    """LightningDiT's: ``named`` are its ``model`` and its ``ema``, or either."""
    if origin not in (None, "LightningDiT"):
        raise UserError(f"{file} is called {origin}'s, and its keys are LightningDiT's; leave --origin out")
    config = held.get("config")
    config = config if isinstance(config, dict) else {}
    beside = file.with_name("latents_stats.pt")
    chosen = statistics or (beside if beside.is_file() else None)
    if chosen is None:
        raise UserError(
            f"{file} holds no statistics of latents, and there is no latents_stats.pt beside it; "
            "give the file that it was trained with: --statistics latents_stats.pt"
        )
    sizes = lightning_sizes(named[-1], config)
    read = read_statistics(chosen)
    norm = LatentNorm(sizes.in_channels)
    # The normaliser adds its eps to the variance, and this scale is meant as it stands: so eps is taken off first.
    std = (read["latents_scale"].flatten().double() * float(config.get("data", {}).get("latent_multiplier", 1))) ** -1
    norm.set_statistics(read["latents_bias"].flatten(), (std.square() - norm.eps).clamp_min(1e-12).sqrt())
    contents = Contents("LightningDiT", step=_step(held, file))
    contents.sizes = GeneratorSizes(sizes, (), min(8, sizes.depth), 2048, sizes.in_channels)
    for state, prefix in ((named[0], ""), (named[-1], "ema_")):
        contents.parts[f"{prefix}denoiser"] = denoiser_from_lightning(state, sizes)
        contents.parts[f"{prefix}latent_norm"] = norm.state_dict()
    contents.notes += [
        "LightningDiT's time runs from noise to data: time and velocity are turned round, folded into two layers",
        f"statistics: {chosen.name}",
        "its optimiser's moments are left behind: they belong to the weights before the turn",
    ]
    return contents


def _players(held: State, contents: Contents) -> None:
    """The autoencoder, the discriminator and the optimisers of a checkpoint, where it has them."""
    if is_state(held.get("vae")):
        contents.vae = kl_config_from_reference(held["vae"])
        contents.parts["vae"] = vae_from_reference(held["vae"])
    if is_state(held.get("discriminator")):
        contents.discriminator = discriminator_sizes(held["discriminator"])
        contents.parts["discriminator"] = discriminator_from_reference(held["discriminator"])
    if contents.origin == "SiT":
        contents.extra.pop("layout")
        contents.notes.append("its optimiser's moments are left behind: they belong to the weights before the turn")
        return
    contents.extra |= {name: held[name] for name in _OPTIMISERS if name in held}


def _autoencoder(held: State, file: Path, statistics: Path | None) -> Contents:
    contents = Contents(None, parts={"vae": vae_from_reference(held)}, vae=kl_config_from_reference(held))
    beside = file.with_name(f"{file.stem}{STATISTICS}{file.suffix}")
    chosen = statistics or (beside if beside.is_file() else None)
    if chosen is not None:
        read = read_statistics(chosen)
        norm = LatentNorm(contents.vae[0].latent_channels)  # type: ignore[index]
        norm.set_statistics(read["latents_bias"].flatten(), read["latents_scale"].flatten().reciprocal())
        contents.parts["latent_norm"] = norm.state_dict()
        contents.extra["statistics"] = read
    discriminator = file.with_name(f"{file.stem}{DISCRIMINATOR}{file.suffix}")
    if discriminator.is_file():
        state = read_file(discriminator)
        contents.discriminator = discriminator_sizes(state)
        contents.parts["discriminator"] = discriminator_from_reference(state)
    names = [place.name if place is not None and place.is_file() else "none" for place in (chosen, discriminator)]
    contents.notes.append(f"statistics: {names[0]}; discriminator: {names[1]}")
    return contents


def read_statistics(file: Path) -> dict[str, Tensor]:
    """``latents_scale`` and ``latents_bias`` of a file: normalised = (latent - bias) * scale, per channel.

    LightningDiT's ``latents_stats.pt`` says the same as ``mean`` and ``std``. A `UserError` where there are none.
    """
    held = read_file(file)
    if is_state(held) and held.keys() == {"mean", "std"}:
        return {"latents_scale": held["std"].reciprocal(), "latents_bias": held["mean"]}
    if not is_state(held) or held.keys() != {"latents_scale", "latents_bias"}:
        found = ", ".join(map(str, list(held)[:6])) or "nothing"
        raise UserError(f"{file} holds {found}; allowed: latents_scale and latents_bias, or mean and std")
    return held


def _norm_entries(channels: int, statistics: Path | None, contents: Contents) -> dict[str, Tensor]:
    """The normaliser that a generator without one was trained with, under the reference's names."""
    if statistics is not None:
        read = read_statistics(statistics)
        scale, bias = read["latents_scale"].flatten().double(), read["latents_bias"].flatten()
    elif channels == SD_CHANNELS:
        scale, bias = torch.full((channels,), SD_SCALE, dtype=torch.float64), torch.zeros(channels)
        contents.notes.append(
            f"it has no statistics of its own: latents are multiplied by {SD_SCALE}, as it was trained"
        )
    else:
        raise UserError(
            f"this generator has no statistics and {channels} latent channels, for which no scale is known; "
            "give the file that it was trained with: --statistics NAME-latents-stats.pt"
        )
    # The normaliser adds its eps to the variance; here the scale is exact.
    variance = (scale.square().reciprocal() - LatentNorm(1).eps).float()
    counter = torch.zeros((), dtype=torch.int64)
    return {"bn.running_mean": bias, "bn.running_var": variance, "bn.num_batches_tracked": counter}


def _origin(
    state: Mapping[str, Tensor], settings: Mapping[str, Any], sizes: GeneratorSizes, file: Path, told: Origin | None
) -> Origin:
    if any(name.startswith("bn.") for name in state):
        shown: Origin | None = "REPA-E"
    elif sizes.z_dims or "enc_type" in settings:
        shown = "REPA"
    elif sizes.out_channels == 2 * sizes.backbone.in_channels or "sample_eps" in settings:
        shown = "SiT"
    else:
        shown = None
    if told is not None and shown not in (None, told):
        raise UserError(f"{file} is called {told}'s, and its keys are {shown}'s; leave --origin out")
    if shown is None and told is None:
        raise UserError(
            f"{file} does not show whether it is REPA's or SiT's, whose times run in opposite directions; "
            "say which with --origin REPA or --origin SiT"
        )
    known = shown or told
    assert known is not None
    if known != "SiT" and sizes.out_channels != sizes.backbone.in_channels:
        raise UserError(
            f"{file} predicts {sizes.out_channels} channels for latents of {sizes.backbone.in_channels}; allowed for "
            f"{known}: as many; give a file that predicts the velocity alone"
        )
    return known


def _turned(state: Mapping[str, Tensor], sizes: GeneratorSizes, contents: Contents) -> dict[str, Tensor]:
    notes = ["SiT's time runs from noise to data: time and velocity are turned round, folded into two layers"]
    if sizes.out_channels != sizes.backbone.in_channels:
        state = without_sigma(state, sizes.backbone.in_channels)
        notes.append("its second half of output channels, which nothing reads, is left out")
    contents.notes += [note for note in notes if note not in contents.notes]
    return to_our_time(state)


def _path(settings: Mapping[str, Any], file: Path) -> str:
    name, prediction = settings.get("path_type", "linear"), settings.get("prediction", "v")
    if name not in _PATHS or prediction not in ("v", "velocity"):
        raise UserError(
            f"{file} was trained with path {name!r} and prediction {prediction!r}; allowed: {', '.join(_PATHS)}, and "
            "the velocity as prediction"
        )
    return _PATHS[name]


def _with_projectors(state: State) -> State:
    """The state without projectors of width 0, which REPA has where it was trained without a teacher."""
    last = re.compile(r"(projectors\.\d+\.)4\.bias")
    empty = tuple(found[1] for name, value in state.items() if (found := last.fullmatch(name)) and not len(value))
    return {name: value for name, value in state.items() if not name.startswith(empty)}


def _unwrapped(state: Mapping[str, Any]) -> State:
    for prefix in _WRAPPERS:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return dict(state)


def _step(held: State, file: Path) -> int:
    return int(held["steps"]) if "steps" in held else int(file.stem) if file.stem.isdecimal() else 0


def _plain(settings: dict[str, Any], file: Path) -> dict[str, Any]:
    for name, value in settings.items():
        if not isinstance(value, bool | int | float | str | list | tuple | dict | None):
            raise UserError(f"{file}: args.{name} is a {type(value).__name__}; allowed: plain values, save it as one")
    return settings


def _bare(state: State) -> State:
    """The state of a module, where a part is an average, which also counts its updates."""
    return state.get("module", state)
