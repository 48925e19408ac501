"""The guide's loss file, read as it is, and its tuning ranges."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from errors import assert_tells, refused

from repae.config import UserError
from repae.losses.autoencoder import AutoencoderLossConfig
from repae.recipes.catalogue import compose, find
from repae.recipes.guide import RANGES, losses_from, warnings
from repae.recipes.recipe import LpipsConvnextPerceptual, LpipsPerceptual, Recipe
from repae.training.methods import Naive, Repa

FILE = """\
model:
  vq_model:
    quantize_mode: vae

losses:
  discriminator_start: 0
  discriminator_factor: 1.0
  discriminator_weight: 0.1
  quantizer_weight: 1.0
  perceptual_loss: "lpips"
  perceptual_weight: 1.0
  reconstruction_loss: "l1"
  reconstruction_weight: 1.0
  lecam_regularization_weight: 0.0
  kl_weight: 1e-6
  logvar_init: 0.0
"""


NAME = "l1_lpips_kl_gan.yaml"


def written(folder: Path, text: str) -> Path:
    """A loss file."""
    path = folder / NAME
    path.write_text(text, encoding="utf-8")
    return path


def test_the_file_of_the_guide_gives_the_published_losses(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its values are this project's defaults, `1e-6` is a number, and what is not used is said."""
    with caplog.at_level(logging.WARNING, logger="repae"):
        changes = losses_from(written(tmp_path, FILE))
    recipe = find("digits").replace(**changes)
    assert recipe.losses == AutoencoderLossConfig()
    assert recipe.losses.kl_weight == 1e-6
    assert isinstance(recipe.perceptual, LpipsPerceptual)
    assert_tells(caplog.text, "quantizer_weight", "not used")


def test_other_values_and_missing_keys(tmp_path: Path) -> None:
    """What the file says is taken, what it leaves out stays as the recipe has it."""
    path = written(tmp_path, "model: {vq_model: {quantize_mode: vae}}\nlosses: {kl_weight: 2e-6, logvar_init: 1}\n")
    assert losses_from(path) == {"losses.kl_weight": 2e-6, "losses.logvar_init": 1.0}
    changed = find("digits").replace(**losses_from(path))
    assert changed.losses.perceptual_weight == 0.0


def test_a_local_lpips_stays_where_it_is(tmp_path: Path) -> None:
    """The file says which perceptual loss, not where its weights are."""
    recipe = find("repae-sdvae-xl2").replace(**{"perceptual.vgg": "vgg.pth"})
    assert recipe.replace(**losses_from(written(tmp_path, FILE))).perceptual == LpipsPerceptual(vgg="vgg.pth")


def test_the_weighted_perceptual_loss(tmp_path: Path) -> None:
    """``lpips-convnext_s-a-b`` becomes the kind of that name with its two weights."""
    path = written(tmp_path, FILE.replace('"lpips"', '"lpips-convnext_s-1.0-0.1"'))
    found = find("digits").replace(**losses_from(path)).perceptual
    assert found == LpipsConvnextPerceptual(lpips_weight=1.0, convnext_weight=0.1)


