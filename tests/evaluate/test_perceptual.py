from __future__ import annotations

import warnings

import pytest
import torch

from repae.config import UserError
from repae.evaluate import LpipsConfig


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """AlexNet's convolutions with random weights, in torchvision's own layout."""
    path = tmp_path_factory.mktemp("weights") / "alexnet.pth"
    layers = {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)}
    generator, state = torch.Generator().manual_seed(0), {"classifier.1.bias": torch.zeros(4096)}
    for layer, (out, channels, size) in layers.items():
        weight = torch.randn(out, channels, size, size, generator=generator) / (channels * size * size) ** 0.5
        state |= {f"features.{layer}.weight": weight, f"features.{layer}.bias": torch.zeros(out)}
    torch.save(state, path)
    return path


def _images(n=40, channels=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (n, channels, 64, 64), dtype=torch.uint8, generator=generator)


def test_lpips_equals_the_authors_package(backbone):
    """On the same weights, to 1e-6 relative, for any batch; 0 for equal images; grey as three equal channels."""
    import lpips

    judge = LpipsConfig(net="alex", weights=str(backbone)).open()
    real, other = _images(), _images(seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    network.net.load_state_dict(judge.network.net.state_dict())
    with torch.no_grad():
        expected = network(real / 127.5 - 1, other / 127.5 - 1).double().mean()
    assert judge(real, other) == pytest.approx(float(expected), rel=1e-6)
    assert judge(real[:3], real[:3]) == 0.0 and float(expected) > 0
    grey, rebuilt = _images(2, 1), _images(2, 1, seed=1)
    assert judge(grey, rebuilt) == pytest.approx(judge(grey.repeat(1, 3, 1, 1), rebuilt.repeat(1, 3, 1, 1)))
    assert judge.facts()["backbone"] == "alex"


def test_missing_and_wrong_backbones_are_said(tmp_path, backbone, monkeypatch):
    """The file that is wanted, by name, where it is looked for and how to give it."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(UserError, match=r"no file .*vgg16-397923af.pth. Wanted: torchvision's .*--lpips.weights"):
        LpipsConfig().open()
    torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="does not hold the backbone 'alex'"):
        LpipsConfig(net="alex", weights=str(tmp_path / "other.pth")).open()
    (tmp_path / "broken.pth").write_bytes(b"no weights")
    with pytest.raises(UserError, match="cannot be read as weights"):
        LpipsConfig(net="alex", weights=str(tmp_path / "broken.pth")).open()
