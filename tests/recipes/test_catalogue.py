"""Named recipes: found by name or file, whole, and with the values that their names promise."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from errors import assert_tells, refused

from repae.config import UserError
from repae.flow.samplers import EulerMaruyama
from repae.losses.autoencoder import AutoencoderLossConfig
from repae.models.autoencoders import KLConfig
from repae.models.backbones import SiTBackbone
from repae.recipes.catalogue import catalogue, compose, find, listing
from repae.recipes.published import published
from repae.recipes.recipe import Recipe
from repae.runtime.ema import EmaConfig
from repae.runtime.optimise import AdamWConfig
from repae.training.methods import Naive, Repa, RepaE, VaeOnly

JOINT = ["repae-sdvae-xl2", "repae-invae-xl1", "repae-vavae-xl1"]


@pytest.mark.parametrize("name", catalogue())
def test_every_recipe_survives_its_own_file(name: str, tmp_path: Path) -> None:
    """A recipe written by `repae recipes NAME` and read again is the same, and says what it is for and aims at."""
    recipe = find(name)
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe.to_yaml(), encoding="utf-8")
    assert find(str(path)) == recipe and find(str(tmp_path)) == recipe
    assert recipe.name == name and recipe.about and recipe.target
    assert name in listing()


@pytest.mark.parametrize("name", JOINT)
def test_the_published_joint_runs(name: str) -> None:
    """The hyper-parameters of the paper's runs: alignment .5 and 1.5, three AdamW at 1e-4, 400k steps of 256 images."""
    recipe = find(name)
    assert recipe.method == RepaE(proj_coeff=0.5, vae_align_proj_coeff=1.5)
    assert recipe.losses == AutoencoderLossConfig()
    plain = AdamWConfig(lr=1e-4, betas=(0.9, 0.999), weight_decay=0.0, eps=1e-8, max_grad_norm=1.0)
    optimisers = recipe.optimisers
    assert optimisers.denoiser == optimisers.vae == optimisers.discriminator == plain
    assert (recipe.loop.steps, recipe.loop.batch_size, recipe.loop.checkpoint_every) == (400_000, 256, 50_000)
    assert recipe.ema == EmaConfig(decay=0.9999, warmup=False, statistics="average")
    assert (recipe.path.kind, recipe.time.kind, recipe.backbone.class_dropout_prob) == ("linear", "uniform", 0.1)
    assert (recipe.backbone.encoder_depth, recipe.backbone.projector_dim, recipe.latent_norm.momentum) == (8, 2048, 0.1)
    assert (recipe.runtime.precision, recipe.bundle, recipe.num_classes) == ("bf16", "reference", 1000)
    assert recipe.perceptual.kind == "lpips"
    assert [getattr(teacher, "name", None) for teacher in recipe.teachers] == ["dinov2-b"]
    assert recipe.evaluation.sampler == EulerMaruyama(steps=250, last="mean")
    assert recipe.replace(**{"runtime.precision": "fp16"}).runtime.precision == "fp16"


def test_autoencoders_and_sizes_go_together() -> None:
    """f8d4 with patch 2, f16d32 with patch 1: 256 tokens at 256 px, as DINOv2-B has them."""
    sd, iv, va = map(find, JOINT)
    assert sd.vae == KLConfig.preset("f8d4") and iv.vae == va.vae == KLConfig.preset("f16d32")
    assert sd.backbone == SiTBackbone.preset("SiT-XL/2") and iv.backbone == va.backbone == SiTBackbone.preset(
        "SiT-XL/1"
    )
    for recipe in published():
        assert (256 // recipe.vae.factor // recipe.backbone.patch_size) ** 2 == 256


@pytest.mark.parametrize("vae", ["invae", "vavae"])
def test_the_guide_differs_in_one_weight_and_states_no_target(vae: str) -> None:
    """The guide's 1.0 for f16d32 has no published source, so it is a recipe of its own."""
    ours, guides = find(f"repae-{vae}-xl1"), find(f"repae-{vae}-xl1-guide")
    assert guides.replace(name=ours.name, about=ours.about, target=ours.target, method=ours.method) == ours
    assert guides.method == RepaE(proj_coeff=0.5, vae_align_proj_coeff=1.0)
    assert guides.target.startswith("none") and "FID" not in guides.target


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("no-stopgrad", {"method": Naive(proj_coeff=0.5, vae_align_proj_coeff=1.5)}),
        ("no-norm", {"latent_norm.tracking": "fixed"}),
        ("no-gan", {"discriminator": None, "losses.discriminator_weight": 0.0}),
        ("depth6", {"backbone.encoder_depth": 6}),
        ("depth10", {"backbone.encoder_depth": 10}),
        ("dinov2-l", {"teachers.0.name": "dinov2-l"}),
        ("clip-l", {"teachers.0.name": "clip-l"}),
        ("ijepa-h", {"teachers.0.name": "ijepa-h"}),
    ],
)
def test_an_ablation_differs_in_what_it_names(name: str, changes: dict[str, object]) -> None:
    """Each ablation is the 20-epoch SiT-L run with one change."""
    base, ablated = find("repae-sdvae-l2"), find(f"repae-sdvae-l2-{name}")
    assert base.loop.steps == 100_000 and base.backbone == SiTBackbone.preset("SiT-L/2")
    said = {field: getattr(ablated, field) for field in ("name", "about", "target")}
    assert base.replace(**changes, **said) == ablated