def test_the_mode_with_a_codebook(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """``vq`` weighs the quantiser; what the reference reads in the other mode only is said to be unused."""
    text = FILE.replace("quantize_mode: vae", "quantize_mode: vq").replace(
        "quantizer_weight: 1.0", "quantizer_weight: 0.5"
    )
    changes = losses_from(written(tmp_path, text))
    assert changes["losses.quantizer_weight"] == 0.5 and changes["losses.logvar_init"] == 0.0
    assert "losses.kl_weight" not in changes
    assert_tells(caplog.text, "kl_weight", "logvar_init", "not used")
    recipe = compose("digits-vq", {"perceptual.kind": "none", "losses.perceptual_weight": "0"}, str(tmp_path / NAME))
    assert recipe.losses.quantizer_weight == 0.5


@pytest.mark.parametrize(
    ("name", "mode", "facts"),
    [
        ("digits", "vq", ["'vq'", "a codebook"]),
        ("digits", None, ["'vq'", "the default"]),
        ("digits-vq", "vae", ["'vae'"]),
    ],
)
def test_the_mode_and_the_autoencoder_must_agree(tmp_path: Path, name: str, mode: str | None, facts: list[str]) -> None:
    """A file for a codebook on an autoencoder without one would train something else than it says."""
    section = "{}" if mode is None else f"{{quantize_mode: {mode}}}"
    path = written(tmp_path, f"model: {{vq_model: {section}}}\nlosses: {{discriminator_start: 0}}\n")
    with refused(UserError, path, "quantize_mode", *facts) as caught:
        compose(name, {}, str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("before", "after", "facts"),
    [
        ("quantize_mode: vae", "quantize_mode: vqq", ["quantize_mode", "'vqq'", "'vae', 'vq'"]),
        ("quantizer_weight: 1.0", "quantizer_weight: 0.5", ["quantizer_weight", 0.5]),
        ("kl_weight", "kl_wieght", ["losses.kl_wieght", "did you mean 'kl_weight'"]),
        ("losses:", "loses:", ["loses", "did you mean 'losses'"]),
        ("quantize_mode: vae", "quantise_mode: vae", ["quantise_mode", "did you mean 'quantize_mode'"]),
        ('"lpips"', '"lpips-convnext_s"', ["perceptual_loss", "'lpips-convnext_s'", "'lpips'"]),
        ('"lpips"', '"lpips-convnext_s-1-x"', ["'lpips-convnext_s-1-x'", "'lpips-convnext_s-A-B'", "two weights"]),
        ('"l1"', '"l3"', ["reconstruction_loss", "'l3'", "'l1', 'l2'"]),
        ("kl_weight: 1e-6", "kl_weight: -1", ["kl_weight", -1]),
        ("logvar_init: 0.0", "proj_coef: 0.5", ["proj_coef", "set that"]),
        ("  vq_model:\n    quantize_mode: vae\n", "  vq_model: 3\n", ["model.vq_model", 3]),
        ("model:", "model: [", ["not valid YAML"]),
    ],
)
def test_what_has_no_home_here_is_refused_in_words(
    tmp_path: Path, before: str, after: str, facts: list[object]
) -> None:
    """Nothing in the file is ignored: a key counts, or the user is told why it cannot, in the file's own terms."""
    assert before in FILE
    path = written(tmp_path, FILE.replace(before, after))
    with refused(UserError, path, *facts) as caught:
        losses_from(path)
    assert "\n" not in str(caught.value)


def test_named_recipes_warn_of_nothing_that_they_say_themselves() -> None:
    """The digits leave the ranges of ImageNet on purpose."""
    digits = find("digits")
    assert warnings(digits, digits) == []
    assert warnings(find("repae-sdvae-xl2")) == []


@pytest.mark.parametrize("name", RANGES)
def test_each_range_warns_on_both_sides_and_not_at_its_ends(name: str) -> None:
    """A value outside is warned of by its name, a value at either end is not."""
    base = find("repae-sdvae-xl2")
    low, high = RANGES[name]

    def named(recipe: Recipe) -> list[str]:
        return [line for line in warnings(recipe, base) if line.startswith(f"{name} ") and "outside" in line]

    assert not named(base.replace(**{name: low})) and not named(base.replace(**{name: high}))
    below = low - 1 if isinstance(low, int) else low * 0.9
    above = high + 1 if isinstance(high, int) else high * 1.1
    assert len(named(base.replace(**{name: below}))) == 1 and len(named(base.replace(**{name: above}))) == 1


def test_the_ratio_of_the_alignment_weights() -> None:
    """The autoencoder's weight is two to three times the denoiser's."""
    base = find("repae-sdvae-xl2")
    assert any("times" in line for line in warnings(base.replace(**{"method.proj_coeff": 1.0}), base))
    assert not warnings(base.replace(**{"method.proj_coeff": 0.6}), base)


def test_only_what_the_method_uses_is_warned_of() -> None:
    """REPA trains no autoencoder, so its loss weights do not matter; a method without alignment has no ratio."""
    base = find("repa-sdvae-xl2")
    assert warnings(base.replace(**{"losses.kl_weight": 1.0}), base) == []
    assert warnings(base.replace(method=Repa(proj_coeff=2.0)), base) == [
        "method.proj_coeff 2 is outside the guide's tuning range, 0.1 to 1"
    ]
    assert not any("times" in line for line in warnings(base.replace(method=Naive())))
