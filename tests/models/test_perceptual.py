"""LPIPS against the package of that name, and the range in which it sees images."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import lpips as reference
import pytest
import timm
import torch
import torchvision
from errors import refused
from players import WHOLE, batch, setup
from safetensors.torch import save_file
from torch import Tensor, nn

from repae.config import UserError
from repae.losses.perceptual import lpips, output_distance, weighted_mean
from repae.models.perceptual import ConvNextLogits, LpipsNetwork, bundled_linear
from repae.models.teachers.targets import NoTargets
from repae.models.weight_files import read_weights
from repae.runtime.precision import Precision
from repae.training.build import StepBuilder, build_players
from repae.training.methods import VaeOnly

ATTO = "convnext_atto.d2_in1k"


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    """The package's LPIPS with its own linear layers on a random VGG16."""

    class Vgg:
        features = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"], batch_norm=False)

    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        torch.manual_seed(3)
        for layer in Vgg.features:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)
                nn.init.normal_(layer.bias, std=0.1)
        patch.setattr(torchvision.models, "vgg16", lambda pretrained: Vgg)
        return reference.LPIPS(net="vgg", pnet_rand=True, verbose=False)


@pytest.fixture(scope="module")
def vgg_file(theirs: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same VGG16 as torchvision's file holds it, classifier and all."""
    slices = [getattr(theirs.net, f"slice{number}").state_dict() for number in range(1, 6)]
    state = {f"features.{name}": tensor for part in slices for name, tensor in part.items()}
    path = tmp_path_factory.mktemp("vgg") / "vgg16.pth"
    torch.save(state | {"classifier.0.weight": torch.zeros(1), "classifier.0.bias": torch.zeros(1)}, path)
    return path


@pytest.fixture(scope="module")
def network(vgg_file: Path) -> LpipsNetwork:
    return LpipsNetwork(vgg_file)


@pytest.fixture(scope="module")
def distance(network: LpipsNetwork) -> Any:
    return partial(lpips, network, tuple(network.linear))


def pair(channels: int = 3) -> tuple[Tensor, Tensor]:
    """A reconstruction that leaves the range a little, and the real images."""
    source = torch.Generator().manual_seed(1)
    real = torch.rand(2, channels, 32, 32, generator=source) * 2 - 1
    return real + 0.3 * torch.randn(real.shape, generator=source), real


def test_it_is_lpips(theirs: Any, distance: Any) -> None:
    """Value and gradient of the package on the same weights, in float32, to 1e-6."""
    ours, real = pair()
    other = ours.clone().requires_grad_()
    expected = theirs(other, real).mean()
    expected.backward()
    ours.requires_grad_()
    found = distance(ours, real)
    found.backward()
    assert found.dtype == torch.float32 and found.shape == ()
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    gap = (ours.grad - other.grad).abs().max()
    assert gap <= 1e-6 * other.grad.abs().max(), gap


def test_images_are_seen_in_their_range_and_once(theirs: Any, distance: Any) -> None:
    """[-1, 1] as they are. Fed [0, 1], or made symmetric a second time as in the reference, the value differs."""
    ours, real = pair()
    right = theirs(ours, real).mean().item()
    unit = theirs((ours + 1) / 2, (real + 1) / 2).mean().item()
    twice = theirs(2 * ours - 1, 2 * real - 1).mean().item()
    assert distance(ours, real).item() == pytest.approx(right, rel=1e-5)
    assert abs(unit - right) > 0.01 * right and abs(twice - right) > 0.01 * right


def test_the_step_shows_images_in_their_range(theirs: Any, distance: Any) -> None:
    """From levels 0..255 to the logged loss: the value of the package on images in [-1, 1]."""
    cpu, seen = torch.device("cpu"), []

    def spy(reconstruction: Tensor, real: Tensor) -> Tensor:
        seen.append((reconstruction.detach(), real))
        return distance(reconstruction, real)

    made = setup(method=VaeOnly(), **{"losses.perceptual_weight": 0.5, "losses.discriminator_weight": 0.0})
    players = build_players(made, resolution=16, image_channels=3, num_classes=3, targets=NoTargets())
    step = made.method.build(players, StepBuilder(made, Precision("fp32", cpu), cpu, perceptual=spy))
    logged = step(batch(), 0, WHOLE)["perceptual_loss"]
    ((reconstruction, real),) = seen
    assert torch.equal(real, batch().images / 127.5 - 1)
    assert logged.item() == pytest.approx(0.5 * theirs(reconstruction, real).mean().item(), rel=1e-5)


def test_the_first_layer_sees_zero_where_the_image_is_the_mean(network: LpipsNetwork) -> None:
    """The shift and scale of LPIPS v0.1 are those of images in [-1, 1]."""
    seen: list[Tensor] = []
    hook = network.layers[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    means = torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1).expand(1, 3, 32, 32)
    network(means)
    network(torch.full((1, 1, 32, 32), 0.5))
    hook.remove()
    assert seen[0].abs().max() == 0
    torch.testing.assert_close(seen[1][0, :, 0, 0], torch.tensor([0.53 / 0.458, 0.588 / 0.448, 0.688 / 0.450]))


def test_the_real_image_is_evaluated_once_and_without_a_graph(network: LpipsNetwork) -> None:
    """One pass each: the real one first, recording nothing."""
    passes: list[bool] = []

    def features(images: Tensor) -> list[Tensor]:
        passes.append(torch.is_grad_enabled())
        return network(images)

    ours, real = pair()
    lpips(features, tuple(network.linear), ours.requires_grad_(), real.requires_grad_()).backward()
    assert passes == [False, True] and real.grad is None and ours.grad is not None


def test_it_is_frozen_and_stays_in_eval_mode(network: LpipsNetwork) -> None:
    """Whatever is asked of it."""
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not network.train().training and not any(part.training for part in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_precision(vgg_file: Path, distance: Any) -> None:
    """float32 whatever surrounds it, unless bfloat16 is asked for: then close, with a gradient, and a float32 value."""
    ours, real = pair()
    value = distance(ours, real)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(distance(ours, real), value)
    half = LpipsNetwork(vgg_file, bf16=True)
    assert half(real)[0].dtype == torch.bfloat16
    close = lpips(half, tuple(half.linear), ours.requires_grad_(), real)
    close.backward()
    assert close.dtype == torch.float32 and close.item() != value.item()
    torch.testing.assert_close(close, value, rtol=0.03, atol=0)
    assert ours.grad is not None and ours.grad.any()


def test_it_compiles_whole(distance: Any, unchecked: None) -> None:
    """One graph without a break, with value and gradient of the same distance uncompiled."""
    torch.compiler.reset()
    compiled = torch.compile(distance, fullgraph=True, backend="eager")
    (ours, real), found = pair(), []
    for each in (distance, compiled):
        images = ours.clone().requires_grad_()
        value = each(images, real)
        value.backward()
        found.append((value.detach(), images.grad))
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])


