"""Folders for diffusers: the code that they carry gives our images, and a stranger's use of the statistics is right."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from errors import refused
from safetensors.torch import load_file, save_file

from repae.config import UserError
from repae.export.folders import WEIGHTS, read_pipeline, read_vae, write_pipeline, write_vae
from repae.flow import CosinePath, Euler, EulerMaruyama, Guidance, Heun, LinearPath, Sampler
from repae.flow import Path as FlowPath
from repae.models import Bundle, DiffusersConfig, KLConfig, LatentNorm
from repae.runs.weights import load_vae
from repae.runtime.digest import short_digest
from repae.runtime.precision import Precision
from repae.sampling import generate

FP32 = Precision("fp32", torch.device("cpu"))
GUIDED = Guidance(scale=2.0, low=0.1, high=0.8)
SAMPLERS = [
    Euler(steps=4),
    Heun(steps=4),
    Heun(steps=4, guide_by_end=True),
    *(EulerMaruyama(steps=5, last=last) for last in ("mean", "tweedie", "euler")),
]


def write(folder: Path, bundle: Bundle, *, sampler: Sampler = SAMPLERS[0], path: str = "linear") -> Path:
    guidance = GUIDED if bundle.null_label is not None else GUIDED.replace(scale=1.0)
    write_pipeline(
        folder, bundle, path=path, sampler=sampler, guidance=guidance, precision="fp32",
        class_names=["a", "b", "c"], resolution=32,
    )  # fmt: skip
    return folder


def opened(folder: Path) -> Any:
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(folder, custom_pipeline=str(folder), trust_remote_code=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def kl_pipe(kl: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return opened(write(tmp_path_factory.mktemp("pipe"), kl, sampler=EulerMaruyama(steps=5, last="tweedie")))


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: "-".join(map(str, sampler.model_dump().values())))
@pytest.mark.parametrize("path", [LinearPath(), CosinePath()], ids=["linear", "cosine"])
def test_the_pipeline_draws_our_images(kl: Bundle, kl_pipe: Any, sampler: Sampler, path: FlowPath) -> None:
    """Every sampler and path, guided on an interval, in other batches: at most one level of 255 apart."""
    labels = torch.tensor([2, 0, 1, 1, 0])
    ours = generate(kl, labels, sampler=sampler, path=path, precision=FP32, guidance=GUIDED, seed=11)
    kind, settings = sampler.kind, sampler.model_dump()  # type: ignore[attr-defined]
    kl_pipe.register_to_config(path=path.kind)  # type: ignore[attr-defined]
    theirs = kl_pipe(
        labels, seed=11, sampler=kind, num_inference_steps=sampler.steps, output_type="pt", batch_size=2,  # type: ignore[attr-defined]
        guide_by_end=settings.get("guide_by_end"), last=settings.get("last"),
    ).images  # fmt: skip
    assert theirs.dtype == torch.uint8 and ours.float().std() > 10
    assert (ours.int() - theirs.int()).abs().max() <= 1
    other = kl_pipe(labels, seed=12, sampler=kind, num_inference_steps=4, output_type="pt").images
    assert (ours.int() - other.int()).abs().max() > 1


def test_half_precision_is_ours_too(kl: Bundle, tmp_path: Path) -> None:
    """A run that samples under bf16 autocast is drawn under the same; a model cast as a whole still draws."""
    labels, bf16 = torch.tensor([2, 0]), Precision("bf16", torch.device("cpu"))
    pipe = opened(write(tmp_path, kl))
    ours = generate(kl, labels, sampler=Euler(steps=4), path=LinearPath(), precision=bf16, guidance=GUIDED)
    settings = {"num_inference_steps": 4, "output_type": "pt"}
    theirs = pipe(labels, precision="bf16", **settings).images
    exact = pipe(labels, **settings).images
    assert (ours.int() - theirs.int()).abs().max() <= 1
    assert 5 * (ours != theirs).sum() < (ours != exact).sum()
    cast = pipe.to(torch.bfloat16)(labels, **settings).images
    assert (cast.int() - exact.int()).abs().float().mean() < 4


def test_the_pipelines_defaults_and_forms(kl: Bundle, kl_pipe: Any, tiny: Bundle, tmp_path: Path) -> None:
    """Without options it draws as the run's previews do; names of classes, PIL and numpy; wrong words are refused."""
    kl_pipe.register_to_config(path="linear")
    sampler = EulerMaruyama(steps=5, last="tweedie")
    ours = generate(kl, torch.tensor([1]), sampler=sampler, path=LinearPath(), precision=FP32, guidance=GUIDED)
    (image,) = kl_pipe("b").images
    assert image.mode == "RGB" and image.size == (32, 32)
    (array,) = kl_pipe(["b"], output_type="np").images
    assert abs(array.astype(int) - ours[0].permute(1, 2, 0).numpy()).max() <= 1
    for options, facts in (
        ({"class_labels": [3]}, ["class_labels", 3, "0 to 2", "'a', 'b', 'c'"]),
        ({"class_labels": "d"}, ["class_labels", "'d'", "0 to 2"]),
        ({"class_labels": 0, "sampler": "dpm"}, ["sampler", "'dpm'", "euler", "heun", "euler-maruyama"]),
        ({"class_labels": 0, "guidance_scale": 0.5}, ["guidance_scale", 0.5, "at least 1"]),
        ({"class_labels": 0, "num_inference_steps": 1}, ["num_inference_steps", 1, "at least 2"]),
    ):
        with refused(ValueError, *facts):
            kl_pipe(**options)
    pipe = opened(write(tmp_path / "tiny", tiny))
    assert pipe(0).images[0].mode == "L"
    with refused(ValueError, "guidance_scale", 2.0, "null class", "only 1"):
        pipe(0, guidance_scale=2.0)


