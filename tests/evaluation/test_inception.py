"""With random weights in torch-fidelity's own layout, on a handful of images: the published ones cannot be had here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from errors import refused
from torch_fidelity import feature_extractor_inceptionv3 as fidelity

from repae.config import UserError
from repae.evaluation import Inception
from repae.evaluation.inception import WEIGHTS_FILE, cached_weights


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """A file with the keys and shapes of the published one; scaled to keep the signal alive."""
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    state = {}

    def collect(self, *_):
        generator = torch.Generator().manual_seed(0)
        for name, tensor in self.state_dict().items():
            fan_in = tensor[0].numel() if tensor.ndim > 1 else 1
            value = torch.randn(tensor.shape, generator=generator) * (2 / fan_in) ** 0.5 if tensor.ndim > 1 else tensor
            state[name] = value.clone()
        torch.save(state, path)
        return state

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fidelity, "load_state_dict_from_url", lambda *_, **__: None)
        patch.setattr(fidelity.FeatureExtractorInceptionV3, "load_state_dict", collect)
        fidelity.FeatureExtractorInceptionV3("any", ["2048"])
    return path


@pytest.fixture(scope="session")
def inception(weights):
    return Inception(weights)


def _images(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(256, (n, 3, 4, 4), generator=generator).float()
    return torch.nn.functional.interpolate(coarse, (32, 32), mode="bilinear").to(torch.uint8)


def test_the_parts_are_those_of_adms_evaluator(inception):
    """Pool and logits as torch-fidelity gives them; spatial: 7 channels of the ReLU of Mixed_6d's 1 x 1 branch, laid
    out (row, column, channel) as TensorFlow does, rebuilt by walking through the blocks by hand."""
    images = _images(2)
    found = inception(images)
    net = inception.network
    assert {part: tuple(rows.shape) for part, rows in found.items()} == {
        "pool": (2, 2048), "spatial": (2, 2023), "logits": (2, 1008),
    }  # fmt: skip
    pool, logits = net(images)
    assert torch.equal(found["pool"], pool) and torch.equal(found["logits"], logits)
    assert torch.allclose(logits, pool @ net.fc.weight.T, atol=1e-4)
    with torch.no_grad():
        x = fidelity.interpolate_bilinear_2d_like_tensorflow1x(images.float(), size=(299, 299), align_corners=False)
        x = net.MaxPool_1(net.Conv2d_2b_3x3(net.Conv2d_2a_3x3(net.Conv2d_1a_3x3((x - 128) / 128))))
        x = net.MaxPool_2(net.Conv2d_4a_3x3(net.Conv2d_3b_1x1(x)))
        for block in (net.Mixed_5b, net.Mixed_5c, net.Mixed_5d, net.Mixed_6a, net.Mixed_6b, net.Mixed_6c):
            x = block(x)
        branch = net.Mixed_6d.branch1x1
        x = torch.relu(branch.bn(branch.conv(x)))
    expected = x.permute(0, 2, 3, 1).numpy()[..., :7].reshape(2, -1)
    assert np.allclose(found["spatial"].numpy(), expected, atol=1e-4) and float(found["spatial"].std()) > 0.01


def test_missing_and_wrong_weights_are_said(tmp_path, monkeypatch):
    """Offline, the message names the file that is wanted; a file of something else is refused unread."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert cached_weights() is None

    def offline(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(fidelity, "load_state_dict_from_url", offline)
    with refused(UserError, "no route to host", WEIGHTS_FILE, "6726825d", "--features.weights"):
        Inception()
    with refused(UserError, tmp_path / "none.pth", WEIGHTS_FILE, "--features.weights"):
        Inception(tmp_path / "none.pth")
    torch.save({"some.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with refused(UserError, tmp_path / "other.pth", "torch-fidelity's Inception", WEIGHTS_FILE):
        Inception(tmp_path / "other.pth")
    torch.save({"fc.weight": Path("x")}, tmp_path / "code.pth")
    with refused(UserError, tmp_path / "code.pth", "'pathlib.PosixPath'", "could run anything", WEIGHTS_FILE):
        Inception(tmp_path / "code.pth")


def test_random_weights_are_not_the_published_ones(inception):
    """The protocol says so, for figures with other weights compare with no paper."""
    assert inception.facts()["published_weights"] is False and inception.facts()["dim"] == 2048
