"""Reduced teachers as their authors publish them: the original key names, from independent implementations' weights.

The implementations are transformers' (and one written out here, of Perception Encoder). Each function gives the file's
content, a function of the pixels that a transformer sees, which gives its patch tokens, and the reduced size.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

WIDTH, DEPTH, HEADS, HIDDEN = 32, 3, 4, 128
SIZE: dict[str, Any] = {"embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS}
LIKE: dict[str, Any] = {
    "hidden_size": WIDTH,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": HEADS,
    "intermediate_size": HIDDEN,
}


class Published(NamedTuple):
    """What the authors would publish, what it computes, and how timm's model of that name is made as small."""

    file: dict[str, Any]
    tokens: Callable[[Tensor], Tensor]
    size: dict[str, Any]


def scrambled(model: nn.Module) -> nn.Module:
    """Every weight moved off its initial value, zeros and ones above all."""
    source = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=source))
    return model.eval()


def renamed(state: Mapping[str, Tensor], names: list[tuple[str, str]]) -> dict[str, Tensor]:
    """The state under other names, query, key and value of a block in one tensor where the names ask for ``#q``."""
    out: dict[str, Tensor] = {}
    for key, value in state.items():
        for pattern, name in names:
            key = re.sub(pattern, name, key)
        out[key] = value
    for key in [key for key in out if "#q" in key]:
        parts = [out.pop(key.replace("#q", f"#{part}"), torch.zeros(WIDTH)) for part in "qkv"]
        out[key.replace("#q.", "qkv.").replace("#q_", "in_proj_")] = torch.cat(parts)
    return out


