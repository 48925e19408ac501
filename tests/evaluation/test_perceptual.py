from __future__ import annotations

import warnings

import pytest
import torch
from errors import refused
from torch import nn

from repae.config import UserError
from repae.evaluation import LpipsConfig

ALEX = {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)}
WIDTHS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
VGG = dict(zip((0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), zip(WIDTHS, (3, *WIDTHS), [3] * 13)))


@pytest.fixture(scope="module", params=["alex", "vgg"])
def backbone(request, tmp_path_factory):
    """Which one, and its convolutions with random weights in torchvision's own layout, classifier and all."""
    path = tmp_path_factory.mktemp("weights") / f"{request.param}.pth"
    generator, state = torch.Generator().manual_seed(0), {"classifier.1.bias": torch.zeros(4096)}
    for layer, (out, channels, size) in (ALEX if request.param == "alex" else VGG).items():
        weight = torch.randn(out, channels, size, size, generator=generator) / (channels * size * size) ** 0.5
        state |= {f"features.{layer}.weight": weight, f"features.{layer}.bias": torch.zeros(out)}
    torch.save(state, path)
    return request.param, path


def _images(n=40, channels=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (n, channels, 32, 32), dtype=torch.uint8, generator=generator)


def test_lpips_equals_the_authors_package(backbone):
    """On the same weights, to 1e-6 relative, for any batch; 0 for equal images; grey as three equal channels."""
    import lpips

    net, path = backbone
    measure = LpipsConfig(net=net, weights=str(path)).open()
    real, other = _images(), _images(seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    given = torch.load(path, weights_only=True)
    own = network.net.state_dict()
    network.net.load_state_dict({name: given[f"features.{name.partition('.')[2]}"] for name in own})
    with torch.no_grad():
        expected = network(real / 127.5 - 1, other / 127.5 - 1).double().mean()
    assert measure(real, other) == pytest.approx(float(expected), rel=1e-6)
    assert measure(real[:3], real[:3]) == 0.0 and float(expected) > 0
    grey, rebuilt = _images(2, 1), _images(2, 1, seed=1)
    assert measure(grey, rebuilt) == pytest.approx(measure(grey.repeat(1, 3, 1, 1), rebuilt.repeat(1, 3, 1, 1)))
    assert measure.facts()["backbone"] == net and len(measure.facts()["sha256"]) == 24
    assert not measure.network.training and isinstance(measure.network, nn.Module)


def test_missing_and_wrong_backbones_are_said(tmp_path, monkeypatch):
    """The file that is wanted, by name, where it is looked for and how to give it."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with refused(UserError, "checkpoints/vgg16-397923af.pth", "ImageNet weights vgg16-397923af.pth", "--lpips.weights"):
        LpipsConfig().open()
    torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with refused(UserError, tmp_path / "other.pth", "AlexNet", "missing 0.bias", "alexnet-owt-7be5be79.pth"):
        LpipsConfig(net="alex", weights=str(tmp_path / "other.pth")).open()
    with refused(UserError, tmp_path / "other.pth", "missing 0.bias", "vgg16-397923af.pth"):
        LpipsConfig(weights=str(tmp_path / "other.pth")).open()
    (tmp_path / "broken.pth").write_bytes(b"no weights")
    with refused(UserError, tmp_path / "broken.pth", "could run anything", "alexnet-owt-7be5be79.pth"):
        LpipsConfig(net="alex", weights=str(tmp_path / "broken.pth")).open()
