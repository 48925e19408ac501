from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from errors import refused
from pydantic import TypeAdapter
from torch import Tensor

from repae.config import UserError
from repae.flow import (
    AnySampler,
    CosinePath,
    Euler,
    EulerMaruyama,
    Guidance,
    Heun,
    LinearPath,
    Path,
    Sampler,
    euler,
    euler_maruyama,
    guide,
    heun,
)

LAST_STEPS = ["mean", "tweedie", "euler"]
SAMPLERS = [Euler(steps=6), Heun(steps=6), *(EulerMaruyama(steps=6, last=last) for last in LAST_STEPS)]


def unit_noise(index: int, like: Tensor) -> Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(index), dtype=like.dtype)


def order(errors: dict[int, float]) -> float:
    """Least-squares slope of -log(error) against log(steps)."""
    steps = torch.tensor([math.log(n) for n in errors])
    logs = torch.tensor([-math.log(e) for e in errors.values()])
    return (((steps - steps.mean()) * (logs - logs.mean())).sum() / ((steps - steps.mean()) ** 2).sum()).item()


@pytest.mark.parametrize(("solve", "expected"), [(euler, 1), (heun, 2)])
def test_order_of_convergence(path: Path, gaussian: type, solve: Callable[..., Tensor], expected: int) -> None:
    """Protects: Euler is first and Heun second order on N(1.5, .7^2), whose ODE ends exactly at 1.5 + .7 x_1."""
    law = gaussian(1.5, 0.7, path)
    x = torch.linspace(-2.5, 2.5, 11, dtype=torch.float64)[:, None]
    errors = {n: (solve(law.field, x, n) - (1.5 + 0.7 * x)).abs().max().item() for n in (40, 80, 160, 320)}
    assert order(errors) == pytest.approx(expected, abs=0.1), errors


def mixture_velocity(x: Tensor, t: float, start: float) -> Tensor:
    """Exact linear-path velocity of the mixture .5 N(-1, .5^2) + .5 N(1, .5^2): not affine in x."""
    means = torch.tensor([-1.0, 1.0], dtype=x.dtype)
    variance = (1 - t) ** 2 * 0.25 + t**2
    centred = x[..., None] - (1 - t) * means
    weights = torch.softmax(-(centred**2) / (2 * variance), dim=-1)
    return (weights * ((t - 0.25 * (1 - t)) / variance * centred - means)).sum(-1)


@pytest.mark.parametrize(("solve", "expected"), [(euler, 1), (heun, 2)])
def test_order_on_a_nonlinear_field(solve: Callable[..., Tensor], expected: int) -> None:
    """Protects: the orders hold where the field is not affine; truth by the monotone map between the two laws."""
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    errors = {n: (solve(mixture_velocity, x, n) - mixture_quantile(x)).abs().max().item() for n in (80, 160, 320, 640)}
    assert order(errors) == pytest.approx(expected, abs=0.1), errors


