"""Runs as folders for others: diffusers' layout, the reference's layout, or the autoencoder alone."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from repae import __version__
from repae.commands.import_weights import empty_folder
from repae.config import Config, UserError, atomic_folder, check, write_atomic
from repae.export.card import Card
from repae.export.folders import INDEX, write_pipeline, write_vae
from repae.export.reference import autoencoder_files, to_reference
from repae.export.sizes import published_name
from repae.models.autoencoders import KLConfig, TinyAutoencoder
from repae.models.backbones import SiTConfig
from repae.recipes.recipe import Recipe
from repae.runs.open import ORIGIN, load
from repae.runs.weights import newest_of, own_part, read_autoencoder
from repae.runtime.checkpoint import CheckpointStore, Saved
from repae.runtime.digest import short_digest
from repae.training.state import BUNDLES, BundleName


class ExportSettings(Config):
    """What is exported, and how.

    Attributes:
        out: the folder to make.
        format: a folder that diffusers opens, or files in the reference's layout.
        part: everything, or the autoencoder alone with its statistics.
        bundle: which weights of a generator; none takes the recipe's choice.
        license: identifier of the licence for the model card, such as apache-2.0.
    """

    out: str = ""
    format: Literal["diffusers", "reference"] = "diffusers"
    part: Literal["all", "vae"] = "all"
    bundle: BundleName | None = None
    license: str | None = None


def export(folder: Path, settings: ExportSettings) -> Path:
    """Writes a run, or what was imported, for others; the folder appears whole or not at all.

    Raises:
        UserError: no run, nothing in it that the format has a place for, or a folder that is not empty.
    """
    out = empty_folder(settings.out)
    with atomic_folder(out) as unfinished:
        if settings.format == "reference":
            _write_reference(folder, unfinished, settings)
        elif settings.part == "vae":
            _write_autoencoder(folder, unfinished, settings)
        else:
            _write_pipeline(folder, unfinished, settings)
    return out


def _write_pipeline(folder: Path, place: Path, settings: ExportSettings) -> None:
    run = load(folder, settings.bundle)
    recipe, bundle = run.recipe, run.bundle
    guided = bundle.null_label is not None
    preview = recipe.preview
    write_pipeline(
        place,
        bundle,
        path=recipe.path.kind,
        sampler=preview.sampler,
        guidance=preview.guidance if guided else preview.guidance.replace(scale=1.0),
        precision=recipe.runtime.precision,
        class_names=run.meta["class_names"],
        resolution=run.meta["resolution"],
    )
    networks = {"generator": bundle.denoiser.backbone, "autoencoder": bundle.vae}
    _describe(folder, place, recipe, Saved(run.step, run.meta), bundle.name, networks, settings.license)


def _write_autoencoder(folder: Path, place: Path, settings: ExportSettings) -> None:
    if (folder / INDEX).is_file():
        raise UserError(f"{folder} is an exported folder; its autoencoder is {folder / 'vae'} already")
    if settings.bundle is not None:
        raise UserError("--bundle chooses a generator's weights; an autoencoder is exported from the run's own bundle")
    store, newest = newest_of(_run(folder))
    saved = store.describe(newest)
    recipe = check(Recipe, saved.meta["recipe"], str(newest))
    vae, norm = read_autoencoder(folder)
    write_vae(place, vae, norm, saved.meta["resolution"])
    bundle = recipe.own_bundle if own_part(store, newest, 1) == BUNDLES[recipe.own_bundle][1] else "live"
    _describe(folder, place, recipe, saved, bundle, {"autoencoder": vae}, settings.license)


def _write_reference(folder: Path, place: Path, settings: ExportSettings) -> None:
    store, newest = newest_of(_run(folder))
    saved = store.describe(newest)
    recipe = check(Recipe, saved.meta["recipe"], str(newest))
    if settings.license is not None:
        raise UserError("--license belongs to a model card, which the reference's format has not")
    parts = _parts(store, newest)
    bundle = _bundle(store, newest, settings.bundle)
    if recipe.vae.kind != "kl":
        raise UserError(f"the reference has no autoencoder of kind {recipe.vae.kind!r}; use --format diffusers")
    if settings.part == "vae" or not recipe.method.traits.generates:
        for ending, state in autoencoder_files(parts, bundle).items():
            torch.save(state, place / f"{recipe.name}{ending}.pt")
        return
    contents = to_reference(parts, bundle, _args(recipe, saved.meta), saved.step)
    # torch.save, since the reference's own scripts load nothing else.
    torch.save(contents, place / f"{saved.step:07d}.pt")
    if isinstance(args := contents.get("args"), argparse.Namespace):
        write_atomic(place / "args.json", json.dumps(vars(args), indent=4) + "\n")


def _parts(store: CheckpointStore, newest: Path) -> dict[str, Any]:
    """States of the weights of a checkpoint and of what was imported with them, by part."""
    wanted = {part for bundle in BUNDLES.values() for part in bundle} | {"discriminator", "reference"}
    present = json.loads((newest / "state.json").read_text(encoding="utf-8"))["parts"].keys()
    return {part: store.read(newest, part) for part in wanted & present}


def _bundle(store: CheckpointStore, newest: Path, name: BundleName | None) -> tuple[str, str, str]:
    """Parts of the bundle that was asked for, or of the run's own as far as it has them."""
    if name is None:
        denoiser, vae, norm = (own_part(store, newest, place) or "" for place in range(3))
        return denoiser, vae, norm
    missing = [part for part in BUNDLES[name] if not (newest / f"{part}.safetensors").is_file()]
    if missing:
        raise UserError(f"bundle {name!r} is not in {newest}: {', '.join(missing)} is missing; leave --bundle out")
    return BUNDLES[name]


