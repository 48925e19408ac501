"""The embedded teacher: sizes, freezing, centring, and a folder that gives back the same tokens or says why not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from errors import refused
from torch import nn

from repae.config import UserError
from repae.models.teachers.embedded import EmbeddedNetwork, EmbeddedTeacher, EmbeddedTeacherConfig

SMALL = EmbeddedTeacherConfig(widths=(8, 8, 16), heads=2)


def images(count: int, channels: int = 1, side: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (count, channels, side, side), dtype=torch.uint8)


def teacher(config: EmbeddedTeacherConfig = SMALL) -> EmbeddedTeacher:
    """One whose batch statistics are not those of a fresh network."""
    made = EmbeddedTeacher(config)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return made


@pytest.mark.parametrize(("channels", "side", "count"), [(1, 32, 16), (3, 64, 64), (3, 8, 1)])
def test_one_token_per_eight_pixels(channels: int, side: int, count: int) -> None:
    """Grey digits and folders of RGB images alike give (side / 8)^2 float32 tokens of the declared width."""
    config = SMALL.replace(image_channels=channels, resolution=side)
    made = EmbeddedTeacher(config)
    tokens = made(images(2, channels, side))
    assert tokens.shape == (2, count, made.dim)
    assert tokens.dtype == torch.float32
    assert made.tokens(side) == count


def test_the_default_is_the_published_recipe() -> None:
    """16 tokens of width 96 for 32 pixels, three stages of 32, 64 and 96 channels at sides 16, 8 and 4."""
    made = EmbeddedTeacher(EmbeddedTeacherConfig())
    assert (made.tokens(32), made.dim) == (16, 96)
    maps = made.features(torch.zeros(1, 1, 32, 32))
    assert [tuple(m.shape[1:]) for m in maps] == [(32, 16, 16), (64, 8, 8), (96, 4, 4)]


def test_tokens_lie_row_by_row() -> None:
    """Token k stands for row k // grid and column k % grid, the order of the denoiser's tokens."""
    network = EmbeddedNetwork(SMALL.replace(resolution=64)).eval()
    plain = torch.zeros(1, 1, 64, 64)
    bright = plain.clone()
    bright[0, 0, 8 * 5 : 8 * 6, 8 * 2 : 8 * 3] = 1.0
    change = (network.local(bright) - network.local(plain)).detach().square().sum(-1)[0].view(8, 8)
    centre = [(change.sum(1 - axis) * torch.arange(8)).sum() / change.sum() for axis in (0, 1)]
    assert [round(float(place)) for place in centre] == [5, 2]


def test_it_stays_frozen_whatever_surrounds_it() -> None:
    """A train() of the whole, or a forward pass, must not move its statistics; no gradient enters or leaves it."""
    made = teacher()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    whole = nn.ModuleList([made]).train()
    assert not any(module.training for module in made.modules())
    tokens = whole[0](images(4))
    assert not tokens.requires_grad
    assert not any(parameter.requires_grad for parameter in made.parameters())
    assert all(torch.equal(before[name], value) for name, value in made.state_dict().items())


def test_an_image_has_the_same_tokens_in_any_company() -> None:
    """Tokens are a function of the image: batch composition must not matter, or caching would change the targets."""
    made, batch = teacher(), images(5)
    alone = torch.cat([made(batch[k : k + 1]) for k in range(5)])
    torch.testing.assert_close(made(batch), alone, rtol=1e-4, atol=1e-5)


def test_centring_removes_the_mean_of_every_place() -> None:
    """After fit_centre the mean token of each place is zero over the data set, in whatever batches it comes."""
    made, batch = teacher(), images(10)
    raw = made(batch)
    made.fit_centre(batch.split(4))
    torch.testing.assert_close(made.centre, raw.mean(0))
    torch.testing.assert_close(made(batch), raw - raw.mean(0))
    made.fit_centre([batch])
    assert made(batch).mean(0).abs().max() < 1e-5


