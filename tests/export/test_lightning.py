"""LightningDiT out and in: the folder for diffusers, and its authors' checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from errors import refused
from torch import Tensor

from repae.cli import main
from repae.config import UserError
from repae.export.folders import read_pipeline, write_pipeline
from repae.export.reference import read_reference
from repae.flow import Euler, Guidance, LinearPath
from repae.models import Bundle, Denoiser, KLConfig, LatentNorm, LightningConfig, LightningDiT
from repae.runs.open import open_run
from repae.runtime.digest import short_digest
from repae.runtime.precision import Precision
from repae.sampling import generate

CONFIG = LightningConfig(
    input_size=8, patch_size=1, in_channels=4, hidden_size=16, depth=2, num_heads=2, num_classes=3, qk_norm=True
)
KL = KLConfig(base_channels=32, channel_multipliers=(1, 1, 2), blocks_per_level=1, attention_levels=(2,))
MEAN, STD = torch.tensor([0.5, -1.0, 2.0, 0.0]), torch.tensor([0.3, 5.5, 0.2, 1.0])
FP32 = Precision("fp32", torch.device("cpu"))
GUIDED = Guidance(scale=2.0, low=0.1, high=0.8)


def awake(module: Any) -> Any:
    """With the parameters that begin as zero moved off it, in eval mode."""
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.copy_(0.05 * torch.randn(parameter.shape))
    return module.eval()


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    torch.manual_seed(3)
    norm = LatentNorm(4).eval()
    norm.set_statistics(MEAN, STD)
    denoiser = awake(Denoiser(LightningDiT(CONFIG), [], 1, 1))
    return Bundle("ema", denoiser, KL.build(3).eval(), norm)


def test_the_pipeline_draws_our_images(bundle: Bundle, tmp_path: Path) -> None:
    """By the code beside the weights, which knows nothing of this package; and back, bit by bit."""
    from diffusers import DiffusionPipeline

    write_pipeline(
        tmp_path, bundle, path="linear", sampler=Euler(steps=4), guidance=GUIDED, precision="fp32",
        class_names=["a", "b", "c"], resolution=32,
    )  # fmt: skip
    pipe: Any = DiffusionPipeline.from_pretrained(tmp_path, custom_pipeline=str(tmp_path), trust_remote_code=True)
    pipe.set_progress_bar_config(disable=True)
    labels = torch.tensor([2, 0, 1])
    ours = generate(bundle, labels, sampler=Euler(steps=4), path=LinearPath(), precision=FP32, guidance=GUIDED, seed=5)
    theirs = pipe(labels, seed=5, output_type="pt").images
    assert ours.float().std() > 10 and (ours.int() - theirs.int()).abs().max() <= 1
    back, _ = read_pipeline(tmp_path)
    assert back.denoiser.backbone.config == CONFIG
    assert short_digest(back.denoiser.state_dict()) == short_digest(bundle.denoiser.state_dict())


def as_its_authors_have_it(model: LightningDiT) -> dict[str, Tensor]:
    """Their names: ours, and two tables of rotary embeddings."""
    return {**model.state_dict(), "feat_rope.freqs_cos": model.rotation[0], "feat_rope.freqs_sin": model.rotation[1]}


@pytest.mark.parametrize("layout", ["whole", "ema", "bare"])
def test_its_authors_checkpoint_is_imported(layout: str, bundle: Bundle, tmp_path: Path) -> None:
    """Every layout they published; what comes out samples, and its velocity is theirs with time turned."""
    torch.manual_seed(4)
    live, average = (awake(LightningDiT(CONFIG)) for _ in range(2))
    entries: dict[str, Any] = {"model": as_its_authors_have_it(live), "ema": as_its_authors_have_it(average)}  # type: ignore[arg-type]
    config = {"data": {"num_classes": 3, "latent_multiplier": 2.0}, "model": {"use_rope": True}}
    whole = {**entries, "opt": {"state": {}, "param_groups": []}, "config": config}
    file = tmp_path / "0000007.pt"
    torch.save({"whole": whole, "ema": {"ema": entries["ema"]}, "bare": entries["ema"]}[layout], file)
    statistics = tmp_path / "latents_stats.pt"
    torch.save({"mean": MEAN[None, :, None, None], "std": STD[None, :, None, None]}, statistics)
    vae = tmp_path / "vae.pt"
    torch.save(bundle.vae.state_dict(), vae)
    out = tmp_path / "imported"
    assert main(["import", str(file), "--vae", str(vae), "--out", str(out)]) == 0
    assert main(["inspect", str(file)]) == main(["inspect", str(out)]) == 0
    run = open_run(out)
    assert run.recipe.backbone.kind == "lightning" and run.step == 7
    assert run.bundle.denoiser.backbone.config == CONFIG
    x, t, y = torch.randn(2, 4, 8, 8), torch.tensor([0.2, 0.9]), torch.tensor([1, 3])
    with torch.no_grad():
        torch.testing.assert_close(run.bundle.denoiser.velocity(x, t, y), -average(x, 1 - t, y), rtol=1e-4, atol=1e-5)
        scale = 2 if layout == "whole" else 1
        z = torch.randn(2, 4, 8, 8)
        expected = (z - MEAN[:, None, None]) / STD[:, None, None] * scale
        torch.testing.assert_close(run.bundle.latent_norm(z), expected, rtol=1e-3, atol=1e-4)
    assert main(["sample", str(out), "--num", "2", "--sampler.steps", "2", "--out", str(tmp_path / "drawn")]) == 0


def test_what_is_missing_is_named(bundle: Bundle, tmp_path: Path) -> None:
    """No statistics; a variant without rotary embeddings; somebody else's name."""
    file = tmp_path / "some.pt"
    state = as_its_authors_have_it(bundle.denoiser.backbone)  # type: ignore[arg-type]
    torch.save({"ema": state}, file)
    with refused(UserError, file, "latents_stats.pt", "--statistics"):
        read_reference(file)
    with refused(UserError, file, "SiT", "LightningDiT"):
        read_reference(file, origin="SiT")
    statistics = tmp_path / "latents_stats.pt"
    torch.save({"mean": MEAN, "std": STD}, statistics)
    torch.save({"ema": {name: value for name, value in state.items() if "rope" not in name}}, file)
    with refused(UserError, "no rotary embeddings", "freqs_cos", "of a LightningDiT"):
        read_reference(file)
    torch.save({"ema": {name: value for name, value in state.items() if "blocks.1.norm1" not in name}}, file)
    with refused(UserError, "missing blocks.1.norm1.weight"):
        read_reference(file)
