from __future__ import annotations

import pytest
import torch
from pydantic import TypeAdapter

from repae.config import UserError
from repae.flow import AnyTime, LinearPath, LogNormalTime, Path, Time, UniformTime

EVERY = [UniformTime(), LogNormalTime(), LogNormalTime(mean=-1.2, std=1.2), LogNormalTime(mean=30, std=20)]


def draw(time: Time, n: int, path: Path, seed: int = 0) -> torch.Tensor:
    return time.sample(n, path, torch.Generator().manual_seed(seed), torch.device("cpu"))


@pytest.mark.parametrize("time", EVERY, ids=str)
def test_times_lie_in_the_half_open_interval(path: Path, time: Time) -> None:
    """Protects: t is float32, `[n]`, in [0, 1), even where the ratio overflows or t rounds to 1."""
    t = draw(time, 20_000, path)
    assert t.shape == (20_000,)
    assert t.dtype == torch.float32
    assert bool(((t >= 0) & (t < 1)).all())


@pytest.mark.parametrize("time", EVERY, ids=str)
def test_times_are_a_function_of_the_generator(path: Path, time: Time) -> None:
    """Protects: resuming with the same generator gives the same times, and another seed gives others."""
    assert torch.equal(draw(time, 64, path), draw(time, 64, path))
    if time != EVERY[-1]:
        assert not torch.equal(draw(time, 64, path), draw(time, 64, path, seed=1))


def test_uniform_moments(path: Path) -> None:
    """Protects: mean 1/2 and standard deviation 1/sqrt(12), within 5 standard errors."""
    t = draw(UniformTime(), 100_000, path).double()
    assert t.mean().item() == pytest.approx(0.5, abs=5 * 0.2887 / 316)
    assert t.std().item() == pytest.approx(12**-0.5, abs=0.003)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (-1.2, 1.2)])
def test_log_normal_ratio(path: Path, mean: float, std: float) -> None:
    """Protects: log(sigma / alpha) is N(mean, std^2) on both paths."""
    t = draw(LogNormalTime(mean=mean, std=std), 100_000, path).double()
    log_ratio = torch.log(path.sigma(t) / path.alpha(t))
    assert log_ratio.mean().item() == pytest.approx(mean, abs=0.02)
    assert log_ratio.std().item() == pytest.approx(std, rel=0.02)


def test_log_normal_moments_on_the_linear_path() -> None:
    """Protects: the published default has mean .500 and standard deviation .208."""
    t = draw(LogNormalTime(), 200_000, LinearPath()).double()
    assert t.mean().item() == pytest.approx(0.500, abs=0.003)
    assert t.std().item() == pytest.approx(0.208, abs=0.002)


def test_recipes_can_name_a_time() -> None:
    """Protects: `kind` tells the distributions apart and impossible spreads are refused."""
    adapter = TypeAdapter(AnyTime)
    assert adapter.validate_python({"kind": "uniform"}) == UniformTime()
    assert adapter.validate_python({"kind": "log-normal", "std": 2}) == LogNormalTime(std=2)
    for std in (0, -1, float("nan"), float("inf")):
        with pytest.raises(UserError):
            LogNormalTime(std=std)
