"""Files of the reference, of REPA, SiT and LightningDiT as folders that every command opens."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import PositiveInt

from repae.config import Config, UserError, write_atomic
from repae.data import DigitsConfig, FolderConfig
from repae.export.reference import Contents, Origin, read_reference
from repae.models.autoencoders import KLAutoencoder
from repae.models.backbones.base import BACKBONES
from repae.models.teachers.catalogue import CATALOGUE, short_name
from repae.models.teachers.timm import TimmTeacherConfig
from repae.recipes.recipe import Recipe, RuntimeConfig
from repae.runs.weights import read_autoencoder
from repae.runtime.checkpoint import CheckpointStore
from repae.runtime.digest import sha256_of
from repae.training.method import MethodConfig
from repae.training.methods import Repa, RepaE, VaeOnly
from repae.training.setup import DiscriminatorConfig, LatentNormConfig


class ImportSettings(Config):
    """What a file of weights does not say itself.

    Attributes:
        out: the folder to make.
        vae: the autoencoder that a generator without one was trained on: a folder of diffusers or of a run, or a file.
        statistics: a -latents-stats.pt or latents_stats.pt file, where the file's own neighbour is not the right one
            or there is none.
        num_heads: attention heads of a generator of no published size.
        origin: REPA or SiT, where the weights do not show whose they are: time runs in opposite directions.
        data: folder of the images it was trained on, for `repae evaluate`.
    """

    out: str = ""
    vae: str | None = None
    statistics: str | None = None
    num_heads: PositiveInt | None = None
    origin: Origin | None = None
    data: str | None = None


class _Held:
    """A state as a part of a checkpoint."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state

    def state_dict(self) -> dict[str, Any]:
        return self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.state = state_dict


def import_file(file: Path, settings: ImportSettings) -> tuple[Path, list[str]]:
    """Makes a folder with ``recipe.yaml`` and one checkpoint of a file of weights.

    Returns:
        The folder, and what was done with the file that its owner should know.

    Raises:
        UserError: a file that is refused or unknown, sizes that do not fit each other, or a folder that is not empty.
    """
    out = empty_folder(settings.out)
    contents = read_reference(
        file,
        num_heads=settings.num_heads,
        origin=settings.origin,
        statistics=Path(settings.statistics) if settings.statistics else None,
    )
    given = _with_autoencoder(contents, file, settings)
    assert contents.vae is not None
    recipe, resolution = _recipe(contents, out.name, file, settings)
    meta = {
        "recipe": recipe.model_dump(mode="json"),
        "resolution": resolution,
        "image_channels": contents.vae[1],
        "class_names": [str(number) for number in range(recipe.num_classes or 0)],
        "data": None,
        "z_dims": list(contents.sizes.z_dims) if contents.sizes else [],
        "imported": {
            "file": file.name,
            "sha256": sha256_of(file),
            "origin": contents.origin,
            "vae": "given" if given else "own",
            "notes": contents.notes,
        },
    }
    CheckpointStore(out / "checkpoints").save(contents.step, _parts(contents), meta)
    write_atomic(out / "recipe.yaml", recipe.to_yaml())
    return out, contents.notes


def empty_folder(out: str) -> Path:
    """The folder that ``--out`` names; refused if there is anything in it."""
    if not out:
        raise UserError("--out is missing: name the folder to make")
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already and not empty; choose another folder, or remove it")
    return folder


def _with_autoencoder(contents: Contents, file: Path, settings: ImportSettings) -> bool:
    """Puts the autoencoder that was named into the contents; whether it was needed."""
    if "vae" in contents.parts:
        if settings.vae is not None:
            raise UserError(f"{file} holds its own autoencoder; leave --vae out")
        return False
    if settings.vae is None:
        raise UserError(
            f"{file} holds a generator without its autoencoder, and neither is of use alone; "
            "name the one that it was trained on: --vae FOLDER or FILE"
        )
    vae, _ = read_autoencoder(Path(settings.vae))
    if not isinstance(vae, KLAutoencoder):
        raise UserError(
            "generators of REPA, SiT and LightningDiT belong to KL autoencoders; --vae names one of another kind"
        )
    contents.vae = (vae.config, vae.image_channels)
    contents.parts["vae"] = vae.state_dict()
    contents.notes.append(
        f"its autoencoder is {Path(settings.vae).name}, as you said; nothing in the file can confirm it"
    )
    return True