def mixture_quantile(x: Tensor) -> Tensor:
    """Where the flow carries x_1 = x: the mixture's quantile at Phi(x), since a 1-D flow keeps the order."""
    low, high = torch.full_like(x, -6), torch.full_like(x, 6)
    for _ in range(80):
        middle = (low + high) / 2
        mass = (torch.special.ndtr((middle + 1) / 0.5) + torch.special.ndtr((middle - 1) / 0.5)) / 2
        below = mass < torch.special.ndtr(x)
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_evaluation_counts(sampler: Sampler, scale: float) -> None:
    """Protects: N for Euler and Euler-Maruyama, 2N - 1 for Heun; guidance doubles the batch, not the count."""
    sizes = []

    def network(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        sizes.append((len(x), len(t), len(y)))
        return -x

    x = torch.randn(3, 2)
    field = guide(network, torch.tensor([0, 1, 2]), 3, Guidance(scale=scale))
    sampler.run(field, x, unit_noise, LinearPath())
    expected = 11 if isinstance(sampler, Heun) else 6
    assert sampler.evaluations == expected
    assert sizes == [(6, 6, 6) if scale > 1 else (3, 3, 3)] * expected


def test_grids(path: Path) -> None:
    """Protects: when the field is evaluated, and where Heun decides on guidance."""
    calls: list[tuple[float, float]] = []

    def field(x: Tensor, t: float, start: float) -> Tensor:
        calls.append((round(t, 12), round(start, 12)))
        return -x

    def times_of(run: Callable[[], Tensor]) -> list[tuple[float, float]]:
        calls.clear()
        run()
        return calls.copy()

    x = torch.ones(1, 1)
    assert times_of(lambda: euler(field, x, 4)) == [(1, 1), (0.75, 0.75), (0.5, 0.5), (0.25, 0.25)]
    corrected = [(1, 1), (0.5, 1), (0.5, 0.5)]
    assert times_of(lambda: heun(field, x, 2)) == corrected
    assert times_of(lambda: heun(field, x, 2, guide_by_end=True)) == [(1, 1), (0.5, 0.5), (0.5, 0.5)]
    noisy = times_of(lambda: euler_maruyama(field, x, 4, path, unit_noise))
    assert noisy == [(1, 1), (0.68, 0.68), (0.36, 0.36), (0.04, 0.04)]


def test_heun_guides_its_corrector_by_the_switch() -> None:
    """Protects: with guidance on [0, .5] and two steps, the corrector at .5 is guided only by the explicit switch."""
    sizes: list[int] = []

    def network(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        sizes.append(len(x))
        return -x

    field = guide(network, torch.tensor([0]), 3, Guidance(scale=2, high=0.5))
    for guide_by_end, expected in ((False, [1, 1, 2]), (True, [1, 2, 2])):
        sizes.clear()
        Heun(steps=2, guide_by_end=guide_by_end).run(field, torch.ones(1, 1), unit_noise, LinearPath())
        assert sizes == expected


def affine(mean: float, std: float, path: Path, t: float) -> tuple[float, float, float, float, float, float]:
    """alpha and sigma at t, then a, b, c, d of the velocity a + b x and the score c + d x of N(mean, std^2)."""
    turn = math.pi / 2
    if isinstance(path, LinearPath):
        alpha, sigma, d_alpha, d_sigma = 1 - t, t, -1.0, 1.0
    else:
        alpha, sigma = math.cos(turn * t), math.sin(turn * t)
        d_alpha, d_sigma = -turn * sigma, turn * alpha
    variance = alpha**2 * std**2 + sigma**2
    slope = (alpha * d_alpha * std**2 + sigma * d_sigma) / variance
    return alpha, sigma, d_alpha * mean - slope * alpha * mean, slope, alpha * mean / variance, -1 / variance


def recursion(mean: float, std: float, path: Path, steps: int, last: str) -> tuple[float, float]:
    """Mean and standard deviation of discrete Euler-Maruyama on N(mean, std^2), in plain scalars.

    A step with the drift a + b x maps (m, s^2) to (m + dt (a + b m), (1 + b dt)^2 s^2 + 2 t |dt|).
    """
    m, variance = 0.0, 1.0
    for t, t_next in pairwise(1 + (0.04 - 1) * i / (steps - 1) for i in range(steps)):
        _, _, a, b, c, d = affine(mean, std, path, t)
        dt = t_next - t
        m += dt * (a - t * c + (b - t * d) * m)
        variance = (1 + dt * (b - t * d)) ** 2 * variance + 2 * t * -dt
    alpha, sigma, a, b, c, d = affine(mean, std, path, 0.04)
    if last == "tweedie":
        gain, shift = (1 + sigma**2 * d) / alpha, sigma**2 * c / alpha
    elif last == "mean":
        gain, shift = 1 - 0.04 * (b - 0.04 * d), -0.04 * (a - 0.04 * c)
    else:
        gain, shift = 1 - 0.04 * b, -0.04 * a
    return shift + gain * m, abs(gain) * math.sqrt(variance)


def exact_moments(field: Callable[..., Tensor], path: Path, steps: int, last: str) -> tuple[float, float]:
    """Mean and standard deviation of the sampler itself, without chance.

    On Gaussian data its output is affine in the initial noise and each random step's, so one run on unit vectors
    (row 0: all zero; row 1: initial noise; row 2 + i: random step i) gives every gain.
    """
    x = torch.zeros(steps + 1, 1, dtype=torch.float64)
    x[1] = 1

    def impulse(index: int, like: Tensor) -> Tensor:
        eps = torch.zeros_like(like)
        eps[2 + index] = 1
        return eps

    end = euler_maruyama(field, x, steps, path, impulse, last=last)
    return end[0].item(), (end[1:] - end[0]).square().sum().sqrt().item()


@pytest.mark.parametrize("last", LAST_STEPS)
@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.1), (1.5, 0.7)])
@pytest.mark.parametrize("steps", [2, 25, 250])
def test_euler_maruyama_has_the_moments_of_its_recursion(
    path: Path, gaussian: type, mean: float, std: float, steps: int, last: str
) -> None:
    """Protects: drift, diffusion and each last-step rule, to 1e-10, against a scalar recursion written separately."""
    measured = exact_moments(gaussian(mean, std, path).field, path, steps, last)
    assert measured == pytest.approx(recursion(mean, std, path, steps, last), rel=1e-10, abs=1e-10)


