"""What tests of networks share."""

import pytest


@pytest.fixture
def unchecked(pytestconfig: pytest.Config) -> None:
    """For what cannot be traced through the shape checker: left to the run without it."""
    if pytestconfig.getoption("jaxtyping_packages", None):
        pytest.skip("torch.compile does not trace the shape checker")
