"""The helper that other tests hold errors against: it sees what is told, and what is not."""

from __future__ import annotations

import pytest
from errors import assert_tells, refused, untold


@pytest.mark.parametrize(
    ("text", "fact", "told"),
    [
        ("num_heads 7 does not divide 64", "num_heads", True),
        ("num_heads 7 does not divide 64", 7, True),
        ("num_heads=7, not 8.", 8, True),
        ("num_heads 17 does not divide 64", 7, False),
        ("rate 0.7 is above 1", 7, False),
        ("rate 7.5 is above 1", 7, False),
        ("step70 of 770", 7, False),
        ("rate -7 is below 0", 7, False),
        ("rate -7 is below 0", -7, True),
        ("no num_heads_kv here", "num_heads", False),
        ("set --data.path, then start again", "--data.path", True),
        ("set --data.paths, then start again", "--data.path", False),
        ("shape [2, 4]", "[2, 4]", True),
        ("shape [2x4]", "[2.4]", False),
        ("Of the teacher", "teacher", True),
        ("the cat", "dog", False),
    ],
)
def test_a_fact_is_literal_and_stands_whole(text: str, fact: object, told: bool) -> None:
    """Protects against a fact found by chance inside another number or name, and against one read as a pattern."""
    assert untold(text, fact) == ([] if told else [str(fact)])


def test_an_error_that_tells_all_is_handed_out_in_any_order() -> None:
    """Protects the freedom of wording: only the facts count."""
    with refused(ValueError, "8", "num_heads", 7) as error:
        raise ValueError("num_heads is 7; allowed: 8")
    assert error.type is ValueError


def test_the_failure_shows_the_text_and_what_it_does_not_tell() -> None:
    """Protects whoever rewords an error: the failure says which fact went missing, and where."""
    with pytest.raises(pytest.fail.Exception) as failure, refused(ValueError, "num_heads", "7", "8"):
        raise ValueError("num_heads must be one of 4")
    assert str(failure.value) == "the text does not tell '7', '8':\nnum_heads must be one of 4"
    with pytest.raises(pytest.fail.Exception, match="'gone'"):
        assert_tells("here", "here", "gone")


def test_no_error_another_error_and_no_fact_are_no_refusals() -> None:
    """Protects against a test that passes although nothing was held against anything."""
    with pytest.raises(pytest.fail.Exception), refused(ValueError, "7"):
        pass
    with pytest.raises(KeyError), refused(ValueError, "7"):
        raise KeyError("7")
    for facts in [(), ("",), (" ",)]:
        with pytest.raises(AssertionError), refused(ValueError, *facts):
            raise ValueError("7")
