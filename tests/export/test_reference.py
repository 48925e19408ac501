"""The reference's own files: what is read of them, and that they come back bit for bit."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import reference_files as files
import torch
from errors import refused
from safetensors.torch import save_file

from repae.config import UserError
from repae.export.reference import SD_SCALE, autoencoder_files, read_reference, to_reference
from repae.models import LatentNorm, SiTConfig
from repae.training.state import BUNDLES

REFERENCE = BUNDLES["reference"]


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return files.write_joint(tmp_path_factory.mktemp("joint"))


def with_extra(contents) -> dict:
    return {**contents.parts, "reference": contents.extra}


def test_a_joint_checkpoint_shows_everything(joint: Path) -> None:
    """Sizes, players, both normalisers, settings and steps, from weights and `args`."""
    found = read_reference(joint)
    assert (found.origin, found.step, found.path) == ("REPA-E", 3, "linear")
    assert found.sizes is not None
    assert found.sizes.backbone == SiTConfig(
        input_size=8, in_channels=4, hidden_size=48, depth=3, num_heads=4, num_classes=10, class_dropout_prob=0.1
    )
    assert (found.sizes.z_dims, found.sizes.encoder_depth, found.sizes.projector_dim) == ((24, 40), 2, 32)
    assert found.vae is not None and found.vae[0].channel_multipliers == (1, 1, 1) and found.vae[1] == 3
    assert found.discriminator is not None
    assert (found.discriminator.ndf, found.discriminator.n_layers, found.discriminator.norm) == (8, 2, "batch")
    names = {"denoiser", "latent_norm", "ema_denoiser", "ema_latent_norm", "vae", "discriminator"}
    assert found.parts.keys() == names
    assert torch.equal(found.parts["ema_latent_norm"]["running_var"], files.weights("ema")["bn.running_var"])
    assert torch.equal(found.parts["denoiser"]["backbone.pos_embed"], files.weights("sit")["pos_embed"])


def test_a_joint_checkpoint_comes_back_bit_for_bit(joint: Path) -> None:
    """Weights, statistics, all three optimisers, args, steps, and the order of the entries."""
    found = read_reference(joint)
    back = to_reference(with_extra(found), REFERENCE, {}, found.step)
    files.equal(files.joint(), back)
    assert list(back) == list(files.joint())


@pytest.mark.parametrize("missing", [("vae", "discriminator", "opt_vae", "opt_disc"), ("opt", "steps"), ("args",)])
def test_checkpoints_without_some_players_come_back_too(tmp_path: Path, missing: tuple[str, ...]) -> None:
    """On a frozen autoencoder, without optimisers, without settings: nothing is added that was not there."""
    held = {name: value for name, value in files.joint().items() if name not in missing}
    torch.save(held, tmp_path / "0000009.pt")
    found = read_reference(tmp_path / "0000009.pt", num_heads=4)
    assert found.step == (9 if "steps" in missing else 3)
    back = to_reference(with_extra(found), REFERENCE, {}, found.step)
    files.equal(held, back)


def test_an_autoencoder_comes_with_its_neighbours_and_goes_with_them(tmp_path: Path) -> None:
    """Statistics and discriminator are found by the file's own name, in a folder whose name holds the suffix too."""
    file = files.write_autoencoder(tmp_path / "some.pt.folder")
    found = read_reference(file)
    assert found.origin is None and found.parts.keys() == {"vae", "latent_norm", "discriminator"}
    norm = LatentNorm(4)
    norm.load_state_dict(found.parts["latent_norm"])
    scale = torch.load(file.with_name("vae-latents-stats.pt"))["latents_scale"].flatten()
    assert torch.allclose(norm.statistics()[1], 1 / scale, rtol=1e-6)
    for ending, state in autoencoder_files(with_extra(found), BUNDLES["live"]).items():
        files.equal(torch.load(file.with_name(f"vae{ending}.pt")), state)
    assert autoencoder_files(found.parts, BUNDLES["live"])["-latents-stats"]["latents_scale"].shape == (1, 4, 1, 1)
    with refused(UserError, "vae-discriminator-ckpt.pt", "a discriminator only", "import the autoencoder's file"):
        read_reference(file.with_name("vae-discriminator-ckpt.pt"))
    with refused(UserError, "vae-latents-stats.pt", "statistics only", "import the autoencoder's file"):
        read_reference(file.with_name("vae-latents-stats.pt"))


