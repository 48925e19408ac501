"""The ground floor: what a configuration accepts, what it refuses and in which words, and how files are written."""

from __future__ import annotations

import copy
import hashlib
import pickle
from pathlib import Path
from typing import Annotated, Literal

import pytest
import yaml
from errors import assert_tells, refused
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, model_validator

from repae.config import Config, UserError, check, fields, read_yaml, suggest


class Constant(Config):
    """A choice with one bounded field."""

    kind: Literal["constant"] = "constant"
    warmup: int = Field(0, ge=0, le=1000)


class Cosine(Config):
    """Another choice."""

    kind: Literal["cosine"] = "cosine"
    final: float = Field(0.0, ge=0, lt=1)


Schedule = Annotated[Constant | Cosine, Field(discriminator="kind")]


class Train(Config):
    """One of everything."""

    steps: int = Field(10, ge=1)
    lr: float = Field(1e-4, gt=0)
    precision: Literal["bf16", "fp16", "fp32"] = "fp32"
    schedule: Schedule = Constant()
    schedules: tuple[Schedule, ...] = (Constant(), Cosine())
    betas: tuple[float, float] = (0.9, 0.999)
    clip: Annotated[float, Field(gt=0)] | None = 1.0
    label: int | str = 0
    weights: dict[str, float] = Field(default_factory=dict)


class Run(Config):
    """Nested."""

    name: str = Field("run", pattern=r"^[a-z]\S*$")
    train: Train = Train()
    second: Train | None = None

    @model_validator(mode="after")
    def _order(self) -> Run:
        if self.second and self.second.steps < self.train.steps:
            raise ValueError(f"second.steps is {self.second.steps}; allowed: {self.train.steps} or more")
        return self


FLOATS = st.floats(min_value=1e-300, max_value=1e300, allow_subnormal=False)
SCHEDULES = st.one_of(
    st.builds(Constant, warmup=st.integers(0, 1000)), st.builds(Cosine, final=st.floats(0, 1, exclude_max=True))
)
TRAINS = st.builds(
    Train,
    steps=st.integers(1, 10**9),
    lr=FLOATS,
    precision=st.sampled_from(["bf16", "fp16", "fp32"]),
    schedule=SCHEDULES,
    schedules=st.lists(SCHEDULES, max_size=3).map(tuple),
    betas=st.tuples(FLOATS, FLOATS),
    clip=st.none() | FLOATS,
    label=st.integers() | st.text(),
    weights=st.dictionaries(st.text(), FLOATS, max_size=3),
)
RUNS = st.builds(Run, name=st.from_regex(r"[a-z][a-z0-9._-]*", fullmatch=True), train=TRAINS)


def refusal(**changes: object) -> str:
    """The one line with which a change of the default run is refused."""
    with pytest.raises(UserError) as caught:
        Run().replace(**changes)
    text = str(caught.value)
    assert "\n" not in text
    for jargon in ("pydantic", "http", "type=", "input_value", "validation error"):
        assert jargon not in text
    return text


