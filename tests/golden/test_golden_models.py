"""Networks with the reference's weights, on the reference's inputs: forward values to 1e-5 of the largest entry.

They run in float64: what remains is the rounding of the reference's own float32 (up to 5e-6 in its autoencoders).
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from repae.flow import CosinePath, LinearPath, Path
from repae.losses.adversarial import LeCam, hinge_loss
from repae.losses.alignment import alignment_loss
from repae.losses.reconstruction import flow_matching_loss, kl_divergence
from repae.models import (
    ActNorm,
    Denoiser,
    DiffusersConfig,
    KLConfig,
    LatentNorm,
    PatchGAN,
    PatchGANConfig,
    SiT,
    SiTConfig,
)
from repae.models.reference_keys import (
    discriminator_from_reference,
    discriminator_to_reference,
    kl_config_from_reference,
    sit_from_reference,
    sit_to_reference,
    vae_from_reference,
    vae_to_reference,
)
from repae.runs.weights import load_vae

TOLERANCE = 1e-5
PATHS: dict[str, Path] = {"linear": LinearPath(), "cosine": CosinePath()}
Load = Callable[[str], dict[str, Tensor]]


def cases(manifest: dict[str, Any], prefix: str) -> list[str]:
    """Names of the cases of one kind; there must be some."""
    names = [name for name in manifest if name.startswith(prefix)]
    assert names, f"the manifest has no case {prefix}*"
    return names


def under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors below a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def wide(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Floating tensors in float64, the others as they are."""
    return {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def equal(got: Tensor, want: Tensor, what: str, *, scale: float = 0.0) -> None:
    """Largest difference relative to the largest entry, or to `scale` where that is larger."""
    assert got.shape == want.shape, f"{what}: shape {tuple(got.shape)}, not {tuple(want.shape)}"
    error = (got.double() - want.double()).abs().max().item()
    size = max(want.double().abs().max().item(), scale)
    assert error <= TOLERANCE * size, f"{what}: differs by {error:.1e} where the largest entry is {size:.1e}"


def same(back: dict[str, Tensor], weights: dict[str, Tensor]) -> None:
    """Bit-equal under the same names."""
    assert back.keys() == weights.keys()
    for name, tensor in weights.items():
        assert torch.equal(back[name], tensor), name


class Transformer:
    """SiT, projectors and latent normaliser of one case, with its data."""

    def __init__(self, name: str, config: dict[str, Any], tensors: dict[str, Tensor], **changes: Any) -> None:
        self.name = name
        self.data = wide(tensors)
        sizes = {field: config[field] for field in SiTConfig.model_fields if field in config} | changes
        self.denoiser = Denoiser(
            SiT(SiTConfig(**sizes)), config["z_dims"], config["encoder_depth"], config["projector_dim"]
        ).double()
        self.norm = LatentNorm(config["in_channels"], momentum=config["bn_momentum"]).double()
        states = sit_from_reference(under(self.data, "weights."))
        for module, state in zip((self.denoiser, self.norm), states, strict=True):
            module.load_state_dict(state)
        self.norm.running_mean.copy_(self.data["bn_mean_before"])
        self.norm.running_var.copy_(self.data["bn_var_before"])
        self.targets = [self.data[f"target.{k}"] for k in range(len(config["z_dims"]))]

    def pass_(self, path: Path, latents: Tensor, *, align: bool) -> tuple[Tensor | None, Tensor | None, list[Tensor]]:
        """Velocity, its target and projected tokens; no label is dropped."""
        t, y = self.data["time"], self.data["y"]
        x_t, target = path.sample(self.norm(latents), self.data["noise"], t)
        keep = torch.zeros_like(y, dtype=torch.bool)
        if align:
            return None, None, self.denoiser.project(x_t, t, y, keep)
        velocity, projected = self.denoiser(x_t, t, y, keep)
        return velocity, target, projected

    def check(self, path_name: str, mode: str) -> None:
        """The align-only and the full pass of one path and mode, gradient and statistics included."""
        data, prefix = self.data, f"{path_name}.{mode}"
        for module in (self.denoiser, self.norm):
            module.train(mode == "train")
        for kind in ("align", "full"):
            latents = data["x"].clone().requires_grad_(True)
            velocity, target, projected = self.pass_(PATHS[path_name], latents, align=kind == "align")
            loss = alignment_loss(projected, self.targets)
            what = f"{self.name}: {prefix}.{kind}"
            for k, tokens in enumerate(projected):
                equal(tokens, data[f"{prefix}.{kind}.projected.{k}"], f"{what}.projected.{k}")
            equal(loss, data[f"{prefix}.{kind}.proj_loss"].squeeze(), f"{what}.proj_loss", scale=1.0)
            if velocity is not None and target is not None:
                equal(velocity, data[f"{prefix}.full.model_output"], f"{what}.model_output")
                denoising = flow_matching_loss(velocity, target)
                equal(denoising, data[f"{prefix}.full.denoising_loss"], f"{what}.denoising_loss")
            elif mode == "eval":
                (gradient,) = torch.autograd.grad(loss, latents)
                equal(gradient, data[f"{prefix}.align.grad_x"], f"{what}.grad_x")
        if mode == "train":
            statistics = f"{path_name}.bn_{{}}_after_two_train_passes"
            equal(self.norm.running_mean, data[statistics.format("mean")], f"{self.name}: running mean")
            equal(self.norm.running_var, data[statistics.format("var")], f"{self.name}: running variance")


@pytest.mark.parametrize("fused", [True, False])
def test_sit(manifest: dict[str, Any], load: Load, fused: bool) -> None:
    """Projected tokens, velocities, losses, the gradient at the latents and the statistics, for both attentions."""
    for name in cases(manifest, "sit"):
        for path in PATHS:
            for mode in ("eval", "train"):
                Transformer(name, manifest[name]["config"], load(name), fused_attn=fused).check(path, mode)


@torch.no_grad()
def test_sit_inference(manifest: dict[str, Any], load: Load) -> None:
    """The sampler's velocity of a normalised latent, for the given labels and for the null label."""
    for name in cases(manifest, "sit"):
        case = Transformer(name, manifest[name]["config"], load(name))
        case.denoiser.eval()
        data, null = case.data, case.denoiser.backbone.config.null_label
        assert null == manifest[name]["config"]["num_classes"]
        equal(case.denoiser.velocity(data["x"], data["time"], data["y"]), data["inference.velocity_y"], name)
        nobody = torch.full_like(data["y"], null)
        equal(case.denoiser.velocity(data["x"], data["time"], nobody), data["inference.velocity"], f"{name}: null")


def test_sit_keys(manifest: dict[str, Any], load: Load) -> None:
    """Reference to ours and back: every weight bit-equal, the position table among them and equal to our own."""
    for name in cases(manifest, "sit"):
        weights = under(load(name), "weights.")
        denoiser, norm = sit_from_reference(weights)
        same(sit_to_reference(denoiser, norm), weights)
        case = Transformer(name, manifest[name]["config"], load(name))
        fresh = SiT(case.denoiser.backbone.config).pos_embed
        assert torch.allclose(fresh, weights["pos_embed"], rtol=0, atol=1e-6)


def _autoencoders(manifest: dict[str, Any], load: Load) -> Iterator[tuple[str, KLConfig, dict[str, Tensor]]]:
    for name in cases(manifest, "vae_"):
        sizes = manifest[name]
        levels = range(len(sizes["channel_multipliers"]))
        config = KLConfig(
            **{field: sizes[field] for field in KLConfig.model_fields if field in sizes},
            attention_levels=tuple(
                level for level in levels if sizes["resolution"] // 2**level in sizes["attention_at_resolution"]
            ),
        )
        yield name, config, load(name)


@torch.no_grad()
def test_autoencoders(manifest: dict[str, Any], load: Load) -> None:
    """Posterior, KL per image, the sample at half a standard deviation, and its decoding."""
    for name, config, tensors in _autoencoders(manifest, load):
        data = wide(tensors)
        weights = under(data, "weights.")
        vae = config.build(data["x"].shape[1]).double().eval()
        vae.load_state_dict(vae_from_reference(weights))
        out = vae(data["x"], torch.full_like(data["mean"], 0.5))
        equal(out.mean, data["mean"], f"{name}: mean")
        equal(out.logvar, data["logvar"], f"{name}: logvar")
        equal((0.5 * out.logvar).exp(), data["std"], f"{name}: std")
        equal(out.z, data["z"], f"{name}: z")
        equal(kl_divergence(out.mean, out.logvar), data["kl"], f"{name}: kl")
        equal(vae.decode(data["z"]), data["reconstruction"], f"{name}: reconstruction")


def test_autoencoder_keys(manifest: dict[str, Any], load: Load) -> None:
    """Latent-diffusion names to ours and back, bit-equal; the sizes are read off the weights."""
    for _, config, tensors in _autoencoders(manifest, load):
        weights = under(tensors, "weights.")
        assert kl_config_from_reference(weights) == (config, tensors["x"].shape[1])
        same(vae_to_reference(vae_from_reference(weights)), weights)


def test_autoencoder_files(manifest: dict[str, Any], load: Load, tmp_path: pathlib.Path) -> None:
    """The reference's file gives the reference's reconstruction, in each of our two forms of the model."""
    for name, config, tensors in _autoencoders(manifest, load):
        file = tmp_path / f"{name}.pt"
        torch.save(under(tensors, "weights."), file)
        own = config.build(tensors["x"].shape[1])
        architecture = {key: value for key, value in own.model.config.items() if not key.startswith("_")}
        diffusers = DiffusersConfig(architecture={"_class_name": "AutoencoderKL", **architecture}).build()
        for vae in (own, diffusers):
            load_vae(vae, file)
            with torch.no_grad():
                image = vae.double().eval().decode(tensors["z"].double())
            equal(image, tensors["reconstruction"], f"{name}: {type(vae).__name__}")


def test_discriminators(manifest: dict[str, Any], load: Load) -> None:
    """Logits in train and eval mode, hinge, LeCam, and what the norms have learnt from two passes."""
    for name in cases(manifest, "discriminator_"):
        data = wide(load(name))
        weights, sizes = under(data, "weights."), manifest[name]
        config = PatchGANConfig(
            in_channels=data["real"].shape[1],
            ndf=sizes["ndf"],
            n_layers=sizes["n_layers"],
            norm="act" if name.endswith("actnorm") else "batch",
        )
        discriminator = PatchGAN(config).double().train()
        discriminator.load_state_dict(discriminator_from_reference(weights))
        same(discriminator_to_reference(discriminator.state_dict()), weights)
        real, fake = discriminator(data["real"]), discriminator(data["fake"])
        equal(real, data["train.logits_real"], f"{name}: real")
        equal(fake, data["train.logits_fake"], f"{name}: fake")
        equal(hinge_loss(real, fake), data["hinge"].squeeze(), f"{name}: hinge")
        lecam = LeCam()
        lecam.ema_real.fill_(0.3)
        lecam.ema_fake.fill_(-0.2)
        equal(lecam(real, fake), data["lecam"].squeeze(), f"{name}: lecam")
        state = discriminator.state_dict()
        for key, after in under(data, "after.").items():
            equal(state[key], after, f"{name}: {key} after")
        equal(discriminator.eval()(data["real"]), data["eval.logits_real"], f"{name}: eval")


def test_actnorm(manifest: dict[str, Any], load: Load) -> None:
    """Initialisation from data, log-determinant, inverse."""
    for name in cases(manifest, "actnorm"):
        data = wide(load(name))
        norm = ActNorm(data["x"].shape[1], logdet=True).double().train()
        y, logdet = norm(data["x"])
        for got, key in ((y, "y"), (logdet, "logdet"), (norm.loc, "loc"), (norm.scale, "scale")):
            equal(got, data[key], f"{name}: {key}")
        equal(norm.reverse(data["y"]), data["x_back"], f"{name}: x_back")
        equal(norm(data["y"], reverse=True), data["x"], f"{name}: x")
