"""The ADM centre crop against the reference's pixels, for whatever sizes the golden directory holds."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
from PIL import Image
from torch import Tensor

from repae.data import centre_crop


def test_centre_crop_is_bit_equal(load: Callable[[str], dict[str, Tensor]]) -> None:
    """Protects comparability: every training image of the field has gone through this crop."""
    vectors = load("centre_crop")
    outputs = [(re.fullmatch(r"(.+)\.output\d*", name), tensor.numpy()) for name, tensor in vectors.items()]
    cases = [(match[1], expected) for match, expected in outputs if match]
    assert cases
    for case, expected in cases:
        crop = centre_crop(Image.fromarray(vectors[f"{case}.input"].numpy()), len(expected))
        assert np.array_equal(crop, expected), (case, expected.shape)