@torch.no_grad()
def test_a_strangers_use_of_the_statistics_gives_our_images(kl: Bundle, tiny: Bundle, tmp_path: Path) -> None:
    """encode, (z - mean) / std, z * std + mean, decode, by diffusers' class and the configuration alone."""
    from diffusers import AutoencoderKL, AutoModel

    for name, bundle in (("kl", kl), ("tiny", tiny)):
        folder = tmp_path / name
        write_vae(folder, bundle.vae, bundle.latent_norm, 32)
        theirs: Any = (
            AutoencoderKL.from_pretrained(folder)
            if name == "kl"
            else AutoModel.from_pretrained(str(folder), trust_remote_code=True)
        )
        images = torch.randint(0, 256, (2, bundle.image_channels, 32, 32), dtype=torch.uint8)
        posterior = theirs.encode(images.float() / 127.5 - 1).latent_dist
        mean, std = (torch.tensor(theirs.config[key])[:, None, None] for key in ("latents_mean", "latents_std"))
        normal = (posterior.mean - mean) / std
        assert torch.allclose(normal, bundle.encode(images, torch.zeros_like(normal)), atol=1e-4, rtol=1e-4)
        decoded = theirs.decode(normal * std + mean).sample
        pixels = ((decoded + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        assert (pixels.int() - bundle.decode(normal).int()).abs().max() <= 1
        assert (pixels.int() - bundle.reconstruct(images).int()).abs().max() <= 1
        assert theirs.config["scaling_factor"] == 1.0 and not theirs.config.get("shift_factor")


def test_the_way_back(kl: Bundle, tiny: Bundle, tmp_path: Path) -> None:
    """Sizes, weights, statistics, sampler and guidance, read off the folder."""
    for name, bundle, sampler in (("kl", kl, SAMPLERS[2]), ("tiny", tiny, SAMPLERS[4])):
        back, index = read_pipeline(write(tmp_path / name, bundle, sampler=sampler, path="cosine"))
        assert back.denoiser.backbone.config == bundle.denoiser.backbone.config.replace(
            class_dropout_prob=back.denoiser.backbone.config.class_dropout_prob
        )
        assert back.null_label == bundle.null_label and index["path"] == "cosine"
        assert short_digest(back.denoiser.backbone.state_dict()) == short_digest(bundle.denoiser.backbone.state_dict())
        assert short_digest(back.vae.state_dict()) == short_digest(bundle.vae.state_dict())
        assert index == json.loads((tmp_path / name / "model_index.json").read_text())
        assert torch.allclose(back.latent_norm.running_var, bundle.latent_norm.running_var, rtol=1e-5, atol=1e-9)
        settings = sampler.model_dump()
        assert index["sampler"] == settings["kind"]
        assert all(index[name] == settings[name] for name in ("steps", "guide_by_end", "last") if name in settings)


def test_published_files_of_an_older_diffusers_open(kl: Bundle, tmp_path: Path) -> None:
    """Stable Diffusion's autoencoder, on which REPA and SiT were trained, has other names in its attention."""
    write_vae(tmp_path, kl.vae, None, 32)
    file = tmp_path / WEIGHTS
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    old = {}
    for name, value in load_file(file).items():
        for new, former in names.items():
            name = name.replace(f".{new}.", f".{former}.")
        old[name] = value
    assert sum(".query." in name for name in old) >= 4
    save_file(old, file)
    vae, norm = read_vae(tmp_path)
    assert norm is None and short_digest(vae.state_dict()) == short_digest(kl.vae.state_dict())
    again = KLConfig(**kl.vae.config.model_dump()).build(3)  # type: ignore[attr-defined]
    load_vae(again, tmp_path)
    assert short_digest(again.state_dict()) == short_digest(kl.vae.state_dict())


def test_an_autoencoder_of_diffusers_keeps_its_architecture_and_gets_our_statistics(tmp_path: Path) -> None:
    """One without convolutions for quantising comes back bit for bit; its own scale and shift do not act twice."""
    architecture = {
        "_class_name": "AutoencoderKL",
        "block_out_channels": [32, 32],
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
        "norm_num_groups": 8,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
        "scaling_factor": 0.3611,
        "shift_factor": 0.1159,
    }
    vae = DiffusersConfig(architecture=architecture).build(3)
    norm = LatentNorm(4)
    norm.set_statistics(torch.arange(4.0), torch.arange(1.0, 5.0))
    write_vae(tmp_path, vae, norm, 16)
    again, statistics = read_vae(tmp_path)
    assert short_digest(again.state_dict()) == short_digest(vae.state_dict()) and statistics is not None
    assert torch.allclose(statistics.running_mean, norm.running_mean)
    assert torch.allclose(statistics.running_var, norm.running_var)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["scaling_factor"] == 1.0 and config["shift_factor"] is None
    deterministic = DiffusersConfig(architecture={"_class_name": "VQModel", "norm_num_groups": 8}).build(3)
    with refused(UserError, "VQ autoencoder", "AutoencoderKL", "share its folder"):
        write_vae(tmp_path / "vq", deterministic, None, 16)


def test_what_does_not_fit_is_refused(kl: Bundle, tmp_path: Path) -> None:
    """An autoencoder that diffusers has no word for, another pipeline, a missing file, weights of another size."""
    wide = KLConfig(base_channels=32, channel_multipliers=(2, 2), blocks_per_level=1).build(3)
    with refused(UserError, "vae.channel_multipliers (2, 2)", "begin with 1", "--format reference"):
        write_vae(tmp_path / "wide", wide, None, 32)
    folder = write(tmp_path / "whole", kl)
    config = json.loads((folder / "vae" / "config.json").read_text())
    for changes, facts in (
        (
            {"layers_per_block": 2},
            ["config.json", "missing model.decoder.up_blocks.0.attentions.2.to_k.weight", "64 more", "again"],
        ),
        ({"use_quant_conv": False}, ["config.json", "unexpected model.quant_conv.bias", "again"]),
        ({"_class_name": "AutoencoderDC"}, ["AutoencoderDC", "AutoencoderKL", "TinyAutoencoder"]),
    ):
        (folder / "vae" / "config.json").write_text(json.dumps(config | changes))
        with refused(UserError, folder / "vae", *facts):
            read_vae(folder / "vae")
    (folder / "vae" / "config.json").write_text(json.dumps(config | {"latents_mean": None}))
    with refused(UserError, folder / "vae", "latents_mean", "export it again"):
        read_pipeline(folder)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "DiTPipeline"}))
    with refused(UserError, folder, "'DiTPipeline'", "allowed: SiTPipeline", "`repae export`"):
        read_pipeline(folder)
    with refused(UserError, tmp_path / "config.json", "cannot be read", "No such file", "export the folder again"):
        read_vae(tmp_path)


def test_what_a_folder_carries_needs_nothing_of_this_package() -> None:
    """The files import torch, diffusers, PIL and the standard library only."""
    import repae.export.standalone as standalone

    folder = Path(standalone.__file__).parent
    files = [file for file in folder.glob("*.py") if file.name != "__init__.py"]
    assert len(files) == 3
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.split(".")[0] in (
                    "__future__", "abc", "collections", "contextlib", "diffusers", "hashlib", "itertools", "math",
                    "PIL", "torch", "typing",
                )  # fmt: skip
