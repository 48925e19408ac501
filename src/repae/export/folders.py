"""Folders that diffusers opens, with nothing of this package, and their way back."""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from repae.config import UserError, one_line, write_atomic
from repae.export.transformers import read_backbone_config, transformer_of
from repae.flow import Guidance, Sampler
from repae.models.autoencoders import (
    Autoencoder,
    DiffusersConfig,
    KLAutoencoder,
    KLConfig,
    TinyAutoencoder,
    TinyConfig,
)
from repae.models.autoencoders.families import KL
from repae.models.bundle import Bundle
from repae.models.denoiser import Denoiser
from repae.models.latent_norm import LatentNorm
from repae.models.weight_files import fit, read_file
from repae.runtime.digest import short_digest

WEIGHTS, INDEX = "diffusion_pytorch_model.safetensors", "model_index.json"
_ATTENDING = ("AttnDownEncoderBlock2D", "AttnUpDecoderBlock2D")


def write_vae(
    folder: Path, vae: Autoencoder, latent_norm: LatentNorm | None, resolution: int, *, alone: bool = True
) -> None:
    """``config.json`` and weights of an autoencoder, as diffusers' own class or with the file of its class beside.

    The configuration carries the statistics, ``latents_mean`` and ``latents_std`` (the normaliser's eps included), with
    ``scaling_factor`` 1: normalised = (latent - mean) / std, as diffusers' pipelines do where they find the two.
    ``alone``: the folder is no part of a pipeline, whose index would name the class.

    Raises:
        UserError: an autoencoder that diffusers' class cannot describe.
    """
    facts: dict[str, Any] = {"sample_size": resolution, "scaling_factor": 1.0}
    if latent_norm is not None:
        # eps goes in: diffusers' pipelines divide by this number and add nothing.
        std = (latent_norm.running_var + latent_norm.eps).sqrt()
        facts |= {"latents_mean": latent_norm.running_mean.tolist(), "latents_std": std.tolist()}
    if isinstance(vae, (KLAutoencoder, KL)):
        if isinstance(vae, KLAutoencoder) and vae.config.channel_multipliers[0] != 1:
            raise UserError(
                f"vae.channel_multipliers {vae.config.channel_multipliers} do not begin with 1, and diffusers' "
                "AutoencoderKL has no word for that; export with --format reference"
            )
        # A copy, since registering facts changes the configuration of the model that is registered.
        model = copy.deepcopy(vae.model)
        model.register_to_config(**facts, shift_factor=None)
        model.save_pretrained(folder)
        return
    if not isinstance(vae, TinyAutoencoder):
        raise UserError(
            f"a {type(vae).__name__} autoencoder cannot be exported: only AutoencoderKL carries per-channel statistics "
            "that a stranger's code applies; the run itself keeps everything, share its folder"
        )
    from repae.export.standalone.tiny_autoencoder import TinyAutoencoder as Standalone

    sizes = vae.config.model_dump(include={"latent_channels", "base_channels"})
    tiny = Standalone(in_channels=vae.image_channels, **sizes, **facts)
    tiny.load_state_dict(vae.state_dict())
    tiny.save_pretrained(folder)
    _carry(folder, "tiny_autoencoder")
    if alone:
        config = read_json(folder / "config.json") | {"auto_map": {"AutoModel": "tiny_autoencoder.TinyAutoencoder"}}
        write_atomic(folder / "config.json", json.dumps(config, indent=2) + "\n")


def write_pipeline(
    folder: Path,
    bundle: Bundle,
    *,
    path: str,
    sampler: Sampler,
    guidance: Guidance,
    precision: str,
    class_names: list[str],
    resolution: int,
) -> None:
    """A ``SiTPipeline``: ``transformer``, ``vae``, and the files of code that open them.

    Args:
        path: the kind of path that the denoiser was trained on.
        sampler, guidance, precision: what a call does by default.
    """
    import diffusers

    write_vae(folder / "vae", bundle.vae, bundle.latent_norm, resolution, alone=False)
    transformer = transformer_of(bundle.denoiser.backbone, short_digest(bundle.vae.state_dict()))
    transformer.save_pretrained(folder / "transformer")
    _carry(folder / "transformer", "sit_transformer")
    tiny = isinstance(bundle.vae, TinyAutoencoder)
    defaults = sampler.model_dump(include={"steps", "guide_by_end", "last"})
    index = {
        "_class_name": ["pipeline", "SiTPipeline"],
        "_diffusers_version": diffusers.__version__,
        "transformer": ["sit_transformer", type(transformer).__name__],
        "vae": ["tiny_autoencoder", "TinyAutoencoder"] if tiny else ["diffusers", "AutoencoderKL"],
        "path": path,
        "sampler": sampler.model_dump()["kind"],
        **defaults,
        **{f"guidance_{name}": value for name, value in guidance.model_dump().items()},
        "precision": precision,
        "id2label": {str(number): name for number, name in enumerate(class_names)},
    }
    write_atomic(folder / INDEX, json.dumps(index, indent=2) + "\n")
    _carry(folder, "pipeline")


