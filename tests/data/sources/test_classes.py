"""The rule for labels: what was written down as a class becomes a label 0 to n-1, or is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from errors import refused
from hypothesis import given
from hypothesis import strategies as st

from repae.config import UserError
from repae.data.sources.classes import MISSING, Classes, classify, read_class_names


def classified(values: list[Any]) -> Classes:
    return classify(values, lambda place: f"{place}.png", "the table")


@pytest.mark.parametrize(
    "values, names, labels",
    [
        ([0, 1, 0], ("0", "1"), [0, 1, 0]),
        (["1", "0", 1, 1.0, "1.0"], ("0", "1"), [1, 0, 1, 1, 1]),
        (["dog", "cat", "dog"], ("cat", "dog"), [1, 0, 1]),
        (["b", " a "], ("a", "b"), [1, 0]),
        (["cat", 3, "3", 2.0], ("2", "3", "cat"), [2, 1, 1, 0]),
        (["01", "1"], ("01", "1"), [0, 1]),
        ([b"4", b"0", b"1", b"2", b"3"], ("0", "1", "2", "3", "4"), [4, 0, 1, 2, 3]),
        ([10**20, 0], ("0", str(10**20)), [1, 0]),
        (["null", "x"], ("null", "x"), [0, 1]),
    ],
)
def test_numbers_count_by_size_and_names_by_the_alphabet(
    values: list[Any], names: tuple[str], labels: list[int]
) -> None:
    """Protects labels: they do not depend on the order or the spelling in which classes were written."""
    found = classified(values)
    assert (found.names, found.labels.tolist()) == (names, labels)


@given(st.lists(st.one_of(st.integers(0, 30), st.none()), min_size=1).filter(lambda values: set(values) != {None}))
def test_any_numbers_become_labels_in_their_order(values: list[int | None]) -> None:
    """Protects the promise to the network: labels are 0 to n-1, each used, and lead back to what was written."""
    found = classified(values)
    assert sorted(set(found.labels.tolist()) - {MISSING}) == list(range(len(found.names)))
    assert [None if label == MISSING else int(found.names[label]) for label in found.labels] == values
    told = [note for note in found.notes if "the numbers" in note]
    assert bool(told) == ([int(name) for name in found.names] != list(range(len(found.names))))


def test_gaps_are_closed_and_told() -> None:
    """Protects a person who expects label 7: the numbers stay as names, and a note says what they became."""
    found = classified([12, 3, 7])
    assert found.names == ("3", "7", "12") and found.labels.tolist() == [2, 0, 1]
    assert found.notes == (
        "the classes in the table are the numbers 3, 7, 12; as labels they count 0 to 2, in this order",
    )


@pytest.mark.parametrize("nothing", [None, "", "  ", float("nan")])
def test_an_image_without_a_class_is_left_out_and_told(nothing: object) -> None:
    """Protects training from a class of the unlabelled."""
    found = classified([0, nothing, 1, nothing])
    assert found.labels.tolist() == [0, MISSING, 1, MISSING]
    assert found.notes == ("2 images without a class in the table left out",)
    with refused(UserError, "the table", "no image a class", "--data.labels none"):
        classified([nothing])


@pytest.mark.parametrize(
    "values, facts",
    [
        ([0, -1], ["'1.png'", -1, "from 0 on", "leave it empty"]),
        (["0", "0.5"], ["'1.png'", 0.5, "from 0 on", "leave it empty"]),
        ([1, 2.25], ["'1.png'", 2.25, "from 0 on", "leave it empty"]),
        ([float("inf")], ["'0.png'", "inf", "from 0 on", "leave it empty"]),
        ([True], ["'0.png'", True, "one for each image"]),
        ([[0, 1]], ["'0.png'", "[0, 1]", "one for each image"]),
        ([{"a": 1}], ["'0.png'", "{'a': 1}", "one for each image"]),
    ],
)
def test_what_is_no_class_is_refused_by_name(values: list[Any], facts: list[object]) -> None:
    """Protects the user from a label made up: the image and the value are named."""
    with refused(UserError, "the table", "whole number", *facts):
        classified(values)


def test_names_from_a_file(tmp_path: Path) -> None:
    """Protects sets with numbers for classes: line n names class n, and every class must have a line."""
    file = tmp_path / "names.txt"
    file.write_text("cat\ndog\nÜberraschung\n\n", encoding="utf-8")
    found = read_class_names(str(file), classified([2, None, 0]), "the table")
    assert found.names == ("cat", "dog", "Überraschung") and found.labels.tolist() == [2, MISSING, 0]
    assert found.notes == ("1 image without a class in the table left out",)
    for values, wrong in (([0, 3], "'3'"), (["cat"], "'cat'")):
        with refused(UserError, file, "0 to 2", "the table", wrong, "one line for each"):
            read_class_names(str(file), classified(values), "the table")
    with refused(UserError, tmp_path / "no.txt", "No such file", "give a text file"):
        read_class_names(str(tmp_path / "no.txt"), classified([0]), "the table")
