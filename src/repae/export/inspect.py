"""What a file or a folder of weights is: parts, parameters, steps, statistics, digests, and what belongs together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from repae.config import UserError
from repae.data.shard_folder import MANIFEST, read_manifest
from repae.export.folders import INDEX, WEIGHTS, read_json
from repae.export.reference import Contents, Origin, read_reference
from repae.models.weight_files import is_state, read_file
from repae.runtime.checkpoint import CheckpointStore
from repae.runtime.digest import short_digest
from repae.training.state import BUNDLES

PLAYERS = ("denoiser", "latent_norm", "vae", "discriminator", "ema_denoiser", "ema_latent_norm", "ema_vae")
"""Parts of a checkpoint that hold weights; the others are what training needs to go on."""

_SHOWN_CHANNELS = 8


@dataclass
class Inspection:
    """What was found.

    ``parts`` hold parameters and digest of each part; ``together`` says whether generator and autoencoder belong
    together, and is empty where there are not both.
    """

    what: str
    facts: dict[str, str] = field(default_factory=dict)
    parts: dict[str, tuple[int, str]] = field(default_factory=dict)
    together: str = ""

    def __str__(self) -> str:
        rows = [("what", self.what), *self.facts.items()]
        rows += [(name, f"{count:,} parameters, digest {mark}") for name, (count, mark) in self.parts.items()]
        if self.together:
            rows.append(("together", self.together))
        width = max(len(name) for name, _ in rows) + 2
        return "\n".join(f"{name.ljust(width)}{text}" for name, text in rows)


def inspect(path: Path, *, num_heads: int | None = None, origin: Origin | None = None) -> Inspection:
    """Looks into a run, one of its checkpoints, an exported or a diffusers folder, or a file of weights."""
    if (path / "checkpoints").is_dir():
        store = CheckpointStore(path / "checkpoints")
        return _checkpoint(store, store.newest(), f"run {path.name}")
    if (path / "state.json").is_file():
        return _checkpoint(CheckpointStore(path.parent), path, f"checkpoint {path.name}")
    if (path / INDEX).is_file():
        return _pipeline(path)
    if (path / "config.json").is_file() and (path / WEIGHTS).is_file():
        return _model(path)
    if (path / MANIFEST).is_file():
        return _shards(path)
    if path.is_file():
        return _file(path, num_heads, origin)
    raise UserError(
        f"{path} is nothing that can be inspected; allowed: a run, a checkpoint, an exported or a diffusers folder, "
        "a folder of prepared images or of cached latents, a .pt or a .safetensors file"
    )


def _shards(folder: Path) -> Inspection:
    kind = read_json(folder / MANIFEST).get("plan", {}).get("kind")
    if kind not in ("images", "latents"):
        raise UserError(f"{folder / MANIFEST} is of kind {kind!r}; allowed: what `repae prepare` or `repae cache` made")
    manifest = read_manifest(folder, kind)
    about = manifest.plan.about
    shapes = (
        f"{field.name} {field.dtype} {' x '.join(map(str, field.shape)) or 'number'}" for field in manifest.plan.fields
    )
    facts = {
        "items": f"{manifest.count:,} in {len(manifest.shards):,} shards, {len(manifest.refused):,} refused",
        "classes": f"{len(about.get('classes', about.get('class_names', ()))):,}",
        "resolution": f"{about['resolution']} px",
        "arrays": ", ".join(shapes),
        "seal": manifest.seal[:12],
    }
    if kind == "latents":
        facts |= {"autoencoder": f"digest {about['vae'][:12]}", "of images": f"fingerprint {about['data'][:12]}"}
    return Inspection(f"{'prepared images' if kind == 'images' else 'cached latents'} {folder.name}", facts)


def _checkpoint(store: CheckpointStore, folder: Path, what: str) -> Inspection:
    saved = store.describe(folder)
    present = {file.stem for file in folder.glob("*.safetensors")}
    states = {part: store.read(folder, part) for part in PLAYERS if part in present}
    states = {part: state["module"] if part.startswith("ema_") else state for part, state in states.items()}
    found = Inspection(what, {"step": f"{saved.step:,}"}, _parts(states))
    recipe = saved.meta.get("recipe")
    if recipe is None:
        return found
    imported = saved.meta.get("imported")
    found.facts |= {"recipe": recipe["name"], "method": recipe["method"]["kind"], "bundle": recipe["bundle"]}
    if imported is not None:
        found.facts["imported"] = f"from {imported['file']} ({imported['origin'] or 'an autoencoder'})"
    denoiser, vae, norm = BUNDLES[recipe["bundle"]]
    _describe_statistics(found, states.get(norm, states.get("latent_norm")), recipe["latent_norm"]["eps"])
    if denoiser in states and vae in states:
        given = imported is not None and imported["vae"] == "given"
        found.together = (
            "not shown: the autoencoder was named at the import, and the generator's file does not say which is its own"
            if given
            else "yes: generator, autoencoder and statistics are of one checkpoint"
        )
    return found


def _pipeline(folder: Path) -> Inspection:
    index = read_json(folder / INDEX)
    name = index.get("_class_name")
    found = Inspection(f"diffusers pipeline {name if isinstance(name, str) else name[-1] if name else '?'}")
    configs = {part: read_json(folder / part / "config.json") for part in ("transformer", "vae")
               if (folder / part / WEIGHTS).is_file()}  # fmt: skip
    states = {part: read_file(folder / part / WEIGHTS) for part in configs}
    found.parts = _parts(states)
    if (folder / "repae.json").is_file():
        origin = read_json(folder / "repae.json")
        found.facts |= {"step": f"{origin['step']:,}", "recipe": origin["name"], "bundle": origin["bundle"]}
    if "vae" in configs:
        _describe_config(found, configs["vae"])
    trained_on = configs.get("transformer", {}).get("vae_digest")
    if len(configs) == 2 and trained_on is not None:
        here = found.parts["vae"][1]
        found.together = (
            f"yes: the generator was trained on this autoencoder, {here}"
            if trained_on == here
            else f"NO: the generator was trained on autoencoder {trained_on}, and this one is {here}"
        )
    return found


def _model(folder: Path) -> Inspection:
    config = read_json(folder / "config.json")
    found = Inspection(
        f"diffusers model {config.get('_class_name')}", parts=_parts({"weights": read_file(folder / WEIGHTS)})
    )
    _describe_config(found, config)
    return found


def _file(file: Path, num_heads: int | None, origin: Origin | None) -> Inspection:
    try:
        contents = read_reference(file, num_heads=num_heads, origin=origin)
    except UserError as error:
        held = read_file(file)
        states = {name: value for name, value in held.items() if is_state(value)}
        tensors = {name: value for name, value in held.items() if isinstance(value, Tensor)}
        return Inspection(
            f"{len(held)} entries: {', '.join(list(held)[:6])}{', ...' if len(held) > 6 else ''}",
            {"import": f"not as it is: {error}"},
            _parts(states | ({"tensors": tensors} if tensors else {})),
        )
    return _contents(contents)


def _contents(contents: Contents) -> Inspection:
    what = f"checkpoint of {contents.origin}" if contents.origin else "autoencoder of the reference"
    found = Inspection(what, parts=_parts({part: contents.parts[part] for part in PLAYERS if part in contents.parts}))
    if contents.sizes is not None:
        own = contents.sizes.backbone
        found.facts |= {
            "step": f"{contents.step:,}",
            "denoiser": f"depth {own.depth}, width {own.hidden_size}, {own.num_heads} heads, patch {own.patch_size}, "
            f"latent {own.in_channels} x {own.input_size} x {own.input_size}, {own.num_classes} classes",
        }
    if contents.vae is not None:
        kl, channels = contents.vae
        found.facts["autoencoder"] = (
            f"factor {kl.factor}, {kl.latent_channels} latent channels, {channels} image channels"
        )
    found.facts |= {f"note {number}": note for number, note in enumerate(contents.notes, 1)}
    _describe_statistics(found, contents.parts.get("ema_latent_norm", contents.parts.get("latent_norm")), 0.0)
    if contents.sizes is not None:
        found.together = (
            "yes: generator and autoencoder are of one checkpoint"
            if "vae" in contents.parts
            else "not shown: there is no autoencoder in this file"
        )
    return found


def parameters(state: Mapping[str, Tensor]) -> int:
    """Number of values, counters of one number left out."""
    return sum(tensor.numel() for tensor in state.values() if tensor.ndim > 0)


def _parts(states: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[int, str]]:
    return {name: (parameters(state), short_digest(state)) for name, state in states.items()}


def _describe_statistics(found: Inspection, state: Mapping[str, Tensor] | None, eps: float) -> None:
    if state is not None:
        std = (state["running_var"].double() + eps).sqrt()
        found.facts |= {"latent mean": _numbers(state["running_mean"]), "latent std": _numbers(std)}


def _describe_config(found: Inspection, config: Mapping[str, Any]) -> None:
    for name, key in (("latent mean", "latents_mean"), ("latent std", "latents_std")):
        if config.get(key) is not None:
            found.facts[name] = _numbers(torch.tensor(config[key]))


def _numbers(values: Tensor) -> str:
    shown = ", ".join(f"{value:.4g}" for value in values[:_SHOWN_CHANNELS].tolist())
    return shown + (f", ... ({len(values)} channels)" if len(values) > _SHOWN_CHANNELS else "")
