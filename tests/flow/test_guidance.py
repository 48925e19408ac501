from __future__ import annotations

import pytest
import torch
from errors import refused
from torch import Tensor

from repae.config import UserError
from repae.flow import Autoguidance, Guidance, autoguide, guide


class Recorder:
    """A network with one embedding row per class and a null row, that notes what it is called with."""

    def __init__(self, classes: int) -> None:
        self.rows = torch.randn(classes + 1, 3, generator=torch.Generator().manual_seed(classes), dtype=torch.float64)
        self.calls: list[tuple[Tensor, Tensor, Tensor]] = []

    def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        self.calls.append((x, t, y))
        return (self.rows[y][:, :, None] * x.double() + t[:, None, None]).to(x.dtype)


def batch(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0), dtype=dtype)


@pytest.mark.parametrize("classes", [2, 10, 1000, 2000])
def test_guidance_works_with_any_number_of_classes(classes: int) -> None:
    """Protects: the null row is the one that is given, for class counts below and above 1000."""
    network, x = Recorder(classes), batch()
    labels = torch.tensor([0, classes - 1])
    guided = guide(network, labels, classes, Guidance(scale=2.5))(x, 0.5, 0.5)
    t = torch.full((2,), 0.5, dtype=torch.float64)
    conditional, null = network(x, t, labels), network(x, t, torch.full_like(labels, classes))
    torch.testing.assert_close(guided, null + 2.5 * (conditional - null))


def test_active_guidance_is_one_call_on_a_doubled_batch() -> None:
    """Protects: labels first, null second, the same x and t in both halves; all channels guided."""
    network, x, labels = Recorder(10), batch(), torch.tensor([3, 7])
    v = guide(network, labels, 10, Guidance(scale=4))(x, 0.25, 0.25)
    ((seen, t, y),) = network.calls
    assert torch.equal(seen, torch.cat([x, x]))
    assert t.tolist() == [0.25] * 4
    assert y.tolist() == [3, 7, 10, 10]
    unguided = guide(network, labels, 10, Guidance())(x, 0.25, 0.25)
    assert bool(((v - unguided).abs().amax(dim=(0, 2)) > 0).all())


@pytest.mark.parametrize(("t", "rows"), [(0.0, 2), (0.1999, 2), (0.2, 4), (0.5, 4), (0.7, 4), (0.7001, 2), (1.0, 2)])
def test_the_interval_is_closed(t: float, rows: int) -> None:
    """Protects: both ends are guided; outside there is one conditional pass, not a doubled one."""
    network, x, labels = Recorder(10), batch(), torch.tensor([3, 7])
    v = guide(network, labels, 10, Guidance(scale=1.8, low=0.2, high=0.7))(x, t, t)
    ((seen, _, _),) = network.calls
    assert len(seen) == rows
    assert v.shape == x.shape
    if rows == 2:
        assert torch.equal(v, Recorder(10)(x, torch.full((2,), t, dtype=torch.float64), labels))


def test_membership_is_decided_at_the_start_of_the_step() -> None:
    """Protects: a corrector at t outside the interval is guided if its step began inside, and the reverse."""
    network, x, labels = Recorder(10), batch(), torch.tensor([3, 7])
    field = guide(network, labels, 10, Guidance(scale=1.8, low=0.2, high=0.7))
    field(x, 0.1, 0.2)
    field(x, 0.7, 0.8)
    assert [(len(seen), t[0].item()) for seen, t, _ in network.calls] == [(4, 0.1), (2, 0.7)]


def test_scale_one_never_doubles_and_needs_no_null_row() -> None:
    """Protects: unguided sampling costs one pass and works for models without label dropout."""
    network, x, labels = Recorder(10), batch(), torch.tensor([3, 7])
    guide(network, labels, None, Guidance(scale=1))(x, 0.5, 0.5)
    assert [len(seen) for seen, _, _ in network.calls] == [2]


def test_guidance_without_a_null_row_is_refused() -> None:
    """Protects: the error comes before the first evaluation, in words, with the value and the remedy."""
    with refused(UserError, "guidance.scale", 1.5, "guidance.scale 1", "class_dropout_prob above 0"):
        guide(Recorder(10), torch.tensor([3]), None, Guidance(scale=1.5))