def read_pipeline(folder: Path) -> tuple[Bundle, dict[str, Any]]:
    """The bundle in a folder of `write_pipeline`, and what its ``model_index.json`` says.

    Raises:
        UserError: the folder holds another pipeline, or a part is missing or does not fit.
    """
    index = read_json(folder / INDEX)
    if index.get("_class_name") not in ("SiTPipeline", ["pipeline", "SiTPipeline"]):
        raise UserError(
            f"{folder} holds the diffusers pipeline {index.get('_class_name')!r}; allowed: SiTPipeline, which "
            "`repae export` writes"
        )
    vae, norm = read_vae(folder / "vae")
    if norm is None:
        raise UserError(f"{folder / 'vae'} has no latents_mean and latents_std; export it again")
    config = read_json(folder / "transformer" / "config.json")
    denoiser = Denoiser(read_backbone_config(config).build(), [], 1, 1)
    state = read_file(folder / "transformer" / WEIGHTS)
    _load(denoiser, {f"backbone.{name}": value for name, value in state.items()}, folder / "transformer")
    return Bundle("export", denoiser, vae, norm), index


def read_vae(folder: Path) -> tuple[Autoencoder, LatentNorm | None]:
    """The autoencoder in a folder of diffusers, and the normaliser where its configuration carries statistics.

    Raises:
        UserError: an autoencoder of another kind, or weights that do not fit.
    """
    config = read_json(folder / "config.json")
    state = read_file(folder / WEIGHTS)
    kind = config.get("_class_name")
    if kind == "TinyAutoencoder":
        sizes = TinyConfig(latent_channels=config["latent_channels"], base_channels=config["base_channels"])
        vae: Autoencoder = sizes.build(config["in_channels"])
    elif kind == "AutoencoderKL":
        vae = _kl(config)
        state = {f"model.{name}": value for name, value in renamed_attention(state).items()}
    else:
        raise UserError(f"{folder} holds a {kind}; allowed: AutoencoderKL, TinyAutoencoder")
    _load(vae, state, folder)
    if config.get("latents_mean") is None or config.get("latents_std") is None:
        return vae, None
    norm = LatentNorm(vae.latent_channels).eval()
    std = torch.tensor(config["latents_std"], dtype=torch.float64)
    # What was added on the way out is taken off, so that the round trip gives the same statistics.
    norm.set_statistics(torch.tensor(config["latents_mean"]), (std.square() - norm.eps).clamp_min(1e-12).sqrt())
    return vae, norm


def renamed_attention(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An autoencoder's weights with diffusers' present names of attention; published files of 2022 have the first ones.

    Those of Stable Diffusion, which REPA and SiT were trained on, are among them.
    """
    names = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
    pattern = re.compile(rf"(attentions\.\d+)\.({'|'.join(names)})\.")
    return {pattern.sub(lambda found: f"{found[1]}.{names[found[2]]}.", key): value for key, value in state.items()}


def read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {one_line(error)}; fetch or export the folder again") from None
    if not isinstance(data, dict):
        raise UserError(f"{path} holds a JSON {type(data).__name__}, no object; fetch or export the folder again")
    return data


def _carry(folder: Path, module: str) -> None:
    with resources.as_file(resources.files("repae.export.standalone") / f"{module}.py") as file:
        shutil.copyfile(file, folder / f"{module}.py")


def _kl(config: Mapping[str, Any]) -> Autoencoder:
    """Our own KL autoencoder where the configuration describes one, else diffusers' behind the adapter."""
    widths, blocks = config["block_out_channels"], config["down_block_types"]
    known = {"DownEncoderBlock2D", "UpDecoderBlock2D", *_ATTENDING}
    plain = all(config.get(name, True) for name in ("use_quant_conv", "use_post_quant_conv", "mid_block_add_attention"))
    if not {*blocks, *config["up_block_types"]} <= known or not plain or any(width % widths[0] for width in widths):
        fields = {name: value for name, value in config.items() if name == "_class_name" or not name.startswith("_")}
        return DiffusersConfig(architecture=fields).build(config["in_channels"])
    return KLConfig(
        latent_channels=config["latent_channels"],
        base_channels=widths[0],
        channel_multipliers=tuple(width // widths[0] for width in widths),
        blocks_per_level=config["layers_per_block"],
        attention_levels=tuple(level for level, block in enumerate(blocks) if block in _ATTENDING),
    ).build(config["in_channels"])


def _load(module: torch.nn.Module, state: Mapping[str, Tensor], where: Path) -> None:
    fit(module, state, f"the weights in {where} do not fit their config.json", "fetch or export the folder again")
    module.eval().requires_grad_(False)