def test_features_let_gradients_through_to_the_image() -> None:
    """The perceptual term trains the autoencoder through the frozen stages; levels and [-1, 1] name the same image."""
    made, batch = teacher(), images(2)
    symmetric = (batch.float() / 127.5 - 1).requires_grad_()
    maps = made.features(symmetric)
    sum(m.square().mean() for m in maps).backward()
    assert symmetric.grad is not None
    assert symmetric.grad.abs().sum() > 0
    expected = made.network.feature_maps(batch.float() / 255)
    for ours, theirs in zip(maps, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_saved_teacher_gives_the_same_tokens(tmp_path: Path) -> None:
    """Weights, statistics and centre come back bit for bit, with their origin."""
    made, batch = teacher(), images(6)
    made.fit_centre([batch])
    made.save(tmp_path / "a" / "teacher", {"data": "digits", "seed": 3})
    again = EmbeddedTeacher.load(tmp_path / "a" / "teacher")
    assert torch.equal(again(batch), made(batch))
    assert again.config == made.config
    assert again.origin == {"data": "digits", "seed": 3}
    again.save(tmp_path / "b")
    assert EmbeddedTeacher.load(tmp_path / "b").origin == again.origin
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["teacher.json", "teacher.safetensors"]


def test_an_interrupted_rewrite_is_noticed(tmp_path: Path) -> None:
    """New weights beside the old description are another teacher than either; loading must not mix them."""
    teacher().save(tmp_path)
    description = (tmp_path / "teacher.json").read_bytes()
    teacher().save(tmp_path)
    (tmp_path / "teacher.json").write_bytes(description)
    with refused(UserError, "teacher.safetensors", "teacher.json", "again"):
        EmbeddedTeacher.load(tmp_path)


def test_a_folder_without_a_teacher_is_refused_in_words(tmp_path: Path) -> None:
    """Missing, unreadable, foreign, and of another schema."""
    with refused(UserError, tmp_path, "teacher.json is missing", "EmbeddedTeacher.save"):
        EmbeddedTeacher.load(tmp_path)
    teacher().save(tmp_path)
    facts = json.loads((tmp_path / "teacher.json").read_text())
    for text, told in [
        ("{", ["line 1 column 2", "train the teacher again"]),
        (
            json.dumps(facts | {"schema": 99}),
            ["teacher.json", "schema 99", "'embedded' and 1", "train"],
        ),
        (json.dumps([]), ["teacher.json", "kind None", "'embedded' and 1", "train the teacher again"]),
        (json.dumps(facts | {"config": {"width": 3}}), ["teacher.json", "width", "did you mean 'widths'"]),
        (
            json.dumps(facts | {"config": EmbeddedTeacherConfig().model_dump(mode="json")}),
            ["teacher.safetensors", "teacher.json", "centre has shape", "instead of", "train the teacher again"],
        ),
    ]:
        (tmp_path / "teacher.json").write_text(text)
        with refused(UserError, tmp_path, *told) as caught:
            EmbeddedTeacher.load(tmp_path)
        assert "\n" not in str(caught.value)


def test_images_it_was_not_made_for_are_refused() -> None:
    """Another side or channel count names both; a position table of another grid would be silently wrong."""
    made = teacher()
    with refused(UserError, "32 px", "64 px", "data.resolution to 32"):
        made.tokens(64)
    with refused(UserError, "(1, 32, 32)", "(3, 32, 32)", "train a teacher"):
        made(images(1, 3))
    with refused(UserError, "(1, 32, 32)", "(1, 64, 64)", "train a teacher"):
        made.features(torch.zeros(1, 1, 64, 64))


@pytest.mark.parametrize("wrong", [{"resolution": 36}, {"heads": 5}, {"widths": (8, 8, 6), "heads": 2}, {"depth": 2}])
def test_impossible_sizes_are_refused(wrong: dict[str, object]) -> None:
    """A resolution that cannot be halved three times, heads that do not divide the width, unknown fields."""
    with pytest.raises(UserError):
        EmbeddedTeacherConfig(**wrong)