def test_euler_maruyama_reaches_the_data_law(gaussian: type) -> None:
    """Protects: 250 steps on the linear path give N(1.5, .7^2) within 1%; a second score term gave a std of 2.4."""
    mean, std = exact_moments(gaussian(1.5, 0.7, LinearPath()).field, LinearPath(), 250, "mean")
    assert mean == pytest.approx(1.5, rel=0.01)
    assert std == pytest.approx(0.7, rel=0.01)


def test_euler_maruyama_on_drawn_noise(gaussian: type) -> None:
    """Protects: the same with 100,000 drawn samples, so the noise really enters, once per step and per sample."""
    x = torch.randn(100_000, 1, generator=torch.Generator().manual_seed(10**6))
    path = LinearPath()
    end = EulerMaruyama(steps=250).run(gaussian(1.5, 0.7, path).field, x, unit_noise, path).double()
    assert end.mean().item() == pytest.approx(1.5, rel=0.01)
    assert end.std().item() == pytest.approx(0.7, rel=0.01)


def test_last_step_rules_on_narrow_data(gaussian: type) -> None:
    """Protects: the published figures for N(0, .1^2): std .077 by "mean", .093 by the posterior mean; truth .100."""
    path = LinearPath()
    stds = {last: exact_moments(gaussian(0, 0.1, path).field, path, 250, last)[1] for last in LAST_STEPS}
    assert stds["mean"] == pytest.approx(0.077, abs=0.0006)
    assert stds["tweedie"] == pytest.approx(0.093, abs=0.0006)
    assert stds["euler"] == pytest.approx(stds["tweedie"], rel=1e-12)


def test_last_step_rules_differ_on_the_cosine_path(gaussian: type) -> None:
    """Protects: "tweedie" is the posterior mean, not a step of the ODE under another name."""
    path = CosinePath()
    stds = {last: exact_moments(gaussian(0, 0.1, path).field, path, 250, last)[1] for last in LAST_STEPS}
    assert len({round(std, 6) for std in stds.values()}) == 3


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("state", ["float32", "float64"])
def test_dtypes(sampler: Sampler, dtype: torch.dtype, state: str) -> None:
    """Protects: the field sees the dtype of the initial noise and `run` returns it, whatever the state."""
    seen = set()

    def field(x: Tensor, t: float, start: float) -> Tensor:
        seen.add(x.dtype)
        return -x

    def noise(index: int, like: Tensor) -> Tensor:
        assert like.dtype == getattr(torch, state)
        return torch.ones(like.shape)

    x = torch.ones(2, 3, dtype=dtype)
    end = sampler.replace(state=state).run(field, x, noise, LinearPath())
    assert seen == {dtype}
    assert end.dtype == dtype
    assert torch.equal(x, torch.ones(2, 3, dtype=dtype)), "the caller's noise was overwritten"


