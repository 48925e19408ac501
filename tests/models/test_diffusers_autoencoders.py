"""diffusers' autoencoders behind our interface: raw latents, one normalisation, weights to the last key."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from diffusers.pipelines.flux2.pipeline_flux2 import Flux2Pipeline
from errors import refused
from families import DETERMINISTIC, FAMILIES, TRAINABLE, built, config
from safetensors.torch import load_file, save_file
from torch import Tensor

from repae.config import UserError
from repae.data import Batch, Dataset
from repae.models import DiffusersConfig, LatentNorm
from repae.models.pixels import to_symmetric
from repae.preparation.statistics import latent_statistics
from repae.runtime.precision import Precision


def images(count: int = 2, seed: int = 1) -> Tensor:
    """Of 16 pixels, in [-1, 1]."""
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def noise(vae: Any, count: int = 2) -> Tensor:
    return torch.randn(count, vae.latent_channels, 4, 4, generator=torch.Generator().manual_seed(2))


def theirs(name: str, model: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """What diffusers' own pipeline makes of images: the latent its denoiser sees, and the image decoded from that."""
    c = model.config
    if name in ("sd", "flux1"):
        shift = c.shift_factor or 0.0
        x = (model.encode(pixels).latent_dist.mode() - shift) * c.scaling_factor
        return x, model.decode(x / c.scaling_factor + shift).sample
    if name == "sdxl":
        mean, std = (torch.tensor(part).view(1, 4, 1, 1) for part in (c.latents_mean, c.latents_std))
        x = (model.encode(pixels).latent_dist.mode() - mean) * c.scaling_factor / std
        return x, model.decode(x * std / c.scaling_factor + mean).sample
    if name == "flux2":
        mean, std = model.bn.running_mean.view(1, -1, 1, 1), (model.bn.running_var + c.batch_norm_eps).sqrt()
        x = (Flux2Pipeline._patchify_latents(model.encode(pixels).latent_dist.mode()) - mean) / std.view(1, -1, 1, 1)
        return x, model.decode(Flux2Pipeline._unpatchify_latents(x * std.view(1, -1, 1, 1) + mean)).sample
    if name == "qwen":
        mean, std = (torch.tensor(part).view(1, 4, 1, 1, 1) for part in (c.latents_mean, c.latents_std))
        x = (model.encode(pixels[:, :, None]).latent_dist.mode() - mean) / std
        return x[:, :, 0], model.decode(x * std + mean).sample[:, :, 0]
    if name == "dc":
        x = model.encode(pixels).latent * c.scaling_factor
        return x, model.decode(x / c.scaling_factor).sample
    if name == "vq":
        x = model.encode(pixels).latents * c.scaling_factor
        return x, model.decode(x / c.scaling_factor).sample
    # RAE normalises by itself, and sees images in [0, 1].
    x = model.encode((pixels + 1) / 2).latent
    return x, model.decode(x).sample * 2 - 1


