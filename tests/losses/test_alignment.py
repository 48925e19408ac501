"""The alignment loss: its scale, its symmetry, its refusals."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from errors import refused
from hypothesis import given, settings
from hypothesis import strategies as st

from repae.config import UserError
from repae.losses.alignment import alignment_loss


def tokens(batch: int, length: int, width: int, seed: int) -> torch.Tensor:
    return torch.randn(batch, length, width, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5), st.integers(1, 6), st.integers(1, 3))
def test_is_the_mean_of_cosines_over_tokens_samples_and_teachers(batch: int, length: int, teachers: int) -> None:
    """A sum over the batch or over teachers would multiply the published coefficients by their number."""
    projected = [tokens(batch, length, 7 + k, k) for k in range(teachers)]
    targets = [tokens(batch, length, 7 + k, 50 + k) for k in range(teachers)]
    by_hand = [
        -float(F.cosine_similarity(p[b, t], z[b, t], dim=0))
        for p, z in zip(projected, targets, strict=True)
        for b in range(batch)
        for t in range(length)
    ]
    assert float(alignment_loss(projected, targets)) == pytest.approx(sum(by_hand) / len(by_hand), abs=1e-6)


def test_does_not_depend_on_the_batch_size_or_on_scale() -> None:
    """Repeating every sample, or scaling either side, changes nothing; the bounds are reached."""
    p, z = tokens(3, 4, 8, 0), tokens(3, 4, 8, 1)
    once = alignment_loss([p], [z])
    torch.testing.assert_close(alignment_loss([p.repeat(5, 1, 1)], [z.repeat(5, 1, 1)]), once)
    torch.testing.assert_close(alignment_loss([p * 17], [z * 0.01]), once)
    assert float(alignment_loss([z * 3], [z])) == pytest.approx(-1)
    assert float(alignment_loss([-z], [z])) == pytest.approx(1)


def test_is_float32_under_autocast_and_at_fp16_extremes() -> None:
    """Squares of large half-precision tokens overflow: the cosine is taken in float32 whatever comes in."""
    p = (tokens(2, 3, 8, 0) * 20_000).half()
    z = (tokens(2, 3, 8, 1) * 20_000).half()
    with torch.autocast("cpu", torch.bfloat16):
        loss = alignment_loss([p], [z])
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, alignment_loss([p.double()], [z.double()]).float())


def test_teachers_receive_no_gradient() -> None:
    """A teacher that can move towards the student would make the loss trivial."""
    p, z = tokens(2, 3, 4, 0).requires_grad_(), tokens(2, 3, 4, 1).requires_grad_()
    alignment_loss([p], [z]).backward()
    assert p.grad is not None and z.grad is None


@pytest.mark.parametrize(
    ("shape", "target"),
    [((2, 4, 8), (2, 5, 8)), ((2, 4, 8), (2, 1, 8)), ((2, 4, 8), (2, 4, 1)), ((2, 4, 8), (3, 4, 8)), ((2, 8), (2, 8))],
)
def test_refuses_shapes_that_would_broadcast_or_differ(shape: tuple[int, ...], target: tuple[int, ...]) -> None:
    """A pooled teacher vector broadcasts silently against all tokens: it must be an error that shows both shapes."""
    with refused(UserError, "teacher 0", target, shape, "the teacher's input size", "patch size"):
        alignment_loss([torch.randn(shape)], [torch.randn(target)])


def test_refuses_surplus_teachers_and_none() -> None:
    """A surplus teacher must not be dropped, as a zip would."""
    p, z = tokens(2, 3, 4, 0), tokens(2, 3, 4, 1)
    with refused(UserError, "1 projections", "2 sets", "one projector"):
        alignment_loss([p], [z, z])
    with refused(UserError, "0 projections", "0 sets", "at least one teacher"):
        alignment_loss([], [])
