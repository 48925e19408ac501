"""The two-stage comparison: its commands are real ones, and its words count what its figures say."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from errors import refused

from experiments import arms, two_stage
from experiments.two_stage import ARMS, JOINT, TwoStageScale, main, page
from repae.cli import COMMANDS, Arguments
from repae.commands.cache import CacheConfig
from repae.commands.export import ExportSettings
from repae.config.options import read_options
from repae.recipes.catalogue import compose

SCALE = TwoStageScale(seeds=2, steps=30, vae_steps=20, jobs=1)


def test_every_command_is_understood(tmp_path: Path) -> None:
    """All options exist; the frozen arms differ in their autoencoder and its latents only."""
    seen = {}
    for stage in (two_stage._original, two_stage._joint, two_stage._export, two_stage._cache, two_stage._fresh):
        for done, commands in stage(tmp_path, SCALE, 1):
            for command in commands:
                words = Arguments.read(command[1:], COMMANDS[command[0]].switches)
                if command[0] == "train":
                    assert words.take("runs") == str(tmp_path)
                    seen[done.parent.name] = compose(words.only("a recipe"), words.options)
                elif command[0] == "export":
                    assert done.parent.name.replace("exported-", "") in ("original-s1", "tuned-s1")
                    assert words.only("a run") == str(tmp_path / f"{two_stage.VAES[done.parent.name[9:-3]]}-s1")
                    options = {name: text for name, text in words.options.items() if name != "out"}
                    assert words.take("out") == str(done.parent)
                    assert ExportSettings().replace(**read_options(ExportSettings, options)).part == "vae"
                elif command[0] == "cache":
                    assert words.only("a source") == str(done.parent).replace("latents-", "exported-")
                    assert [words.take(name) for name in ("out", "runs")] == [str(done.parent), str(tmp_path)]
                    assert read_options(CacheConfig, words.options)
                else:
                    assert command == ["evaluate", str(done.parent)]
    assert seen.keys() == {"vae-s1", *(f"{arm}-s1" for arm in ARMS)}
    for method in ("sit", "repa"):
        original, tuned = seen[f"{method}-original-s1"], seen[f"{method}-tuned-s1"]
        names = {"name": tuned.name, "start": tuned.start, "latents": tuned.latents}
        assert original != tuned and original.replace(**names) == tuned
        assert original.seed == 1 and original.loop.steps == 30
        for which, recipe in (("original", original), ("tuned", tuned)):
            assert recipe.start.path == str(tmp_path / f"exported-{which}-s1")
    assert seen["repa-tuned-s1"].teachers == seen["joint-s1"].teachers


def results(home: Path) -> None:
    """Made-up figures of every run: the tuned autoencoder wins in the second seed, in everything but precision."""
    for number, arm in enumerate(ARMS):
        for seed in range(SCALE.seeds):
            folder = home / f"{arm}-s{seed}"
            folder.mkdir(parents=True)
            gain = 0.01 if arm.endswith("tuned") and seed == 1 else 0.0
            figures: dict[str, Any] = {
                "accuracy": 0.9 + gain, "nn_accuracy": 0.8, "fd": 5 - gain, "fd_floor": 3.0, "precision": 0.7 - gain,
                "coverage": 0.6 + gain, "psnr": 30.0 + number, "protocol": {"recipe": "x", "images": 1797},
            }  # fmt: skip
            (folder / "evaluation.json").write_text(json.dumps(figures))
            cost = 0.2 if arm == JOINT else 0.1
            rows = [
                {"step": step, "denoising_loss": 0.5, "wall": {"cpu_seconds": cost * step}} for step in (10, 20, 30)
            ]
            (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            (folder / "environment.json").write_text(json.dumps({"cpu": "an abacus"}))


def test_the_page_counts_and_does_not_judge(tmp_path: Path) -> None:
    """Wins by seed, both reconstructions, the cost, and one row for each arm."""
    results(tmp_path)
    text = " ".join(page(tmp_path, SCALE).split())
    for words in (
        "Plain SiT on the tuned VAE against plain SiT on the original one, at equal steps and seeds: the higher "
        "accuracy in 1 of 2 seeds, the lower FD in 1 of 2, the higher precision in 0 of 2, the higher coverage in "
        "1 of 2.",
        "PSNR 32.0 dB against 31.0",
        "A joint step costs 2.0 times",
        "3.00 apart (the floor)",
        "CPU time: one thread of an abacus.",
        "0.905 ± 0.007",
        "has had 30 more steps of training",
    ):
        assert words in text, words
    assert len(re.findall(r"^\| \w", page(tmp_path, SCALE), flags=re.MULTILINE)) == len(ARMS)


def test_its_own_commands_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that the page gives for doing one seed by hand."""
    results(tmp_path)
    lines = re.findall(r"^(?: {4})?(?:repae |python -m experiments\.)(.*)$", page(tmp_path, SCALE), flags=re.MULTILINE)
    assert [line.split()[0] for line in lines] == [
        "two_stage",
        "train",
        "train",
        "export",
        "cache",
        "train",
        "evaluate",
    ]
    asked: list[TwoStageScale] = []
    monkeypatch.setattr(two_stage, "two_stage", lambda scale, runs, out: asked.append(scale))
    for line in lines:
        command, *rest = shlex.split(line)
        words = Arguments.read(rest, COMMANDS[command].switches if command in COMMANDS else ())
        if command == "train":
            assert compose(words.only("a recipe"), words.options)
        if command == "two_stage":
            assert main([*rest, "--jobs", "1"]) == 0 and asked == [SCALE]


def test_what_is_done_is_not_repeated_and_failures_are_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real processes: a command that fails is named with its own words; a file that is there ends the matter."""
    monkeypatch.setattr(sys, "executable", "/bin/echo")
    arms.carry_out(tmp_path / "new" / "report.html", ["train", "x"])
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with refused(RuntimeError, "`repae train x`", "failed"):
        arms.carry_out(tmp_path / "new" / "report.html", ["train", "x"])
    (tmp_path / "report.html").touch()
    arms.carry_out(tmp_path / "report.html", ["train", "x"])


def test_the_order_of_the_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Autoencoders, joint runs, exports, caches, fresh runs; then page and picture, where they were asked for."""
    done: list[str] = []

    def recorded(mark: Path, *commands: list[str]) -> None:
        done.append(mark.parent.name)

    monkeypatch.setattr(two_stage, "carry_out", recorded)
    monkeypatch.setattr(two_stage, "write_digits", lambda path, folders: (path.parent.mkdir(), path.touch()))
    home = tmp_path / "two-stage-30"
    results(home)
    options = ["--seeds", "2", "--steps", "30", "--vae-steps", "20", "--jobs", "1"]
    assert main([*options, "--runs", str(tmp_path), "--out", str(tmp_path / "docs")]) == 0
    kinds = [name.rpartition("-s")[0] for name in done]
    assert kinds[:4] == ["vae", "vae", "joint", "joint"]
    assert kinds[4:8] == ["exported-original", "exported-tuned"] * 2
    assert kinds[8:12] == ["latents-original", "latents-tuned"] * 2 and len(kinds) == 20
    assert (tmp_path / "docs" / "two-stage.md").read_text() == page(home, SCALE)
    assert (tmp_path / "docs" / "two-stage.png").is_file()
