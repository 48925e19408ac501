"""Every family of diffusers' autoencoders, small: factor 4, for images of 16 pixels."""

from __future__ import annotations

from typing import Any

import torch

from repae.models.autoencoders import DiffusersAutoencoder, DiffusersConfig

_LEVELS: dict[str, Any] = {"layers_per_block": 1, "norm_num_groups": 4, "mid_block_add_attention": True}


def _levels(count: int) -> dict[str, Any]:
    return {
        **_LEVELS,
        "block_out_channels": [8] * count,
        "down_block_types": ["DownEncoderBlock2D"] * count,
        "up_block_types": ["UpDecoderBlock2D"] * count,
    }


_ARCHITECTURES: dict[str, dict[str, Any]] = {
    "sd": {"_class_name": "AutoencoderKL", **_levels(3), "latent_channels": 4, "scaling_factor": 0.2},
    "sdxl": {
        "_class_name": "AutoencoderKL",
        **_levels(3),
        "latent_channels": 4,
        "scaling_factor": 0.5,
        "latents_mean": [-1.6, 0.2, 0.4, -0.1],
        "latents_std": [8.4, 5.9, 6.5, 4.8],
    },
    "flux1": {
        "_class_name": "AutoencoderKL",
        **_levels(3),
        "latent_channels": 4,
        "scaling_factor": 0.3611,
        "shift_factor": 0.1159,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    },
    "flux2": {"_class_name": "AutoencoderKLFlux2", **_levels(2), "latent_channels": 1},
    "qwen": {
        "_class_name": "AutoencoderKLQwenImage",
        "base_dim": 8,
        "z_dim": 4,
        "dim_mult": [1, 1, 2],
        "num_res_blocks": 1,
        "temperal_downsample": [False, True],
        "latents_mean": [-0.7, 0.1, 0.5, -0.2],
        "latents_std": [2.8, 1.4, 2.3, 0.9],
    },
    "dc": {
        "_class_name": "AutoencoderDC",
        "latent_channels": 4,
        "attention_head_dim": 8,
        "encoder_block_types": ["ResBlock", "ResBlock", "EfficientViTBlock"],
        "decoder_block_types": ["ResBlock", "ResBlock", "EfficientViTBlock"],
        "encoder_block_out_channels": [8, 8, 16],
        "decoder_block_out_channels": [8, 8, 16],
        "encoder_layers_per_block": [1, 1, 1],
        "decoder_layers_per_block": [1, 1, 1],
        "encoder_qkv_multiscales": [[], [], [5]],
        "decoder_qkv_multiscales": [[], [], [5]],
        "scaling_factor": 0.41407,
    },
    "vq": {
        "_class_name": "VQModel",
        **_levels(3),
        "latent_channels": 4,
        "num_vq_embeddings": 16,
        "scaling_factor": 0.3,
    },
    "rae": {
        "_class_name": "AutoencoderRAE",
        "encoder_hidden_size": 64,
        "encoder_patch_size": 14,
        "encoder_num_hidden_layers": 1,
        "encoder_input_size": 56,
        "patch_size": 4,
        "decoder_hidden_size": 32,
        "decoder_num_hidden_layers": 1,
        "decoder_num_attention_heads": 2,
        "decoder_intermediate_size": 32,
        "scaling_factor": 0.8,
        "noise_tau": 0.5,
    },
}

FAMILIES = list(_ARCHITECTURES)
TRAINABLE = [name for name in FAMILIES if name != "rae"]
DETERMINISTIC = ["dc", "vq", "rae"]


def config(name: str, **changes: Any) -> DiffusersConfig:
    """Its configuration, without weights."""
    return DiffusersConfig(architecture=_ARCHITECTURES[name] | changes)


def built(name: str, **changes: Any) -> DiffusersAutoencoder:
    """The autoencoder in eval mode, always with the same weights, its published statistics no trivial ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        vae = config(name, **changes).build().eval()
        if name == "flux2":
            vae.model.bn.running_mean.normal_()
            vae.model.bn.running_var.uniform_(0.5, 3.0)
        if name == "vq":
            vae.model.quantize.embedding.weight.data.normal_(std=0.3)
    return vae