@given(run=RUNS)
def test_yaml_gives_back_what_it_was_given(run: Run, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A saved recipe is the recipe: equal after writing and reading, to the last bit of every float and letter."""
    path = tmp_path_factory.getbasetemp() / "run.yaml"
    path.write_text(run.to_yaml(), encoding="utf-8")
    again = Run.from_yaml(path)
    assert again == run
    assert again.digest() == run.digest()
    assert again.to_yaml() == run.to_yaml()


@given(number=FLOATS, text=st.text())
def test_numbers_and_texts_keep_apart_in_yaml(
    number: float, text: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A float comes back as a float and a text that looks like one as a text."""
    path = tmp_path_factory.getbasetemp() / "kinds.yaml"
    for label in (text, repr(number), f"{number:.3e}".replace("e-0", "e-")):
        path.write_text(Train(label=label, lr=number).to_yaml(), encoding="utf-8")
        again = Train.from_yaml(path)
        assert again.label == label and again.lr == number


@pytest.mark.parametrize(
    ("text", "value"), [("1e-6", 1e-6), ("1E5", 1e5), ("-2e+3", -2e3), (".5e1", 5.0), ("1.e-2", 1e-2), ("3", 3)]
)
def test_yaml_reads_scientific_numbers(text: str, value: float, tmp_path: Path) -> None:
    """`kl_weight: 1e-6` is a number, as everybody who writes it means."""
    (tmp_path / "a.yaml").write_text(f"a: {text}\n")
    read = read_yaml(tmp_path / "a.yaml")["a"]
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize("text", ["e5", "1e", "0x1e5g", "1e-6a", "v1e-6", "'1e-6'"])
def test_yaml_leaves_texts_alone(text: str, tmp_path: Path) -> None:
    """The rule for numbers does not take names that only resemble them."""
    (tmp_path / "a.yaml").write_text(f"a: {text}\n")
    assert isinstance(read_yaml(tmp_path / "a.yaml")["a"], str)


@given(run=RUNS, data=st.data())
def test_the_digest_depends_on_values_only(run: Run, data: st.DataObject) -> None:
    """Order of fields, defaults written out or left out, and float notation do not change the digest; values do."""
    tree = run.model_dump(mode="json")
    names = data.draw(st.permutations(list(tree["train"])))
    tree["train"] = {name: tree["train"][name] for name in names}
    assert check(Run, dict(reversed(tree.items())), "test").digest() == run.digest()
    assert check(Run, {"train": {"lr": "1e-4"}}, "test").digest() == Run().digest()
    assert run.replace(**{"train.steps": run.train.steps + 1}).digest() != run.digest()
    assert len(run.digest()) == 12 and int(run.digest(), 16) >= 0


def test_the_digest_is_the_same_tomorrow() -> None:
    """Caches are found again by another process and another version of Python."""
    assert Constant().digest() == hashlib.sha256(b'{"kind":"constant","warmup":0}').hexdigest()[:12] == "125b6f767d32"


@given(run=RUNS, steps=st.integers(1, 100), final=st.floats(0, 1, exclude_max=True))
def test_replace_changes_what_it_is_told_and_nothing_else(run: Run, steps: int, final: float) -> None:
    """A copy with the named fields changed; the original, nested lists and dictionaries included, stays."""
    before = copy.deepcopy(run)
    changed = run.replace(**{"train.steps": steps, "train.schedule.kind": "cosine", "train.schedule.final": final})
    assert run == before
    assert changed.train.steps == steps
    assert changed.train.schedule == Cosine(final=final)
    expected = run.model_dump() | {"train": run.train.model_dump() | {"steps": steps, "schedule": Cosine(final=final)}}
    assert changed == check(Run, expected, "test")
    assert run.replace() == run


def test_replace_reaches_everything() -> None:
    """Whole parts, list items, entries of mappings, and fields of a part that was absent."""
    run = Run()
    assert run.replace(train=Train(steps=3)).train.steps == 3
    assert run.replace(train={"steps": 3}).train.steps == 3
    assert run.replace(**{"train.schedule": Cosine(final=0.5)}).train.schedule == Cosine(final=0.5)
    assert run.replace(**{"train.schedules.1.final": 0.5}).train.schedules == (Constant(), Cosine(final=0.5))
    assert run.replace(**{"train.schedules.0": Cosine()}).train.schedules == (Cosine(), Cosine())
    assert run.replace(**{"train.schedules.0.kind": "cosine"}).train.schedules == (Cosine(), Cosine())
    assert run.replace(**{"train.weights.a": 2.0}).train.weights == {"a": 2.0}
    assert run.replace(**{"second.steps": 20}).second == Train(steps=20)
    given_late = run.replace(**{"train.schedule.final": 0.5, "train.schedule.kind": "cosine"})
    assert given_late.train.schedule == Cosine(final=0.5)
    together = run.replace(**{"train.schedule": Cosine(final=0.2), "train.schedule.final": 0.5})
    assert together.train.schedule == Cosine(final=0.5)


def test_a_configuration_cannot_be_changed() -> None:
    """Frozen: it can be a key, it can be shared, and what was recorded is what was run."""
    with refused(ValueError, "frozen", "warmup"):
        Constant().warmup = 3  # pyright: ignore
    assert hash(Constant(warmup=3)) == hash(Constant(warmup=3))
    assert pickle.loads(pickle.dumps(Run())) == Run()


@pytest.mark.parametrize(
    ("changes", "facts"),
    [
        ({"train.stpes": 3}, ["train.stpes", 3, "did you mean 'steps'"]),
        ({"tarin.steps": 3}, ["tarin", "{'steps': 3}", "did you mean 'train'"]),
        ({"steps": 3}, ["steps", 3, "did you mean 'train.steps'"]),
        ({"zebra": 3}, ["zebra", 3, "name, train, second"]),
        ({"train.schedule.final": 0.1}, ["train.schedule.final", 0.1, "another kind", "set train.schedule.kind too"]),
        ({"train.steps": 0}, ["train.steps", 0, "whole number", "at least 1"]),
        ({"train.steps": 1.5}, ["train.steps", 1.5, "whole number", "at least 1"]),
        ({"train.lr": -1}, ["train.lr", -1, "finite number", "greater than 0"]),
        ({"train.lr": float("nan")}, ["train.lr", "nan", "finite number", "greater than 0"]),
        ({"train.lr": "fast"}, ["train.lr", "'fast'", "finite number", "greater than 0"]),
        ({"train.clip": 0}, ["train.clip is 0", "finite number", "greater than 0", "or none"]),
        ({"train.precision": "bf61"}, ["train.precision", "'bf61'", "'bf16', 'fp16', 'fp32'", "did you mean 'bf16'"]),
        (
            {"train.schedule.kind": "cosin"},
            ["train.schedule.kind", "'cosin'", "'constant', 'cosine'", "did you mean 'cosine'"],
        ),
        ({"train.schedule": {"final": 0.1}}, ["train.schedule", "{'final': 0.1}", "kind = 'constant', 'cosine'"]),
        ({"train.schedule": 3}, ["train.schedule", 3, "kind = 'constant', 'cosine'"]),
        ({"train.schedule.warmup": 1001}, ["train.schedule.warmup", 1001, "at least 0", "at most 1000"]),
        ({"train.schedules.1.final": 1}, ["train.schedules.1.final is 1", "at least 0", "less than 1"]),
        ({"train.schedules.2.final": 1}, ["train.schedules", "'2'", "0 to 1"]),
        ({"train.betas": (1, 2, 3)}, ["train.betas", "(1, 2, 3)", "list of 2", "finite number"]),
        ({"train.betas": (1, "x")}, ["train.betas.1", "'x'", "finite number"]),
        ({"train.label": [1]}, ["train.label", "[1]", "whole number", "a text"]),
        ({"train.weights.a": "x"}, ["train.weights.a", "'x'", "finite number"]),
        ({"train": 3}, ["train", 3, "fields steps, lr, precision"]),
        ({"train.steps.x": 3}, ["train.steps", 10, "set train.steps itself"]),
        ({"name": "Demo"}, ["name", "'Demo'", r"^[a-z]\S*$"]),
        ({"second.steps": 3}, ["second.steps", 3, "10 or more"]),
        ({"second.stps": 3}, ["second.stps", 3, "did you mean 'steps'"]),
    ],
)
def test_a_refusal_names_the_field_the_value_and_the_remedy(changes: dict[str, object], facts: list[object]) -> None:
    """One line each, in the words of the user and not of the library."""
    assert_tells(refusal(**changes), *facts)


def test_several_errors_stand_in_one_line() -> None:
    """All that is wrong at once, up to a readable number."""
    text = refusal(**{"train.steps": 0, "train.lr": 0, "nmae": "x"})
    assert_tells(text, "train.steps is 0", "train.lr is 0", "nmae", "did you mean 'name'")
    assert_tells(refusal(**dict.fromkeys("abcdefg", 1)), "a", "b", "3 more errors")


def test_construction_and_files_are_refused_in_the_same_words(tmp_path: Path) -> None:
    """Wherever a value comes from, the line is the same but for where it was found."""
    with refused(UserError, "Constant", "warmup is -1", "at least 0", "at most 1000"):
        Constant(warmup=-1)
    path = tmp_path / "run.yaml"
    path.write_text("train: {steps: 0}\n")
    with refused(UserError, path, "train.steps is 0", "whole number", "at least 1"):
        Run.from_yaml(path)
    with refused(UserError, "here", 3, "fields name, train, second"):
        check(Run, 3, "here")

    class Needed(Config):
        size: int = Field(gt=0)

    with refused(UserError, "Needed", "size is missing", "whole number", "greater than 0"):
        Needed()  # pyright: ignore


@pytest.mark.parametrize(
    ("content", "facts"),
    [
        (b"a: [1, 2\n", ["line 2, column 1", "not valid YAML"]),
        (b"- 1\n- 2\n", ["[1, 2]", "field names to values"]),
        (b"name: a\nname: b\n", ["line 1, column 1", "'name'", "twice"]),
        (b"name: \xff\n", ["not UTF-8 text"]),
        (b"a: !!python/object:os.system {}\n", ["line 1, column 4", "not valid YAML", "constructor"]),
    ],
)
def test_files_that_are_no_configuration(content: bytes, facts: list[str], tmp_path: Path) -> None:
    """A broken file is named with the place that is wrong; nothing in it is ever executed."""
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    with refused(UserError, path, *facts):
        Run.from_yaml(path)


def test_a_missing_file_and_an_empty_one(tmp_path: Path) -> None:
    """The first is an error in words, the second is all defaults."""
    with refused(UserError, tmp_path / "none.yaml", "No such file", "a YAML file in UTF-8"):
        Run.from_yaml(tmp_path / "none.yaml")
    (tmp_path / "empty.yaml").write_text("")
    assert Run.from_yaml(tmp_path / "empty.yaml") == Run()


@given(name=st.text(), allowed=st.lists(st.text(), max_size=5))
def test_suggestions_come_from_what_is_allowed(name: str, allowed: list[str]) -> None:
    """A suggestion is an allowed name or nothing; an exact name is always suggested as itself."""
    hint = suggest(name, allowed)
    assert hint == "" or any(hint == f"; did you mean {candidate!r}?" for candidate in allowed)


def test_suggestions_bridge_spelling() -> None:
    """Case and the two dashes do not matter, other names are not suggested."""
    assert suggest("digts", ["digits", "digits-full"]) == "; did you mean 'digits'?"
    assert suggest("Digits_Full", ["digits", "digits-full"]) == "; did you mean 'digits-full'?"
    assert suggest("imagenet", ["digits"]) == ""


def test_all_dotted_names() -> None:
    """Every field once, the members of a union together."""
    names = fields(Run)
    assert len(names) == len(set(names))
    assert {"train.schedule.kind", "train.schedule.warmup", "train.schedule.final", "train.schedules.final"} < set(
        names
    )
    assert "second.betas" in names and "second.betas.0" not in names


def test_the_text_of_a_configuration_is_ordinary_yaml() -> None:
    """Other tools read it: fields in the order of definition, nothing of Python in it."""
    assert list(yaml.safe_load(Run().to_yaml())) == ["name", "train", "second"]
    assert "!!" not in Run().to_yaml()
