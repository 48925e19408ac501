"""Options of any field: how a text becomes a value, and what the listing says."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from errors import refused
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from repae.config import Config, UserError
from repae.config.options import list_options, read_options


class Flat(Config):
    """No bend."""

    kind: Literal["flat"] = "flat"
    height: int = Field(default=1, ge=1)


class Round(Config):
    """A bend.

    Attributes:
        radius: half the width, in a sentence
            of two lines.
        height: of the top.
    """

    kind: Literal["round"] = "round"
    radius: float = Field(default=1.0, gt=0)
    height: float = 1.0


Shape = Annotated[Flat | Round, Field(discriminator="kind")]


class Inner(Config):
    """Some of everything."""

    steps: int = Field(default=10, ge=1)
    lr: float = Field(default=1e-4, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    clip: Annotated[float, Field(gt=0)] | None = 1.0
    fast: bool = False
    precision: Literal["bf16", "none"] = "bf16"
    path: str | None = None
    on_error: Literal["skip", "raise"] = "skip"


class Outer(Config):
    """The whole."""

    name: str = "x"
    inner: Inner = Inner()
    shape: Shape = Flat()
    shapes: tuple[Shape, ...] = (Flat(), Round())
    spare: Inner | None = None


def changed(**texts: str | None) -> Outer:
    """The default after options."""
    return Outer().replace(**read_options(Outer, texts))


@pytest.mark.parametrize(
    ("option", "text", "expected"),
    [
        ("inner.steps", "20", 20),
        ("inner.lr", "1e-6", 1e-6),
        ("inner.lr", "3", 3.0),
        ("inner.betas", "0.5,0.9", (0.5, 0.9)),
        ("inner.betas", "[0.5, 1e-1]", (0.5, 0.1)),
        ("inner.clip", "none", None),
        ("inner.clip", "2.5", 2.5),
        ("inner.fast", "true", True),
        ("inner.fast", None, True),
        ("inner.fast", "no", False),
        ("inner.precision", "none", "none"),
        ("inner.path", "none", None),
        ("inner.path", "a/b c.pt", "a/b c.pt"),
        ("inner.path", "true", "true"),
        ("inner.on-error", "raise", "raise"),
        ("inner.on_error", "raise", "raise"),
        ("name", "007", "007"),
        ("name", "1e-6", "1e-6"),
        ("name", "none", "none"),
    ],
)
def test_a_text_is_read_by_the_type_of_its_field(option: str, text: str | None, expected: object) -> None:
    """A number stays a number, a text a text, whatever YAML would take it for."""
    value: object = changed(**{option: text})
    for part in option.replace("-", "_").split("."):
        value = getattr(value, part)
    assert value == expected and type(value) is type(expected)


def test_parts_of_another_kind() -> None:
    """Kinds are switched by name, with that kind's fields, in any order, inside lists too, or as YAML at once."""
    assert changed(**{"shape.radius": "2", "shape.kind": "round"}).shape == Round(radius=2.0)
    assert changed(**{"shape.kind": "round", "shape.height": "0.5"}).shape == Round(height=0.5)
    assert changed(**{"shapes.1.radius": "3"}).shapes == (Flat(), Round(radius=3.0))
    assert changed(shapes="[{kind: round, radius: 1e-3}]").shapes == (Round(radius=1e-3),)
    assert changed(shapes="[]").shapes == ()
    assert changed(spare="{steps: 3}").spare == Inner(steps=3)
    assert changed(**{"spare.steps": "3"}).spare == Inner(steps=3)


@pytest.mark.parametrize(
    ("option", "text", "facts"),
    [
        ("inner.steps", "many", ["inner.steps", "'many'", "whole number", "at least 1"]),
        ("inner.steps", "0", ["inner.steps", 0, "whole number", "at least 1"]),
        ("inner.stesp", "5", ["inner.stesp", 5, "did you mean 'steps'"]),
        ("steps", "5", ["steps", 5, "did you mean 'inner.steps'"]),
        ("shape.kind", "rund", ["shape.kind", "'rund'", "did you mean 'round'"]),
        ("shape.radius", "2", ["shape.radius", 2, "another kind of shape", "set shape.kind too"]),
        ("shapes.7.height", "2", ["shapes", "position '7'"]),
        ("inner.on-error", "rais", ["'rais'", "did you mean 'raise'"]),
        ("inner.clip", "[", ["inner.clip", "'['", "greater than 0"]),
        ("inner.steps", "true", ["inner.steps", "'true'", "whole number"]),
        ("inner.steps", None, ["--inner.steps needs a value"]),
        ("inner.clip", None, ["--inner.clip needs a value", "greater than 0 or none"]),
        ("inner", None, ["--inner needs a value"]),
        ("iner", None, ["iner", "did you mean 'inner'"]),
    ],
)
def test_what_no_reading_makes_valid_is_refused_in_words(option: str, text: str | None, facts: list[object]) -> None:
    """The refusal names the field, the value and what is allowed, with a suggestion for a slip of the pen."""
    with refused(UserError, *facts) as caught:
        changed(**{option: text})
    assert "\n" not in str(caught.value)


def test_one_field_in_two_spellings_is_refused() -> None:
    """Which of them would count cannot be guessed."""
    with refused(UserError, "--inner.on_error", "twice", "give it once"):
        changed(**{"inner.on-error": "skip", "inner.on_error": "raise"})


@given(
    st.builds(
        Inner,
        steps=st.integers(1, 10**9),
        lr=st.floats(1e-30, 1e30),
        betas=st.tuples(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9)),
        clip=st.none() | st.floats(1e-9, 1e9),
        fast=st.booleans(),
    )
)
def test_any_value_can_be_said(inner: Inner) -> None:
    """Whatever a configuration can hold, options can ask for."""
    texts = {
        "inner.steps": str(inner.steps),
        "inner.lr": repr(inner.lr),
        "inner.betas": ",".join(map(repr, inner.betas)),
        "inner.clip": str(inner.clip),
        "inner.fast": str(inner.fast),
    }
    assert changed(**texts).inner == inner


def test_the_listing_shows_every_field_that_there_is() -> None:
    """Names as options, values, what is allowed, the kinds, and the notes of the docstrings."""
    text = list_options(Outer(), title="outer")
    for option in ("--name x", "--inner.steps 10", "--inner.on-error skip", "--shapes.1.radius 1.0", "--spare none"):
        assert f"  {option} " in text
    assert "--shape.kind flat" in text and "flat | round" in text
    assert "half the width, in a sentence of two lines." in " ".join(text.split())
    assert "a whole number, at least 1" in text and "a finite number, greater than 0 or none" in text
    assert max(map(len, text.splitlines())) <= 120
