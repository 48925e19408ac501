"""ActNorm: initialisation from data, inverse, log-determinant, and no waiting for the device."""

import pytest
import torch
from errors import refused
from torch.utils._python_dispatch import TorchDispatchMode

from repae.config import UserError
from repae.models import ActNorm


class Reads(TorchDispatchMode):
    """Counts how often a value is read from the device."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


def images():
    return torch.randn(4, 3, 5, 5) * torch.tensor([0.1, 1.0, 30.0])[:, None, None] + 2


@pytest.mark.parametrize("shape", [(4, 3, 5, 5), (16, 3)])
def test_the_first_training_batch_is_normalised(shape):
    """Mean 0 and unbiased standard deviation 1 in every channel, for images and for vectors; the second is not."""
    norm = ActNorm(3).double().train()
    x = torch.randn(shape).double() * 3 + 7
    y = norm(x)
    values = y.transpose(0, 1).flatten(1)
    torch.testing.assert_close(values.mean(1), torch.zeros(3).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(values.std(1), torch.ones(3).double(), atol=1e-5, rtol=0)
    assert y.shape == x.shape and norm.initialized == 1
    loc = norm.loc.clone()
    norm(x * 5)
    assert torch.equal(norm.loc, loc)


def test_before_it_evaluation_is_the_identity():
    """And does not initialise."""
    norm, x = ActNorm(3).eval(), images()
    assert torch.equal(norm(x), x) and norm.initialized == 0


@pytest.mark.parametrize("shape", [(4, 3, 5, 5), (16, 3)])
def test_the_inverse(shape):
    """`reverse` undoes `forward`."""
    norm, x = ActNorm(3).train(), torch.randn(shape) * 2 - 1
    torch.testing.assert_close(norm.reverse(norm(x)), x)
    torch.testing.assert_close(norm(norm(x), reverse=True), x)


def test_the_inverse_before_data():
    """Refused in train mode, unless it may take its first values from what it is given."""
    with refused(RuntimeError, "no data", "no inverse", "allow_reverse_init"):
        ActNorm(3).train().reverse(images())
    norm = ActNorm(3, allow_reverse_init=True).train()
    norm.reverse(images())
    assert norm.initialized == 1


def test_the_log_determinant():
    """Of the Jacobian of one sample, the same for all."""
    norm, x = ActNorm(2, logdet=True).double().train(), torch.randn(3, 2, 2, 2).double()
    _, logdet = norm(x)
    jacobian = torch.autograd.functional.jacobian(lambda one: norm(one[None])[0].flatten(), x[0])
    expected = torch.linalg.slogdet(jacobian.reshape(8, 8)).logabsdet
    torch.testing.assert_close(logdet, expected.expand(3))


def test_nobody_waits_for_the_device():
    """The buffer is read until it was seen to be 1, and then never again; never in eval mode."""
    norm = ActNorm(3).train()
    norm(images())
    norm(images())
    for mode in (True, False):
        norm.train(mode)
        with Reads() as reads:
            norm(images())
        assert reads.count == 0


def test_loading_tells_whether_it_has_started():
    """A trained state is kept, and a fresh one starts again, whatever the module had seen before."""
    fresh, trained = ActNorm(3), ActNorm(3).train()
    trained(images())
    other = ActNorm(3).train()
    other.load_state_dict(trained.state_dict())
    other(images() * 9)
    assert torch.equal(other.scale, trained.scale)
    other.load_state_dict(fresh.state_dict())
    other(images() * 9)
    assert not torch.equal(other.scale, trained.scale) and other.initialized == 1


def test_channels_without_spread():
    """A constant channel gets a large but finite scale; a single value is refused in words."""
    norm = ActNorm(2).train()
    assert norm(torch.ones(2, 2, 3, 3)).isfinite().all() and norm.scale.isfinite().all()
    with refused(UserError, "one value per channel", "batch must be larger"):
        ActNorm(2).train()(torch.ones(1, 2))
    with refused(UserError, "affine must be true"):
        ActNorm(2, affine=False)