def _args(recipe: Recipe, meta: dict[str, Any]) -> dict[str, Any]:
    """Settings of a run that was trained here under the reference's names, as far as our import reads them."""
    assert isinstance(recipe.vae, KLConfig), recipe.vae
    own = recipe.backbone
    sit = own.sized(own.patch_size, recipe.vae.latent_channels, len(meta["class_names"]))
    if not isinstance(sit, SiTConfig):
        raise UserError(f"the reference has no backbone of kind {own.kind!r}; export with --format diffusers")
    weights = recipe.method.model_dump(exclude={"kind"})
    return {
        "exp_name": recipe.name,
        "model": published_name(sit),
        "num_heads": sit.num_heads,
        "num_classes": sit.num_classes,
        "cfg_prob": sit.class_dropout_prob,
        "encoder_depth": own.encoder_depth,
        "qk_norm": sit.qk_norm,
        "fused_attn": sit.fused_attn,
        "bn_momentum": recipe.latent_norm.momentum,
        "path_type": recipe.path.kind,
        "prediction": "v",
        "weighting": recipe.time.kind.replace("-", ""),
        "resolution": meta["resolution"],
        **weights,
    }


def _describe(
    folder: Path,
    place: Path,
    recipe: Recipe,
    saved: Saved,
    bundle: str,
    networks: dict[str, nn.Module],
    licence: str | None,
) -> None:
    """Writes the card, the recipe and where it comes from beside the weights of ``networks``."""
    step, meta = saved
    digests = {name: short_digest(network.state_dict()) for name, network in networks.items()}
    count = f"{len(meta['class_names'])} classes, {meta['resolution']} px"
    known = f"fingerprint `{meta['data']}`" if meta["data"] else "not known: these weights were imported"
    imported = meta.get("imported") or {}
    card = Card(
        name=recipe.name,
        about=recipe.about,
        recipe=recipe.model_dump(mode="json"),
        training=f"{step:,}" + ("" if imported else f" of {recipe.loop.batch_size} images"),
        origin=_origin_of_autoencoder(recipe, imported),
        bundle=bundle,
        data=f"{recipe.data.kind}, {count}, {known}",
        figures=_figures(folder, bundle, recipe, step),
        licence=licence,
        generator="generator" in networks,
        tiny=isinstance(networks["autoencoder"], TinyAutoencoder),
        digests=digests,
        notes=list(imported.get("notes", [])),
    )
    origin = {
        "repae": __version__,
        "name": recipe.name,
        "step": step,
        "bundle": bundle,
        "digests": digests,
        "meta": {key: value for key, value in meta.items() if key != "recipe"},
    }
    write_atomic(place / ORIGIN, json.dumps(origin, indent=2) + "\n")
    write_atomic(place / "recipe.yaml", recipe.to_yaml())
    write_atomic(place / "README.md", str(card))


def _origin_of_autoencoder(recipe: Recipe, imported: dict[str, Any]) -> str:
    if imported and imported["vae"] == "given":
        return "was named at the import of a generator"
    traits = recipe.method.traits
    if traits.generates and "vae" in traits.trains:
        return "was trained jointly with its generator"
    if imported:
        return "was imported, and how it was trained is not known here"
    return "was frozen under its generator" if traits.generates else "was trained without a generator"


def _figures(folder: Path, bundle: str, recipe: Recipe, step: int) -> dict[str, Any] | None:
    """What `repae evaluate` measured of these very weights, if it did and the run has not gone on since."""
    file = folder / ("evaluation.json" if bundle == recipe.own_bundle else f"evaluation-{bundle}.json")
    if not file.is_file():
        return None
    figures = json.loads(file.read_text(encoding="utf-8"))
    return figures if figures["protocol"]["step"] == step else None


def _run(folder: Path) -> Path:
    if not (folder / "checkpoints").is_dir():
        raise UserError(f"{folder} is no run: it has no checkpoints; give the folder of a run or of an import")
    return folder
