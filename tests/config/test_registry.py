"""Families of configurations: what is registered, before or after its first use, is read like a union."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from errors import refused
from pydantic import Field

from repae.config import Config, UserError, check, fields
from repae.config.options import list_options, read_options
from repae.config.registry import Registry


class Shape(Config):
    """What every shape is."""

    kind: Any

    def area(self) -> float:
        """In square metres."""
        raise NotImplementedError


SHAPES = Registry("shape")


@SHAPES.register
class Square(Shape):
    """Four corners."""

    kind: Literal["square"] = "square"
    side: float = Field(default=1.0, gt=0)

    def area(self) -> float:
        """In square metres."""
        return self.side**2


class Drawing(Config):
    """One shape, more of them, or none."""

    shape: Annotated[Shape, SHAPES] = Square()
    more: tuple[Annotated[Shape, SHAPES], ...] = ()
    spare: Annotated[Shape, SHAPES] | None = None


class Page(Drawing):
    """What holds what holds a shape."""

    drawing: Drawing = Drawing()


@SHAPES.register
class Disc(Shape):
    """No corner."""

    kind: Literal["disc"] = "disc"
    radius: float = Field(default=1.0, gt=0)

    def area(self) -> float:
        """In square metres."""
        return 3 * self.radius**2


def changed(**texts: str) -> Page:
    """The default after options of a command line."""
    return Page().replace(**read_options(Page, texts))


def test_a_kind_that_is_registered_after_the_class_that_holds_it_is_read_like_the_others() -> None:
    """In Python, by dotted names, and as options of a command line, at any depth."""
    assert Page(shape=Disc(radius=2.0)).shape == Disc(radius=2.0)
    assert check(Page, {"drawing": {"shape": {"kind": "disc"}}}, "here").drawing.shape == Disc()
    page = changed(
        **{"drawing.shape.radius": "3", "drawing.shape.kind": "disc", "more": "[{kind: disc}, {kind: square}]"}
    )
    assert page.drawing.shape == Disc(radius=3.0) and page.more == (Disc(), Square())
    assert changed(spare="{kind: disc}").spare == Disc()
    assert page.drawing.shape.area() == 27.0


def test_a_registered_kind_survives_a_file(tmp_path: Path) -> None:
    """YAML holds every field of the member, not only those of the family."""
    page = Page(shape=Disc(radius=2.5), more=(Square(side=2.0), Disc()), spare=Square())
    (tmp_path / "page.yaml").write_text(page.to_yaml())
    assert Page.from_yaml(tmp_path / "page.yaml") == page
    assert page.model_dump()["shape"] == {"kind": "disc", "radius": 2.5}


@pytest.mark.parametrize(
    ("changes", "facts"),
    [
        ({"shape.kind": "dics"}, ["shape.kind", "'dics'", "'square', 'disc'", "did you mean 'disc'"]),
        ({"shape": 3}, ["shape", 3, "kind = 'square', 'disc'"]),
        ({"shape": {"side": 1.0}}, ["shape", "{'side': 1.0}", "kind = 'square', 'disc'"]),
        ({"drawing.shape.side": -1.0}, ["drawing.shape.side", -1.0, "finite number", "greater than 0"]),
        ({"shape.radius": 1.0}, ["shape.radius", 1.0, "another kind of shape", "set shape.kind too"]),
        ({"shape.sied": 1.0}, ["shape.sied", 1.0, "did you mean 'side'"]),
        ({"more": [{"kind": "disc", "radius": 0}]}, ["more.0.radius is 0", "finite number", "greater than 0"]),
        ({"spare": {"kind": "disk"}}, ["spare.kind", "'disk'", "'square', 'disc'", "did you mean 'disc'"]),
    ],
)
def test_errors_are_those_of_a_union(changes: dict[str, object], facts: list[object]) -> None:
    """The field by its dotted name, the value, and every kind that is registered by now."""
    with refused(UserError, "Page", *facts):
        Page().replace(**changes)


def test_the_listing_shows_every_registered_kind() -> None:
    """Of the value that stands there its fields, of the others their kinds."""
    listing = list_options(Page())
    assert "--drawing.shape.kind square" in listing and "square | disc" in listing
    assert "a list, each item kind = 'square', 'disc'" in listing
    assert {"drawing.shape.radius", "more.side", "spare.radius"} < set(fields(Page))


def test_what_cannot_be_told_apart_is_not_registered() -> None:
    """A second class of one kind, or one without a kind, would make a recipe ambiguous."""

    class Other(Shape):
        kind: Literal["disc"] = "disc"

    with refused(ValueError, "'disc'", "Disc", "another kind"):
        SHAPES.register(Other)
    with refused(ValueError, "Shape", "literal field 'kind'", "default"):
        SHAPES.register(Shape)


def test_a_family_of_one() -> None:
    """A registry need not hold a choice yet."""
    only = Registry("line")

    @only.register
    class Line(Config):
        kind: Literal["line"] = "line"
        length: int = 1

    class Sheet(Config):
        line: Annotated[Config, only] = Line()

    assert check(Sheet, {"line": {"length": 2}}, "here").line == Line(length=2)
    with refused(UserError, "here", "line.kind is 'lin'", "did you mean 'line'"):
        check(Sheet, {"line": {"kind": "lin"}}, "here")
