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
    outputs = {name: re.fullmatch(r"(.+)\.output(\d+)", name) for name in vectors}
    cases = [(match[1], int(match[2]), vectors[name]) for name, match in outputs.items() if match]
    assert cases
    for case, size, expected in cases:
        image = Image.fromarray(vectors[f"{case}.input"].numpy())
        crop = centre_crop(image, size)
        assert crop.shape == (size, size, 3)
        assert np.array_equal(crop, expected.numpy()), (case, size)