def test_the_bundled_layers_are_the_references() -> None:
    """The file whose MD5 the reference checks after its download; no weight is negative, so the distance is none."""
    import hashlib

    assert hashlib.md5(bundled_linear().read_bytes()).hexdigest() == "d507d7349b931f0638a25a48a722f98a"
    assert all((weights >= 0).all() for weights in read_weights(bundled_linear(), "layers").values())


def test_files_are_whole_or_refused(vgg_file: Path, tmp_path: Path) -> None:
    """A missing layer, a file of something else, no file, a pickle of more than tensors."""
    state = torch.load(vgg_file, weights_only=True, mmap=True)
    torch.save({**state, "features.0.weight": torch.zeros(1, 1, 3, 3)}, tmp_path / "thin.pth")
    torch.save({key: value for key, value in state.items() if key != "features.28.bias"}, tmp_path / "short.pth")
    torch.save({"state_dict": {"lin0.model.1.weight": torch.ones(1, 64, 1, 1)}}, tmp_path / "one.pth")
    torch.save({"a": Path("b")}, tmp_path / "more.pth")
    for given, facts in (
        ({"weights": tmp_path / "thin.pth"}, ["thin.pth", "0.weight", "(1, 1, 3, 3)", "(64, 3, 3, 3)"]),
        ({"weights": tmp_path / "short.pth"}, ["short.pth", "missing 28.bias"]),
        ({"weights": tmp_path / "nothing.pth"}, ["LPIPS's VGG16", tmp_path / "nothing.pth", "put it there"]),
        ({"weights": tmp_path / "more.pth"}, [tmp_path / "more.pth", "could run anything", ".safetensors"]),
        ({"weights": vgg_file, "linear": tmp_path / "one.pth"}, ["one.pth", "missing lin1.model.1.weight"]),
    ):
        with refused(UserError, *facts) as caught:
            LpipsNetwork(**given)
        assert "\n" not in str(caught.value)


def test_without_a_connection(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What to fetch and where to give it."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with refused(UserError, "timm/vgg16.tv_in1k", "model.safetensors", "perceptual.vgg FILE"):
        LpipsNetwork()
    with refused(UserError, f"timm/{ATTO}", "model.safetensors", "perceptual.convnext FILE"):
        ConvNextLogits(name=ATTO)


def test_logits_of_a_convnext(tmp_path: Path) -> None:
    """ImageNet's mean and deviation from [-1, 1], 224 pixels; squared difference of the logits, real image first."""
    model = timm.create_model(ATTO, pretrained=False).eval()
    save_file(model.state_dict(), tmp_path / "convnext.safetensors")
    network = ConvNextLogits(tmp_path / "convnext.safetensors", name=ATTO)
    ours, real = pair()
    mean, std = (torch.tensor(model.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))

    def logits(images: Tensor) -> Tensor:
        resize = torchvision.transforms.Resize((224, 224), antialias=True)
        return model((resize((images + 1) / 2) - mean) / std)

    expected = (logits(ours) - logits(real)).square().mean()
    found = output_distance(network, ours.requires_grad_(), real.requires_grad_())
    torch.testing.assert_close(found, expected)
    found.backward()
    assert ours.grad is not None and real.grad is None and not network.train().training
    state = model.state_dict()
    state.pop("stem.0.bias")
    save_file(state, tmp_path / "short.safetensors")
    with refused(UserError, tmp_path / "short.safetensors", "missing stem.0.bias"):
        ConvNextLogits(tmp_path / "short.safetensors", name=ATTO)


def test_the_weighted_mean() -> None:
    """(a d1 + b d2) / (a + b), as the reference's lpips-convnext_s-a-b."""
    parts = ((1.0, lambda x, y: (x - y).mean()), (0.1, lambda x, y: (x * y).mean()))
    x, y = torch.full((1, 1, 1, 1), 3.0), torch.full((1, 1, 1, 1), 2.0)
    torch.testing.assert_close(weighted_mean(parts, x, y), torch.tensor((1.0 * 1.0 + 0.1 * 6.0) / 1.1))