def test_repa_has_no_normaliser_and_gets_the_one_it_was_trained_with(tmp_path: Path) -> None:
    """Its latents are multiplied by .18215; time runs as here, so no weight changes; it is written back without it."""
    ema = files.without_norm(files.weights("ema"))
    held = {"model": ema, "ema": ema, "opt": files.moments(ema), "args": files.args(), "steps": 5}
    torch.save(held, tmp_path / "repa.pt")
    found = read_reference(tmp_path / "repa.pt")
    assert found.origin == "REPA" and any("0.18215" in note for note in found.notes)
    norm = LatentNorm(4).eval()
    norm.load_state_dict(found.parts["ema_latent_norm"])
    z = torch.randn(2, 4, 3, 3)
    assert torch.allclose(norm(z), z * SD_SCALE, rtol=1e-6)
    files.equal(held, to_reference(with_extra(found), REFERENCE, {}, found.step))


def test_bare_weights_show_whose_they_are_or_are_asked_about(tmp_path: Path) -> None:
    """The direction of time is never guessed: without projectors or a doubled output, the user must say it."""
    state = files.without_projectors(files.weights("ema"))
    save_file(state, tmp_path / "bare.safetensors")
    with refused(UserError, "bare.safetensors", "opposite directions", "--origin REPA", "--origin SiT"):
        read_reference(tmp_path / "bare.safetensors", num_heads=4)
    with refused(UserError, "depth 3", "width 48", "--num-heads N"):
        read_reference(tmp_path / "bare.safetensors", origin="REPA")
    as_repa = read_reference(tmp_path / "bare.safetensors", num_heads=4, origin="REPA")
    as_sit = read_reference(tmp_path / "bare.safetensors", num_heads=4, origin="SiT")
    last = "backbone.final_layer.linear.weight"
    assert torch.equal(as_repa.parts["denoiser"][last], -as_sit.parts["denoiser"][last])
    files.equal(state, to_reference(with_extra(as_repa), REFERENCE, {}, 0))
    with refused(UserError, "SiT's", "REPA-E's", "leave --origin out"):
        read_reference(files.write_joint(tmp_path), origin="SiT")


def test_sits_own_checkpoint(tmp_path: Path) -> None:
    """Doubled output and its own words for paths: turned round, halved, and everything left behind is said."""
    state = files.without_projectors(files.weights("ema"))
    for name in ("final_layer.linear.weight", "final_layer.linear.bias"):
        patches = state[name].unflatten(0, (4, 4))
        state[name] = torch.cat([patches, torch.ones_like(patches)], dim=1).flatten(0, 1).contiguous()
    settings = {"path_type": "GVP", "prediction": "velocity", "num_classes": 10, "sample_eps": None, "num_heads": 4}
    held = {"model": state, "ema": state, "opt": files.moments(state), "args": argparse.Namespace(**settings)}
    torch.save(held, tmp_path / "0050000.pt")
    found = read_reference(tmp_path / "0050000.pt")
    assert (found.origin, found.path, found.step) == ("SiT", "cosine", 50_000)
    assert found.parts["denoiser"]["backbone.final_layer.linear.weight"].shape == (16, 48)
    assert len(found.notes) == 4 and "opt" not in found.extra
    back = to_reference(with_extra(found), REFERENCE, {}, found.step)
    assert {"bn.running_var", "final_layer.linear.weight"} <= back["ema"].keys()
    torch.save({**held, "args": argparse.Namespace(**{**settings, "prediction": "noise"})}, tmp_path / "noise.pt")
    with refused(UserError, "noise.pt", "prediction 'noise'", "velocity"):
        read_reference(tmp_path / "noise.pt")


def test_what_is_not_known_is_refused_in_words(tmp_path: Path) -> None:
    """Foreign layouts, missing keys, contradicting sizes, settings that are no plain values."""
    joint = files.joint()
    hole = {k: v for k, v in joint["ema"].items() if k != "blocks.1.attn.proj.bias"}
    doubled = {"final_layer.linear.bias": joint["ema"]["final_layer.linear.bias"].repeat(2)}
    wide = joint | {name: joint[name] | doubled for name in ("model", "ema")}
    cases = [
        ({"a": torch.zeros(1)}, ["file.pt", "layout", "REPA-E, REPA, SiT", "it holds a", "give another"]),
        ({**joint, "ema": hole}, ["1 missing", "blocks.1.attn.proj.bias"]),
        (
            {**joint, "args": files.args(num_classes=12)},
            ["11 rows", "12 classes", "allowed: 11, or 10", "correct num_classes"],
        ),
        (wide, ["file.pt", "predicts 8 channels", "latents of 4", "as many", "the velocity alone"]),
        ({**joint, "args": files.args(path_type="vp")}, ["file.pt", "path 'vp'", "linear", "cosine"]),
        ({**joint, "args": files.args(device=torch.device("cpu"))}, ["file.pt", "args.device", "plain values"]),
    ]
    for held, facts in cases:
        torch.save(held, tmp_path / "file.pt")
        with refused(UserError, *facts):
            read_reference(tmp_path / "file.pt")