def _recipe(contents: Contents, name: str, file: Path, settings: ImportSettings) -> tuple[Recipe, int]:
    assert contents.vae is not None
    vae, channels = contents.vae
    args, sizes = contents.settings, contents.sizes
    resolution = int(args.get("resolution") or 256)
    if sizes is not None:
        resolution = sizes.backbone.input_size * vae.factor
        if sizes.backbone.in_channels != vae.latent_channels:
            raise UserError(
                f"the generator takes latents of {sizes.backbone.in_channels} channels, the autoencoder makes "
                f"{vae.latent_channels}; they do not belong together"
            )
    folder = FolderConfig(path=settings.data or "data/imagenet/train", resolution=resolution)
    widths = sizes.z_dims if sizes is not None else ()
    named = str(args.get("enc_type") or "") if widths else ""
    teachers = _teachers(named, widths)
    if named and not teachers:
        contents.notes.append(
            f"it was aligned to {named}, which are not all teachers of `repae teachers` with these widths: the recipe "
            "names none of them, for a projector belongs to a teacher by its place"
        )
    discriminator = None
    if contents.discriminator is not None:
        discriminator = DiscriminatorConfig(**contents.discriminator.model_dump(exclude={"in_channels"}))
    source = f"the layout of {contents.origin}" if contents.origin else "the reference's autoencoder"
    fields: dict[str, Any] = {
        "name": re.sub(r"[^A-Za-z0-9._-]+|^[^A-Za-z0-9]+", "-", name).lstrip("-._") or "imported",
        "about": f"Imported from {file.name} ({source}{f', teacher {named}' if named and not teachers else ''}).",
        "method": _method(contents),
        "vae": vae,
        "discriminator": discriminator,
        "data": folder if channels == 3 or settings.data else DigitsConfig(resolution=resolution),  # type: ignore[arg-type]
        # The reference draws its images in float32.
        "runtime": RuntimeConfig(precision="fp32"),
        "bundle": "reference" if sizes is not None else "live",
    }
    if sizes is not None:
        own = BACKBONES.members[sizes.backbone.kind]
        kept = {key: value for key, value in sizes.backbone.model_dump().items() if key in own.model_fields}
        fields |= {
            "backbone": own(**kept, encoder_depth=sizes.encoder_depth, projector_dim=sizes.projector_dim),
            "path": {"kind": contents.path},
            "num_classes": sizes.backbone.num_classes,
            "teachers": teachers,
            "latent_norm": LatentNormConfig(momentum=float(args.get("bn_momentum") or 0.1)),
        }
    return Recipe(**fields), resolution


def _teachers(named: str, widths: Sequence[int]) -> tuple[TimmTeacherConfig, ...]:
    """The teachers that the reference calls ``enc_type``, in the order of the projectors; none unless all are known."""
    names = [short_name(name) for name in named.split(",")]
    known = [CATALOGUE[name].dim if name in CATALOGUE else None for name in names]
    return tuple(TimmTeacherConfig(name=name) for name in names) if known == list(widths) else ()


def _method(contents: Contents) -> MethodConfig:
    if contents.sizes is None:
        return VaeOnly()
    alignment = float(contents.settings.get("proj_coeff") or 0.5) if contents.sizes.z_dims else 0.0
    if "discriminator" in contents.parts:
        return RepaE(
            proj_coeff=alignment, vae_align_proj_coeff=float(contents.settings.get("vae_align_proj_coeff") or 1.5)
        )
    return Repa(proj_coeff=alignment)


def _parts(contents: Contents) -> dict[str, _Held]:
    states = dict(contents.parts)
    if contents.sizes is None:
        # A run of an autoencoder has an average among its parts; here it is the weights themselves.
        states["ema_vae"] = states["vae"]
    averages = {name: {"module": state, "count": contents.step} for name, state in states.items() if name[:4] == "ema_"}
    reference = {"reference": contents.extra} if contents.extra else {}
    return {name: _Held(state) for name, state in (states | averages | reference).items()}
