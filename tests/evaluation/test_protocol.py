from __future__ import annotations

import copy

from repae.evaluation.protocol import differences, flat, refusing, versions

PROTOCOL = {
    "bundle": "ema", "images": 50_000, "sampler": {"kind": "euler", "steps": 50}, "guidance": {"scale": 2.0},
    "labels": "balanced", "reference": {"sha256": "abc", "images": 10}, "recipe": "r1", "step": 10, "device": "cpu",
    "networks": {"inception": {"sha256": "def"}}, "versions": {"torch": "2.11"},
}  # fmt: skip


def _changed(**changes):
    other = copy.deepcopy(PROTOCOL)
    for name, value in changes.items():
        *path, last = name.split("__")
        here = other
        for key in path:
            here = here[key]
        here[last] = value
    return other


def test_equal_protocols_differ_in_nothing():
    """And what was measured is no part of how: recipe and step may differ."""
    assert differences(PROTOCOL, _changed(recipe="r2", step=20)) == {}


def test_every_field_is_seen():
    """Each leaf that differs is named with both values, one that only one protocol has included."""
    for name in flat(PROTOCOL):
        if name in ("recipe", "step"):
            continue
        found = differences(PROTOCOL, _changed(**{name.replace(".", "__"): "other"}))
        assert found == {name: (flat(PROTOCOL)[name], "other")}
    assert differences(PROTOCOL, {**PROTOCOL, "more": 1}) == {"more": (None, 1)}


def test_what_forbids_a_comparison():
    """Sampler, guidance, labels, reference forbid generated figures only; networks all; versions and device none."""
    for name, generated, others in (
        ("sampler__steps", True, False), ("guidance__scale", True, False), ("labels", True, False),
        ("reference__sha256", True, False), ("bundle", True, True), ("images", True, True),
        ("networks__inception__sha256", True, True), ("versions__torch", False, False), ("device", False, False),
    ):  # fmt: skip
        found = differences(PROTOCOL, _changed(**{name: "other"}))
        assert bool(refusing(found, generated=True)) is generated, name
        assert bool(refusing(found, generated=False)) is others, name


def test_versions_name_what_figures_depend_on():
    """Installed packages with their versions."""
    found = versions()
    assert {"python", "repae", "torch", "torch-fidelity", "lpips"} <= set(found) and found["torch"] != "not installed"