def test_the_state_is_wider_than_the_network(gaussian: type) -> None:
    """Protects: 500 float32 steps add up in float64; a float32 state loses at least three times as much."""
    law = gaussian(1.5, 0.7, LinearPath())
    x = torch.randn(256, 1, generator=torch.Generator().manual_seed(0))
    exact = euler(law.field, x.double(), 500)
    wide = (euler(law.field, x, 500) - exact).abs().mean().item()
    narrow = (euler(law.field, x, 500, state=torch.float32).double() - exact).abs().mean().item()
    assert wide < 1e-7
    assert narrow > 3 * wide


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_no_step_reads_the_device(sampler: Sampler, path: Path) -> None:
    """Protects: guided sampling runs on meta tensors, where any read of a value raises, so no step can synchronise."""
    x = torch.empty(2, 3, device="meta")
    labels = torch.empty(2, dtype=torch.int64, device="meta")
    field = guide(lambda x, t, y: x * (t * y)[:, None], labels, 10, Guidance(scale=2, low=0.2, high=0.7))
    assert sampler.run(field, x, lambda index, like: torch.empty_like(like), path).shape == (2, 3)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_gradients_are_not_recorded(sampler: Sampler) -> None:
    """Protects: memory does not grow with the steps."""
    weight = torch.ones(1, requires_grad=True)
    end = sampler.run(lambda x, t, _: x * weight, torch.ones(1, 1), unit_noise, LinearPath())
    assert not end.requires_grad


def test_each_image_depends_on_its_own_noise_only(path: Path, gaussian: type) -> None:
    """Protects: an image is the same in any batch, given its own noise (per-image seeds)."""
    law = gaussian(1.5, 0.7, path)
    x, eps = torch.randn(4, 3, dtype=torch.float64), torch.randn(9, 4, 3, dtype=torch.float64)
    for sampler in (Euler(steps=10), Heun(steps=10), EulerMaruyama(steps=10)):
        together = sampler.run(law.field, x, lambda i, like: eps[i], path)
        alone = sampler.run(law.field, x[2:3], lambda i, like: eps[i, 2:3], path)
        torch.testing.assert_close(together[2:3], alone, rtol=1e-14, atol=1e-14)


def test_too_few_steps_are_refused() -> None:
    """Protects: zero steps would return noise as an image."""
    x = torch.zeros(1, 1)
    with refused(UserError, "steps", 0, "at least 1"):
        euler(mixture_velocity, x, 0)
    with refused(UserError, "steps", -1, "at least 1"):
        heun(mixture_velocity, x, -1)
    with refused(UserError, "steps", 1, "at least 2"):
        euler_maruyama(mixture_velocity, x, 1, LinearPath(), unit_noise)
    for sampler, steps in ((Euler, 0), (Heun, 0), (EulerMaruyama, 1)):
        with refused(UserError, "steps", steps):
            sampler(steps=steps)


def test_an_unknown_last_step_is_refused() -> None:
    """Protects: the error lists the rules and comes before the first evaluation (TypeError: the shape checker's)."""
    calls: list[float] = []
    with refused((UserError, TypeError), "last", "mean", "tweedie", "euler"):
        euler_maruyama(lambda x, t, _: calls.append(t), torch.zeros(1, 1), 5, LinearPath(), unit_noise, last="none")
    assert not calls
    with refused(UserError, "last is 'tweedy'", "mean", "tweedie", "euler"):
        EulerMaruyama(last="tweedy")


def test_recipes_can_name_a_sampler() -> None:
    """Protects: `kind` tells the samplers apart, with the published step counts as defaults."""
    adapter = TypeAdapter(AnySampler)
    assert adapter.validate_python({"kind": "euler"}) == Euler(steps=50)
    assert adapter.validate_python({"kind": "heun", "steps": 20}) == Heun(steps=20)
    named = adapter.validate_python({"kind": "euler-maruyama"})
    assert named == EulerMaruyama(steps=250, last="mean")