def norm_of(vae: Any, eps: float) -> LatentNorm:
    norm = LatentNorm(vae.latent_channels, eps=eps).eval()
    norm.set_statistics(*vae.published_statistics())
    return norm


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_our_normalised_latents_are_theirs(name: str) -> None:
    """Raw latents and published statistics give what the authors' denoiser sees: scale, shift, means, deviations and
    batch norm act once. Applied in the adapter as well, or left out, this fails."""
    extra = {"latents_mean": torch.randn(64).tolist(), "latents_std": (torch.rand(64) + 0.5).tolist()}
    if name == "rae":
        # diffusers subtracts a mean of shape [C] along the last axis, so it must come as [C, 1, 1].
        extra = {key: [[[value]] for value in values] for key, values in extra.items()}
    vae = built(name, **(extra if name == "rae" else {}))
    norm = norm_of(vae, eps=1e-4 if name == "flux2" else 1e-12)
    pixels = images()
    x, decoded = theirs(name, vae.model, pixels)
    mean, _ = vae.encode(pixels)
    assert mean.shape == (2, vae.latent_channels, 4, 4) and vae.factor == config(name).factor == 4
    torch.testing.assert_close(norm(mean), x, rtol=1e-4, atol=1e-4)
    again = vae.decode(norm.denormalise(norm(mean)))
    expected = decoded.clamp(-1, 1) if name == "qwen" else decoded
    torch.testing.assert_close(again.clamp(-1, 1) if name == "qwen" else again, expected, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_statistics_of_each_place_are_pooled() -> None:
    """RAE's authors normalise by (channel, place): mean and deviation of a channel are those of the mixture over its
    places."""
    mean, std = torch.randn(64, 4, 4), torch.rand(64, 4, 4) + 0.5
    vae = built("rae", latents_mean=mean.tolist(), latents_std=std.tolist())
    channel_mean, channel_std = vae.published_statistics()
    sample = mean + std * torch.randn(20_000, 64, 4, 4)
    torch.testing.assert_close(channel_mean, sample.mean((0, 2, 3)), rtol=0, atol=0.02)
    torch.testing.assert_close(channel_std * 0.8, sample.std((0, 2, 3)), rtol=0.02, atol=0)
    pixels = images()
    z, _ = vae.encode(pixels)
    tokens = vae.model._encoder_forward_fn(vae.model.encoder, vae.model._resize_and_normalize((pixels + 1) / 2))
    torch.testing.assert_close(z.flatten(2).transpose(1, 2), tokens, rtol=1e-4, atol=1e-4)


class Pictures(Dataset):
    """A few random images."""

    def __init__(self) -> None:
        self.images = torch.randint(0, 256, (10, 3, 16, 16), dtype=torch.uint8)
        self.labels = torch.zeros(10, dtype=torch.int64)
        self.channels, self.resolution, self.class_names, self.flip, self.broken = 3, 16, ("one",), False, {}

    @property
    def fingerprint(self) -> str:
        return "pictures"

    def batch(self, indices: Tensor, flips: Tensor | None = None) -> Batch:
        return Batch(self.images[indices], self.labels[indices], indices)


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_statistics_of_the_data(name: str) -> None:
    """Mean and deviation of every channel against float64, spread of the posterior included where there is one; latents
    normalised by them have mean 0 and variance 1."""
    vae, data = built(name), Pictures()
    mean, std = latent_statistics(vae, data, Precision("fp32", torch.device("cpu")), batch_size=4)
    z, logvar = vae.encode(to_symmetric(data.images))
    z, logvar = z.double(), logvar.double()
    torch.testing.assert_close(mean, z.mean((0, 2, 3)), rtol=1e-5, atol=1e-6)
    variance = z.var((0, 2, 3), correction=0) + logvar.exp().mean((0, 2, 3))
    torch.testing.assert_close(std.square(), variance, rtol=1e-4, atol=1e-9)
    assert (logvar == -torch.inf).all() == (name in DETERMINISTIC)
    norm = LatentNorm(vae.latent_channels, eps=1e-12).eval()
    norm.set_statistics(mean.float(), std.float())
    sample = vae(to_symmetric(data.images), torch.randn(10, vae.latent_channels, 4, 4)).z
    assert norm(sample).mean().abs() < 0.2 and 0.7 < norm(sample).std() < 1.3
    torch.testing.assert_close(norm.denormalise(norm(sample)), sample, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_what_bounds_the_latent_is_there_or_not(name: str) -> None:
    """A posterior, a codebook, or neither; only the first uses the noise."""
    vae = built(name)
    pixels = images()
    one, other = vae(pixels, noise(vae)), vae(pixels, -noise(vae))
    assert (one.logvar is None) == (name in DETERMINISTIC) and (one.codes is None) == (name != "vq")
    assert torch.equal(one.z, other.z) == (name in DETERMINISTIC)
    if name in DETERMINISTIC:
        assert torch.equal(one.z, one.mean)
    torch.testing.assert_close(one.reconstruction, vae.decode(one.z), rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        half = vae(pixels, noise(vae))
    assert half.mean.dtype == half.z.dtype == torch.float32


@pytest.mark.parametrize("name", TRAINABLE)
def test_a_gradient_reaches_every_parameter_that_learns(name: str) -> None:
    """In one pass, as data parallelism requires. Of Qwen's, what mixes frames does not learn."""
    vae = built(name).train()
    out = vae(images(), noise(vae))
    (out.reconstruction.square().sum() + (0 if out.codes is None else out.codes.square().sum())).backward()
    idle = [key for key, parameter in vae.named_parameters() if not parameter.requires_grad]
    assert all("time_conv" in key for key in idle) and bool(idle) == (name == "qwen")
    assert all(parameter.grad is not None for parameter in vae.parameters() if parameter.requires_grad)


def test_qwen_decodes_beyond_the_range() -> None:
    """A clamp there would end the gradient of saturated pixels, which are those that must move."""
    vae = built("qwen")
    vae.model.decoder.conv_out.bias.data.fill_(3.0)
    z = noise(vae).requires_grad_()
    image = vae.decode(z)
    assert image.min() > 1
    image.sum().backward()
    assert z.grad is not None and z.grad.any()


def test_an_rae_stays_as_it_is() -> None:
    """Frozen, in eval mode (else diffusers adds noise to latents), and for its own size of images only."""
    vae = built("rae").train()
    assert not vae.trainable and not any(p.requires_grad for p in vae.parameters())
    assert not any(part.training for part in vae.modules())
    assert torch.equal(vae.encode(images())[0], vae.encode(images())[0])
    with refused(UserError, "16x16", "32x32", "set data.resolution to 16"):
        vae.encode(torch.zeros(1, 3, 32, 32))
    with refused(UserError, "reshape_to_2d false", "set it to true"):
        built("rae", reshape_to_2d=False)


def test_the_nearest_vector_and_the_gradient_past_it() -> None:
    """Quantised to the nearest vector of the codebook; the reconstruction's gradient goes straight through, and what
    looks at z itself, such as the alignment, meets no estimate."""
    vae = built("vq")
    book = vae.model.quantize.embedding.weight
    out = vae(images(), noise(vae))
    places = out.z.movedim(1, -1).reshape(-1, 4)
    nearest = (places[:, None] - book[None]).square().sum(-1).argmin(1)
    assert torch.equal(out.codes.movedim(1, -1).reshape(-1, 4), book[nearest])
    assert len(set(nearest.tolist())) > 1
    at_z, at_book = torch.autograd.grad(out.reconstruction.sum(), [out.z, book], retain_graph=True, allow_unused=True)
    codes = out.codes.detach().requires_grad_()
    (expected,) = torch.autograd.grad(vae.decode_codes(codes).sum(), codes)
    torch.testing.assert_close(at_z, expected, rtol=1e-2, atol=1e-3)
    assert at_book is None
    assert torch.autograd.grad(out.codes.sum(), out.z, allow_unused=True)[0] is None


@pytest.mark.parametrize(
    ("name", "numbers", "latent", "factor"),
    [
        ("flux.1", 83_819_683, (16, 32, 32), 8),
        ("sd3.5", 83_819_683, (16, 32, 32), 8),
        ("flux.2", 84_046_115, (128, 16, 16), 16),
        ("qwen-image", 126_892_531, (16, 32, 32), 8),
    ],
)
def test_published_sizes(name: str, numbers: int, latent: tuple[int, ...], factor: int) -> None:
    """Parameters and latents of 256-pixel images; nothing is read but the preset."""
    with torch.device("meta"):
        vae = DiffusersConfig.preset(name).build()
        out = vae(torch.zeros(1, 3, 256, 256), torch.zeros(1, *latent))
    assert sum(parameter.numel() for parameter in vae.parameters()) == numbers
    assert out.z.shape[1:] == latent and out.reconstruction.shape == (1, 3, 256, 256)
    assert vae.factor == DiffusersConfig.preset(name).factor == factor


def test_each_part_compiles_as_a_whole(unchecked: None) -> None:
    """Regional compilation in place: no graph break, same names, same values."""
    plain, compiled = built("qwen"), built("qwen")
    assert len(compiled.repeated_parts()) > 3
    for part in compiled.repeated_parts():
        part.compile(backend="eager", fullgraph=True)
    assert list(plain.state_dict()) == list(compiled.state_dict())
    torch.testing.assert_close(plain(images(), noise(plain)).z, compiled(images(), noise(plain)).z)


# From folders and from the hub


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No hub, and an empty cache."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize("name", FAMILIES)
def test_a_folder_of_diffusers(name: str, offline: Path) -> None:
    """Architecture and weights from what diffusers saved, bit for bit, statistics included; the architecture goes into
    the recipe, so that the folder may go."""
    source = built(name)
    source.model.save_pretrained(offline / "pipeline" / "vae")
    found = DiffusersConfig(path=str(offline / "pipeline"), subfolder="vae").resolved()
    vae = found.build()
    vae.load_state_dict(found.weights())
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in vae.state_dict().items())
    for ours, expected in zip(vae.published_statistics(), source.published_statistics()):
        assert torch.equal(ours, expected)
    shutil.rmtree(offline / "pipeline")
    assert found.build().state_dict().keys() == source.state_dict().keys()
    assert found.quantised == (name == "vq")
    assert DiffusersConfig.model_validate(json.loads(found.model_dump_json())) == found


def test_weights_are_whole_or_refused(offline: Path) -> None:
    """A missing key, one too many, another shape, an unreadable file."""
    built("sd").model.save_pretrained(offline / "vae")
    file = offline / "vae" / "diffusion_pytorch_model.safetensors"
    whole = load_file(file)
    key = "encoder.conv_in.bias"
    for state, facts in (
        ({k: v for k, v in whole.items() if k != key}, ["1 keys missing", key]),
        (whole | {"extra": torch.zeros(1)}, ["1 keys unexpected", "extra"]),
        (
            whole | {key: torch.zeros(3)},
            ["1 keys of another shape", f"{key} of (3,) instead of (8,)", "fetch"],
        ),
    ):
        save_file(state, file)
        with refused(UserError, offline / "vae", *facts) as caught:
            DiffusersConfig(path=str(offline / "vae")).weights()
        assert "\n" not in str(caught.value)
    file.write_bytes(b"no weights")
    with refused(UserError, offline / "vae", "fetch the folder again"):
        DiffusersConfig(path=str(offline / "vae")).weights()


def test_weights_of_another_architecture(offline: Path) -> None:
    """A path whose autoencoder is not the one that the recipe carries: another class, another size."""
    built("sd").model.save_pretrained(offline / "vae")
    for other, fact in (("dc", "set vae.architecture to none"), ("flux1", "unexpected model.post_quant_conv.bias")):
        with refused(UserError, offline / "vae", fact) as caught:
            config(other).replace(path=str(offline / "vae")).weights()
        assert "\n" not in str(caught.value)


def test_old_names_of_attention_are_understood(offline: Path) -> None:
    """The files of Stable Diffusion's first autoencoders call their attention's layers otherwise."""
    source = built("sd")
    source.model.save_pretrained(offline / "vae")
    file = offline / "vae" / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = load_file(file)
    for new, former in old.items():
        state = {key.replace(f"attentions.0.{new}.", f"attentions.0.{former}."): value for key, value in state.items()}
    assert any(".query." in key for key in state)
    save_file(state, file, metadata={"format": "pt"})
    found = DiffusersConfig(path=str(offline / "vae")).weights()
    assert all(torch.equal(found[key], value) for key, value in source.state_dict().items())


def test_no_hub(offline: Path) -> None:
    """A name that cannot be had says what to fetch and where to put it; a folder of a pipeline names the subfolder."""
    with refused(UserError, "'someone/something'", "connection", "config.json", "vae.path FOLDER"):
        DiffusersConfig(path="someone/something", subfolder="vae").build()
    with refused(UserError, "'black-forest-labs/FLUX.1-dev'", "connection", "licence", "vae.path FOLDER"):
        DiffusersConfig.preset("flux.1").weights()
    built("sd").model.save_pretrained(offline / "pipeline" / "vae")
    with refused(UserError, "config.json", "folder of a pipeline", "set vae.subfolder"):
        DiffusersConfig(path=str(offline / "pipeline")).build()


@pytest.mark.parametrize(
    ("make", "facts"),
    [
        (lambda: DiffusersConfig(), ["path", "architecture", "missing", "give path"]),
        (
            lambda: DiffusersConfig(architecture={"_class_name": "AutoencoderOobleck"}),
            ["_class_name", "'AutoencoderOobleck'", "AutoencoderKL"],
        ),
        (lambda: DiffusersConfig.preset("flux1"), ["'flux1'", "did you mean 'flux.1'"]),
        (lambda: built("sd", latent_chanels=4), ["vae.architecture.latent_chanels", "did you mean 'latent_channels'"]),
        (lambda: built("sd", block_out_channels=[6, 8, 8]), ["AutoencoderKL", "(6)", "correct vae.architecture"]),
        (lambda: config("sd").build(1), ["3 channels", 1, "vae.architecture.in_channels"]),
        (lambda: config("sd").weights(), ["vae.path is missing", "start.kind scratch"]),
    ],
)
def test_what_cannot_be_is_refused_in_words(make: Any, facts: list[object]) -> None:
    """One line with the value and what to do."""
    with refused(UserError, *facts) as caught:
        make()
    assert "\n" not in str(caught.value)