def test_frozen_runs_train_the_denoiser_alone() -> None:
    """REPA, and plain SiT as its weight zero without a teacher."""
    for vae, size in (("sdvae", "xl2"), ("vavae", "xl1")):
        assert find(f"repa-{vae}-{size}").method == Repa(proj_coeff=0.5)
        plain = find(f"sit-{vae}-{size}")
        assert plain.method == Repa(proj_coeff=0.0) and plain.teachers == ()


def test_the_digits_differ_in_their_method_only() -> None:
    """What the miniature compares is equal but for the method: data, sizes, seeds, schedules."""
    base = find("digits")
    arms = {
        "digits-repa": Repa(),
        "digits-sit": Repa(proj_coeff=0.0),
        "digits-naive": Naive(),
        "digits-control": RepaE(),
    }
    for name, method in arms.items():
        arm = find(name)
        assert arm.method == method
        assert arm.class_mean_targets == (name == "digits-control")
        same = {field: getattr(base, field) for field in ("name", "about", "method", "teachers", "class_mean_targets")}
        assert arm.replace(**same) == base
    assert find("digits-vae").method == VaeOnly()
    assert find("digits-full").losses.discriminator_weight > 0 and find("digits-full").losses.perceptual_weight > 0
    assert base.losses.discriminator_weight == 0 and "digits-full has both on" in base.about


@pytest.mark.parametrize(
    ("name", "fact"),
    [
        ("digts", "did you mean 'digits'"),
        ("repae-sdvae-xl", "did you mean 'repae-sdvae-xl2'"),
        ("repae-sdvae-l2-no-stop-gradient", "did you mean 'repae-sdvae-l2-no-stopgrad'"),
        ("nothing-like-it-at-all", "`repae recipes`"),
        ("missing.yaml", "`repae recipes`"),
    ],
)
def test_an_unknown_recipe_is_refused_with_a_suggestion(name: str, fact: str) -> None:
    """One line, with the nearest name."""
    with refused(UserError, name, fact) as caught:
        find(name)
    assert "\n" not in str(caught.value)


def test_a_file_with_a_wrong_field_names_file_and_field(tmp_path: Path) -> None:
    """A recipe of one's own is checked like an option."""
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nloop: {stesp: 3}\n", encoding="utf-8")
    with refused(UserError, path, "loop.stesp", 3, "did you mean 'steps'"):
        find(str(path))


def test_options_win_over_the_loss_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """First the recipe, then the guide's file, then single fields; values outside the guide's ranges are said."""
    path = tmp_path / "losses.yaml"
    path.write_text("model: {vq_model: {quantize_mode: vae}}\nlosses: {kl_weight: 1e-7, logvar_init: 0.5}\n")
    with caplog.at_level(logging.WARNING, logger="repae"):
        recipe = compose("digits", {"losses.kl-weight": "1e-4", "name": "mine"}, str(path))
    assert isinstance(recipe, Recipe)
    assert (recipe.name, recipe.losses.kl_weight, recipe.losses.logvar_init) == ("mine", 1e-4, 0.5)
    (record,) = caplog.records
    assert_tells(record.getMessage(), "losses.kl_weight", 0.0001, "tuning range", "1e-07 to 1e-05")
