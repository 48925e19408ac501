"""Weights of the reference implementation under our names, and ours under the reference's; nothing is lost or guessed.

The reference keeps SiT, projectors and latent normaliser in one module, its autoencoder under the names of latent
diffusion, and its discriminator under the names that ours has too. Every conversion is strict: a key that is not
understood, or one that is missing, is a `UserError`. The values are those given, attention weights of the autoencoder
excepted: 1x1 convolutions there are linear layers here, the same numbers in another shape.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor

from repae.config import UserError
from repae.models.autoencoders.kl import KLAutoencoder, KLConfig
from repae.models.backbones.sit import SiT, SiTConfig
from repae.models.denoiser import Denoiser
from repae.models.discriminator import PatchGAN, PatchGANConfig
from repae.models.latent_norm import LatentNorm

State = Mapping[str, Tensor]

_SHOWN_KEYS = 6
_OURS_ALONE = "refused"
"""A counter of our latent normaliser that the reference does not have."""


def sit_from_reference(state: State) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """State dicts of a `Denoiser` and of a `LatentNorm` from the reference's SiT."""
    table = _sit_names(state)
    _compare(state, table, "the reference's SiT")
    denoiser = {ours: state[theirs] for theirs, ours in table.items() if not ours.startswith("bn.")}
    norm = {ours.removeprefix("bn."): state[theirs] for theirs, ours in table.items() if ours.startswith("bn.")}
    return denoiser, norm | {_OURS_ALONE: torch.zeros((), dtype=torch.int64)}


def sit_to_reference(denoiser: State, latent_norm: State) -> dict[str, Tensor]:
    """The reference's SiT from the state dicts of a `Denoiser` and of a `LatentNorm`."""
    norm = {f"bn.{key}": value for key, value in latent_norm.items() if key != _OURS_ALONE}
    ours = {**denoiser, **norm}
    table = _sit_names(key.removeprefix("backbone.") for key in denoiser)
    _compare(ours, table.values(), "a denoiser with its latent normaliser")
    return {theirs: ours[name] for theirs, name in table.items()}


def vae_from_reference(state: State) -> dict[str, Tensor]:
    """State dict of a `KLAutoencoder` from an autoencoder of the reference or of latent diffusion."""
    vae = _meta_vae(state)
    shapes = {key: value.shape for key, value in vae.state_dict().items()}
    table = {_vae_name(key, len(vae.config.channel_multipliers)): key for key in shapes}
    _compare(state, table, "the reference's autoencoder")
    return {
        ours: state[theirs].reshape(shapes[ours]) if _is_attention_weight(theirs) else state[theirs]
        for theirs, ours in table.items()
    }


def vae_to_reference(state: State) -> dict[str, Tensor]:
    """The reference's autoencoder, in the names of latent diffusion, from the state dict of a `KLAutoencoder`."""
    levels = count_numbered(state, r"model\.encoder\.down_blocks\.(\d+)\.")
    theirs = {_vae_name(key, levels): value for key, value in state.items()}
    expected = _meta_vae(theirs).state_dict()
    _compare(state, expected, "a KL autoencoder")
    return {key: value[:, :, None, None] if _is_attention_weight(key) else value for key, value in theirs.items()}