def test_network_sees_its_own_dtype() -> None:
    """Protects: the network gets x and t in the dtype of x; the two velocities are combined in float64."""
    network, labels = Recorder(10), torch.tensor([3, 7])
    v = guide(network, labels, 10, Guidance(scale=2))(batch(torch.float32), 0.5, 0.5)
    ((seen, t, _),) = network.calls
    assert seen.dtype == t.dtype == torch.float32
    assert v.dtype == torch.float64


@pytest.mark.parametrize(
    "fields",
    [{"scale": 0.5}, {"scale": float("nan")}, {"low": -0.1}, {"high": 1.1}, {"low": 0.8, "high": 0.2}],
    ids=str,
)
def test_impossible_settings_are_refused(fields: dict[str, float]) -> None:
    """Protects: a scale below 1 or an empty interval would be ignored in silence."""
    with pytest.raises(UserError):
        Guidance(**fields)


@pytest.mark.parametrize(("t", "guided"), [(0.1999, False), (0.2, True), (0.7, True), (0.7001, False)])
def test_autoguidance_leads_away_from_the_weaker_network(t: float, guided: bool) -> None:
    """Protects: v_weak + s (v - v_weak) with the labels in both, inside the interval; the strong one alone outside."""
    strong, weak, x, labels = Recorder(10), Recorder(7), batch(), torch.tensor([3, 6])
    v = autoguide(strong, weak, labels, Autoguidance(scale=1.8, low=0.2, high=0.7))(x, t, t)
    times = torch.full((2,), t, dtype=torch.float64)
    expected, below = strong(x, times, labels), weak(x, times, labels)
    torch.testing.assert_close(v, below + 1.8 * (expected - below) if guided else expected)
    assert [len(network.calls) for network in (strong, weak)] == [2, 2 if guided else 1]
    assert all(call[2].tolist() == [3, 6] for network in (strong, weak) for call in network.calls)


def test_a_network_guided_by_itself_is_itself() -> None:
    """Protects: at any scale there is nothing to lead away from; and scale 1 leaves the weaker one alone."""
    x, labels = batch(), torch.tensor([3, 7])
    alone = Recorder(10)(x, torch.full((2,), 0.5, dtype=torch.float64), labels)
    torch.testing.assert_close(autoguide(Recorder(10), Recorder(10), labels, Autoguidance(scale=3))(x, 0.5, 0.5), alone)
    weak = Recorder(7)
    assert torch.equal(autoguide(Recorder(10), weak, labels, Autoguidance())(x, 0.5, 0.5), alone) and not weak.calls


def test_every_image_may_have_a_time_of_its_own() -> None:
    """Protects: the network gets the images' own times, twice where the batch is doubled."""
    network, x, t = Recorder(10), batch(), torch.tensor([0.25, 0.75], dtype=torch.float64)
    guide(network, torch.tensor([3, 7]), 10, Guidance(scale=2))(x, t, 0.5)
    assert network.calls[0][1].tolist() == [0.25, 0.75, 0.25, 0.75]


@pytest.mark.parametrize(
    ("guidance", "breaks"),
    [
        (Guidance(scale=2, low=0.2, high=0.7), (0.7, 0.2)),
        (Guidance(scale=2), ()),
        (Guidance(scale=1, low=0.2), ()),
        (Autoguidance(scale=2, high=0.7), (0.7,)),
    ],
    ids=str,
)
def test_where_the_guided_velocity_jumps(guidance: Guidance, breaks: tuple[float, ...]) -> None:
    """Protects: an adaptive solver is told the ends of the interval, the later first, and no others."""
    assert guidance.breaks == breaks


def test_configurations_of_before_are_read() -> None:
    """Protects: a saved recipe whose guidance names no kind is one with classifier-free guidance."""
    assert Guidance.model_validate({"scale": 2.0, "low": 0.0, "high": 0.5}) == Guidance(scale=2, high=0.5)