_VIT = [
    (r"^embeddings\.cls_token", "cls_token"),
    (r"^embeddings\.position_embeddings", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^(?:encoder\.layer|layers)\.", "blocks."),
    (r"layernorm_before", "norm1"),
    (r"layernorm_after", "norm2"),
    (r"attention\.([qkv])_proj\.", r"attn.#\1."),
    (r"attention\.o_proj\.", "attn.proj."),
    (r"^layernorm\.", "norm."),
]


def dinov1() -> Published:
    """DINO: a plain state dict of the backbone."""
    model = scrambled(transformers.ViTModel(_vit(32, 16), add_pooling_layer=False))
    return Published(renamed(model.state_dict(), _VIT), _after(model, 1), SIZE)


def mae() -> Published:
    """MAE: key ``model``. The reference stops before the encoder's final norm."""
    config = transformers.ViTMAEConfig(
        **LIKE, image_size=32, patch_size=16, mask_ratio=0.0, layer_norm_eps=1e-6, attn_implementation="eager"
    )
    model = scrambled(transformers.ViTMAEModel(config))
    order = torch.arange(4).float()[None] / 4  # no token is masked, and none changes its place
    model.layernorm = nn.LayerNorm(WIDTH, eps=1e-6)
    file = {"model": renamed(model.state_dict(), _VIT)}

    def tokens(pixels: Tensor) -> Tensor:
        last = model(pixels, noise=order.expand(len(pixels), -1), output_hidden_states=True).hidden_states[-1]
        return last[:, 1:]

    return Published(file, tokens, SIZE)


def ijepa() -> Published:
    """I-JEPA: key ``encoder`` of a training checkpoint, with the data-parallel wrapper's prefix; no class token."""
    config = transformers.IJepaConfig(**LIKE, image_size=28, patch_size=14, layer_norm_eps=1e-6)
    model = scrambled(transformers.IJepaModel(config, add_pooling_layer=False))
    encoder = {f"module.{key}": value for key, value in renamed(model.state_dict(), _VIT).items()}
    file = {"encoder": encoder, "target_encoder": encoder, "predictor": {}, "opt": {"state": {}}, "epoch": 300}
    return Published(file, _after(model, 0), SIZE)


def mocov3() -> Published:
    """MoCo v3: key ``state_dict`` with two encoders, heads and a predictor, as trained in parallel."""
    model = scrambled(transformers.ViTModel(_vit(32, 16), add_pooling_layer=False))
    plain = renamed(model.state_dict(), _VIT)
    state = {f"module.base_encoder.{key}": value for key, value in plain.items()}
    state |= {f"module.momentum_encoder.{key}": torch.zeros_like(value) for key, value in plain.items()}
    for name in ("base_encoder.head", "momentum_encoder.head", "predictor"):
        state[f"module.{name}.0.weight"] = torch.randn(8, WIDTH)
        state[f"module.{name}.1.running_mean"] = torch.randn(8)
    file = {"epoch": 300, "arch": "vit_base", "state_dict": state, "optimizer": {"state": {}}, "scaler": {}}
    return Published(file, _after(model, 1), SIZE)


def dinov2() -> Published:
    """DINOv2: a plain state dict, with the mask token of its pretraining."""
    config = transformers.Dinov2Config(**_dinov2_like())
    model = scrambled(transformers.Dinov2Model(config))
    return Published(renamed(model.state_dict(), _DINOV2), _after(model, 1), SIZE)


def dinov2reg() -> Published:
    """DINOv2 with four registers, whose places the position table leaves out."""
    config = transformers.Dinov2WithRegistersConfig(**_dinov2_like(), num_register_tokens=4)
    model = scrambled(transformers.Dinov2WithRegistersModel(config))
    return Published(renamed(model.state_dict(), _DINOV2), _after(model, 5), SIZE)


def dinov2_giant() -> Published:
    """The giant's gated MLP: two thirds of the width, gate and value in one matrix."""
    config = transformers.Dinov2Config(**_dinov2_like(), use_swiglu_ffn=True)
    model = scrambled(transformers.Dinov2Model(config))
    state = renamed(model.state_dict(), _DINOV2)
    for key in [key for key in state if "gate_proj" in key]:
        up = state.pop(key.replace("gate_proj", "up_proj"))
        state[key.replace("gate_proj", "w12")] = torch.cat([state.pop(key), up])
    state = {key.replace("down_proj", "w3"): value for key, value in state.items()}
    hidden = state["blocks.0.mlp.w3.weight"].shape[1]
    return Published(state, _after(model, 1), {**SIZE, "mlp_ratio": 2 * hidden / WIDTH})


def dinov3() -> Published:
    """DINOv3: registers called storage tokens, rotary periods and the mask of the key's bias in the file."""
    return _dinov3(gated=False)


def dinov3_huge() -> Published:
    """The huge one's gated MLP, in the authors' three matrices."""
    return _dinov3(gated=True)


def _dinov3(*, gated: bool) -> Published:
    kind = {"use_gated_mlp": True, "hidden_act": "silu"} if gated else {}
    config = transformers.DINOv3ViTConfig(**LIKE, image_size=32, patch_size=16, num_register_tokens=4, **kind)
    model = scrambled(transformers.DINOv3ViTModel(config))
    with torch.no_grad():
        for block in model.model.layer:
            # timm's models have no biases there, since those of the published files are zero.
            for projection in (block.attention.q_proj, block.attention.v_proj):
                projection.bias.zero_()
    names = [
        (r"^embeddings\.register_tokens", "storage_tokens"),
        (r"^embeddings\.patch_embeddings\.", "patch_embed.proj."),
        (r"^embeddings\.", ""),
        (r"^model\.layer\.", "blocks."),
        (r"attention\.([qkv])_proj\.", r"attn.#\1."),
        (r"attention\.o_proj\.", "attn.proj."),
        (r"layer_scale([12])\.lambda1", r"ls\1.gamma"),
        *([(r"mlp\.gate_proj\.", "mlp.w1."), (r"mlp\.up_proj\.", "mlp.w2."), (r"mlp\.down_proj\.", "mlp.w3.")] if gated
          else [(r"mlp\.up_proj\.", "mlp.fc1."), (r"mlp\.down_proj\.", "mlp.fc2.")]),
    ]  # fmt: skip
    state = renamed(model.state_dict(), names)
    state["rope_embed.periods"] = torch.ones(WIDTH // HEADS // 4)
    for block in range(DEPTH):
        state[f"blocks.{block}.attn.qkv.bias_mask"] = torch.ones(3 * WIDTH)
    return Published(state, _after(model, 5), {**SIZE, **({"mlp_ratio": HIDDEN / WIDTH} if gated else {})})


def clip() -> Published:
    """CLIP: vision and text tower in one state dict. The reference stops before the final norm and the projection."""
    config = transformers.CLIPVisionConfig(**LIKE, image_size=28, patch_size=14, hidden_act="quick_gelu")
    model = scrambled(transformers.CLIPVisionModel(config))
    names = [
        (r"^vision_model\.", ""),
        (r"^embeddings\.class_embedding", "class_embedding"),
        (r"^embeddings\.patch_embedding\.", "conv1."),
        (r"^embeddings\.position_embedding\.weight", "positional_embedding"),
        (r"^pre_layrnorm\.", "ln_pre."),
        (r"^post_layernorm\.", "ln_post."),
        (r"^encoder\.layers\.", "transformer.resblocks."),
        (r"self_attn\.([qkv])_proj\.", r"attn.#\1_"),
        (r"self_attn\.out_proj\.", "attn.out_proj."),
        (r"layer_norm([12])\.", r"ln_\1."),
        (r"mlp\.fc1\.", "mlp.c_fc."),
        (r"mlp\.fc2\.", "mlp.c_proj."),
    ]
    state = {f"visual.{key}": value for key, value in renamed(model.state_dict(), names).items()}
    state |= {"visual.proj": torch.randn(WIDTH, 8), "token_embedding.weight": torch.randn(5, 8)}
    state |= {"logit_scale": torch.ones(()), "ln_final.weight": torch.ones(8)}

    def tokens(pixels: Tensor) -> Tensor:
        return model(pixels, output_hidden_states=True).hidden_states[-1][:, 1:]

    return Published(state, tokens, SIZE)


def siglip2() -> Published:
    """SigLIP 2 in timm's names: its authors' files are no PyTorch ones. No class token, a pooling head beside."""
    config = transformers.SiglipVisionConfig(
        **LIKE, image_size=32, patch_size=16, hidden_act="gelu", vision_use_head=False
    )
    model = scrambled(transformers.SiglipVisionModel(config))
    names = [
        (r"^vision_model\.", ""),
        (r"^embeddings\.patch_embedding\.", "patch_embed.proj."),
        (r"^embeddings\.position_embedding\.weight", "pos_embed"),
        (r"^encoder\.layers\.", "blocks."),
        (r"self_attn\.([qkv])_proj\.", r"attn.#\1."),
        (r"self_attn\.out_proj\.", "attn.proj."),
        (r"layer_norm([12])\.", r"norm\1."),
        (r"^post_layernorm\.", "norm."),
    ]
    state = renamed(model.state_dict(), names)
    state["pos_embed"] = state["pos_embed"][None]
    return Published(state, _after(model, 0), SIZE)


def pe_core() -> Published:
    """Perception Encoder: vision tower under ``visual.`` beside a text tower."""
    model = scrambled(PerceptionEncoder(post=True))
    state = {f"visual.{key}": value for key, value in model.state_dict().items()}
    return Published({**state, "logit_scale": torch.ones(())}, model, SIZE)


def pe_spatial() -> Published:
    """The spatial one: no final norm, no pooling; the file holds the vision tower alone."""
    model = scrambled(PerceptionEncoder(post=False))
    return Published(dict(model.state_dict()), model, SIZE)


_DINOV2 = [
    (r"layer_scale([12])\.lambda1", r"ls\1.gamma"),
    (r"^embeddings\.(mask_token|register_tokens)", r"\1"),
    *_VIT,
]


def _dinov2_like() -> dict[str, Any]:
    return {**LIKE, "mlp_ratio": HIDDEN // WIDTH, "image_size": 28, "patch_size": 14, "layer_norm_eps": 1e-6}


def _vit(image: int, patch: int) -> transformers.ViTConfig:
    return transformers.ViTConfig(**LIKE, image_size=image, patch_size=patch, layer_norm_eps=1e-6)


def _after(model: nn.Module, prefix: int) -> Callable[[Tensor], Tensor]:
    return lambda pixels: model(pixels).last_hidden_state[:, prefix:]


class PerceptionEncoder(nn.Module):
    """Perception Encoder (arXiv 2504.13181, Sec. 2 and App. B), written out: absolute and rotary positions together."""

    def __init__(self, *, post: bool, grid: int = 2, patch: int = 16) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTH, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(WIDTH))
        self.positional_embedding = nn.Parameter(torch.randn(1 + grid * grid, WIDTH))
        self.ln_pre = nn.LayerNorm(WIDTH)
        blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "ln_1": nn.LayerNorm(WIDTH),
                    "attn": nn.MultiheadAttention(WIDTH, HEADS),
                    "ln_2": nn.LayerNorm(WIDTH),
                    "mlp": nn.ModuleDict({"c_fc": nn.Linear(WIDTH, HIDDEN), "c_proj": nn.Linear(HIDDEN, WIDTH)}),
                }
            )
            for _ in range(DEPTH)
        )
        self.transformer = nn.ModuleDict({"resblocks": blocks})
        if post:
            self.ln_post = nn.LayerNorm(WIDTH)
        self.grid = grid

    def forward(self, pixels: Tensor) -> Tensor:
        """Patch tokens of pixels on the model's own grid."""
        x = self.conv1(pixels).flatten(2).transpose(1, 2)
        x = torch.cat((self.class_embedding.expand(len(x), 1, -1), x), 1) + self.positional_embedding
        x = self.ln_pre(x)
        for block in self.transformer["resblocks"]:
            x = x + self._attend(block["attn"], block["ln_1"](x))
            x = x + block["mlp"]["c_proj"](F.gelu(block["mlp"]["c_fc"](block["ln_2"](x))))
        return (self.ln_post(x) if hasattr(self, "ln_post") else x)[:, 1:]

    def _attend(self, weights: nn.MultiheadAttention, x: Tensor) -> Tensor:
        q, k, v = F.linear(x, weights.in_proj_weight, weights.in_proj_bias).chunk(3, -1)
        q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in (q, k, v))
        mixed = (self._turn(q) @ self._turn(k).mT * (WIDTH // HEADS) ** -0.5).softmax(-1) @ v
        return weights.out_proj(mixed.transpose(1, 2).flatten(2))

    def _turn(self, x: Tensor) -> Tensor:
        """Pairs of channels turned by column (first half) and row (second half), counted from 1; 0 for the class."""
        half = x.shape[-1] // 2
        places = torch.arange(1, self.grid + 1).float()
        speeds = 10000.0 ** (-torch.arange(0, half, 2).float() / half)
        column, row = places.repeat(self.grid), places.repeat_interleave(self.grid)
        angle = torch.cat((column[:, None] * speeds, row[:, None] * speeds), 1)
        angle = torch.cat((torch.zeros(1, half), angle))
        pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
        return torch.view_as_real(pairs * torch.polar(torch.ones_like(angle), angle)).flatten(-2)
