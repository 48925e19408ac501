"""Nested state to plain data and back."""

import json
import math

import torch
from errors import refused
from hypothesis import given
from hypothesis import strategies as st

from repae.runtime.tree import flatten, restore

DTYPES = [
    torch.float32,
    torch.float64,
    torch.bfloat16,
    torch.float16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
]
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
TENSORS = st.builds(
    lambda dtype, shape: (torch.randn(shape) * 3).to(dtype),
    st.sampled_from(DTYPES),
    st.lists(st.integers(0, 3), max_size=3),
)
KEYS = st.text(max_size=4) | st.integers() | st.sampled_from(["$tensor", "$dict", "a.b", "a"])
TREES = st.recursive(
    SCALARS | TENSORS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple) | st.dictionaries(KEYS, inner, max_size=3)
    ),
    max_leaves=12,
)


def same(left, right):
    """Equal in type, structure and every bit that matters."""
    if type(left) is not type(right):
        return False
    if isinstance(left, torch.Tensor):
        return left.dtype == right.dtype and left.shape == right.shape and torch.equal(left, right)
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float):
        return (math.isnan(left) and math.isnan(right)) or (left == right and str(left) == str(right))
    return left == right


@given(tree=TREES)
def test_every_state_comes_back_as_it_was(tree):
    """Through real JSON: structure, order, whole-number keys, tuples, infinities, dtypes, empty and 0-dim tensors."""
    skeleton, tensors = flatten(tree)
    assert same(restore(json.loads(json.dumps(skeleton, allow_nan=False)), tensors), tree)


def test_names_are_paths():
    """The state of a module keeps its own names, so that anybody can read the file."""
    module = torch.nn.Sequential(torch.nn.Linear(2, 2))
    assert list(flatten(module.state_dict())[1]) == ["0.weight", "0.bias"]
    assert list(flatten({"module": {"w": torch.zeros(1)}, "state": {0: [torch.zeros(1)]}})[1]) == [
        "module.w",
        "state.0.0",
    ]


def test_tensors_that_share_memory_are_separated():
    """Files of tensors cannot hold tied weights or views otherwise."""
    weight = torch.arange(6.0)
    _, tensors = flatten({"a": weight, "b": weight, "c": weight[2:4], "d": weight.view(2, 3).t()})
    assert len({tensor.untyped_storage().data_ptr() for tensor in tensors.values()}) == 4
    assert all(tensor.is_contiguous() for tensor in tensors.values())
    assert tensors["c"].tolist() == [2.0, 3.0] and tensors["d"].shape == (3, 2)


def test_other_objects_are_refused_by_path():
    """Nothing is pickled, so nothing else can be held."""
    with refused(AssertionError, "a.0", "tensors and plain values", "not set"):
        flatten({"a": [{1, 2}]})