def kl_config_from_reference(state: State) -> tuple[KLConfig, int]:
    """Sizes of an autoencoder of the reference, and the channels of its images, read from its weights."""
    first = _need(state, "encoder.conv_in.weight")
    base, levels = first.shape[0], range(count_numbered(state, r"encoder\.down\.(\d+)\."))
    widths = [_need(state, f"encoder.down.{level}.block.0.conv1.weight").shape[0] for level in levels]
    config = KLConfig(
        latent_channels=_need(state, "decoder.conv_in.weight").shape[1],
        base_channels=base,
        channel_multipliers=tuple(width // base for width in widths),
        blocks_per_level=count_numbered(state, r"encoder\.down\.\d+\.block\.(\d+)\."),
        attention_levels=tuple(
            level for level in levels if any(key.startswith(f"encoder.down.{level}.attn.") for key in state)
        ),
    )
    return config, first.shape[1]


def discriminator_from_reference(state: State) -> dict[str, Tensor]:
    """State dict of a `PatchGAN` from the reference's discriminator: the same names, checked."""
    convolutions = [key for key, value in state.items() if re.fullmatch(r"main\.\d+\.weight", key) and value.ndim == 4]
    norm = "act" if any(key.endswith(".loc") for key in state) else "batch"
    config = PatchGANConfig(in_channels=1, ndf=1, n_layers=max(len(convolutions) - 2, 1), norm=norm)
    with torch.device("meta"):
        expected = PatchGAN(config).state_dict()
    _compare(state, expected, "a PatchGAN discriminator")
    return dict(state)


def discriminator_to_reference(state: State) -> dict[str, Tensor]:
    """The reference's discriminator from the state dict of a `PatchGAN`: the same names, checked."""
    return discriminator_from_reference(state)


def _sit_names(keys: Iterable[str]) -> dict[str, str]:
    """Our name of each key that a SiT of the reference has which has blocks and projectors as ``keys`` show."""
    keys = list(keys)
    config = SiTConfig(
        input_size=1,
        patch_size=1,
        hidden_size=4,
        num_heads=1,
        depth=max(count_numbered(keys, r"blocks\.(\d+)\."), 1),
        qk_norm=any(".q_norm." in key for key in keys),
    )
    with torch.device("meta"):
        # Names depend on depth and projectors alone, so the smallest such model tells them.
        denoiser = Denoiser(SiT(config), [1] * count_numbered(keys, r"projectors\.(\d+)\."), 1, 1)
        norm = LatentNorm(1)
    names = {key.removeprefix("backbone."): key for key in denoiser.state_dict()}
    return names | {f"bn.{key}": f"bn.{key}" for key in norm.state_dict() if key != _OURS_ALONE}


_VAE_NAMES = [
    (r"^model\.", ""),
    (r"mid_block\.resnets\.0\.", "mid.block_1."),
    (r"mid_block\.resnets\.1\.", "mid.block_2."),
    (r"mid_block\.attentions\.0\.", "mid.attn_1."),
    (r"down_blocks\.", "down."),
    (r"\.resnets\.", ".block."),
    (r"\.attentions\.", ".attn."),
    (r"\.(down|up)samplers\.0\.", r".\1sample."),
    (r"\.conv_shortcut\.", ".nin_shortcut."),
    (r"\.group_norm\.", ".norm."),
    (r"\.to_([qkv])\.", r".\1."),
    (r"\.to_out\.0\.", ".proj_out."),
    (r"\.conv_norm_out\.", ".norm_out."),
]
"""From a key of ours to latent diffusion's, in this order."""


def _vae_name(key: str, levels: int) -> str:
    # Latent diffusion counts the decoder's levels from full resolution down, diffusers the way they are run through.
    key = re.sub(r"up_blocks\.(\d+)\.", lambda found: f"up.{levels - 1 - int(found[1])}.", key)
    for pattern, name in _VAE_NAMES:
        key = re.sub(pattern, name, key)
    return key


def _is_attention_weight(key: str) -> bool:
    return re.search(r"\.attn(_1|\.\d+)\.(q|k|v|proj_out)\.weight$", key) is not None


def _meta_vae(state: State) -> KLAutoencoder:
    config, channels = kl_config_from_reference(state)
    with torch.device("meta"):
        return config.build(channels)


def count_numbered(keys: Iterable[str], pattern: str) -> int:
    """One more than the largest number that the pattern finds at the start of a key."""
    return max((int(found[1]) + 1 for key in keys if (found := re.match(pattern, key))), default=0)


def _need(state: State, key: str) -> Tensor:
    if key not in state:
        raise UserError(f"these are no weights of the reference's autoencoder: {key!r} is missing; give its file")
    return state[key]


def _compare(given: Collection[str], expected: Collection[str], what: str) -> None:
    unknown, missing = sorted(set(given) - set(expected)), sorted(set(expected) - set(given))
    if unknown or missing:
        texts = [
            f"{len(keys)} {word} ({_list(keys)})" for word, keys in (("missing", missing), ("unknown", unknown)) if keys
        ]
        raise UserError(f"these are not exactly the keys of {what}: {' and '.join(texts)}; give the whole file of one")


def _list(keys: list[str]) -> str:
    return ", ".join(keys[:_SHOWN_KEYS]) + (", ..." if len(keys) > _SHOWN_KEYS else "")
