"""The command line, in process and once as a process: every wrong input is one line and exit status 2."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from errors import assert_tells, refused
from PIL import Image

from repae.cli import COMMANDS, Arguments, main, program
from repae.config import UserError
from repae.recipes.catalogue import compose

TINY = [
    "--start.kind=scratch",
    "--loop.steps=2",
    "--loop.batch-size=8",
    "--backbone.hidden-size=16",
    "--backbone.depth=2",
    "--backbone.num-heads=2",
    "--backbone.class-dropout-prob=0",
    "--preview.sampler.steps=1",
    "--preview.classes=2",
    "--preview.per-class=2",
    "--track.tensorboard=false",
    "--track.progress=false",
    "--runtime.device=cpu",
]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs with one in it, `tiny`: plain SiT on digits, two steps, no null class."""
    runs = tmp_path_factory.mktemp("runs")
    assert main(["train", "digits-sit", *TINY, "--name", "tiny", "--runs", str(runs)]) == 0
    return runs


@pytest.fixture
def runs(trained: Path, tmp_path: Path) -> Path:
    """A copy of it, to be spoilt."""
    return Path(shutil.copytree(trained, tmp_path / "runs"))


def refusal(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on standard error with which these words are refused."""
    capsys.readouterr()
    assert main(argv) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("error: ") and error.count("\n") == 1 and error.endswith("\n")
    return error


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """With and without asking, and the version."""
    for argv in ([], ["--help"], ["-h"], ["help"]):
        assert main(argv) == 0
        out = capsys.readouterr().out
        assert all(f"  {name} " in out for name in COMMANDS)
    assert main(["--version"]) == 0 and capsys.readouterr().out[0].isdigit()


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Usage first, what it is for, and nothing is started."""
    assert main([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: repae {name}") and COMMANDS[name].about in out


def test_help_of_train_lists_the_fields_with_the_recipes_own_values(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever wants to change a value sees what it is."""
    assert main(["train", "repae-sdvae-xl2", "--help"]) == 0
    out = capsys.readouterr().out
    assert "--loop.steps 400000" in out and "--backbone.hidden-size 1152" in out and "linear | cosine" in out


@pytest.mark.parametrize(
    ("argv", "facts"),
    [
        (["trian", "digits"], ["'trian'", "did you mean 'train'"]),
        (["xyz"], ["'xyz'", "train, recipes"]),
        (["train"], ["the recipe", "missing"]),
        (["train", "digts"], ["'digts'", "did you mean 'digits'"]),
        (["train", "digits", "--loop.stesp", "3"], ["loop.stesp", 3, "did you mean 'steps'"]),
        (["train", "digits", "--steps", "3"], ["steps", 3, "did you mean 'loop.steps'"]),
        (["train", "digits", "--loop.steps", "many"], ["loop.steps", "'many'", "whole number", "at least 1"]),
        (["train", "digits", "--loop.steps"], ["--loop.steps needs a value"]),
        (["train", "digits", "--path.kind", "cosin"], ["path.kind", "'cosin'", "'linear', 'cosine'"]),
        (["train", "digits", "sit"], ["'sit'", "too many"]),
        (["train", "digits", "--loop.steps", "3", "--loop.steps", "4"], ["--loop.steps", "twice"]),
        (["train", "digits", "--runs"], ["--runs needs a value"]),
        (["train", "digits", "--dry-run=yes"], ["--dry-run takes no value", "'yes'", "leave it out"]),
        (["train", "digits", "--name", "a/b"], ["name", "'a/b'"]),
        (["train", "digits", "--losses-from", "nowhere.yaml"], ["nowhere.yaml", "No such file", "a YAML file"]),
        (["train", "digits", "--backbone.encoder-depth", "9"], ["encoder_depth 9", "1 to 4"]),
        (["train", "digits", "--backbone.patch-size", "1"], ["16 (4 x 4)", "64 (8 x 8)", "backbone.patch_size"]),
        (["train", "digits", "--sit.num-heads", "5"], ["sit.num_heads", "--backbone.num-heads"]),
        (["train", "digits", "--backbone.num-heads", "5"], ["num_heads 5", "hidden_size 96", "a divisor"]),
        (["train", "digits-sit", "--data.resolution", "36"], ["resolution 36", "multiple of 8"]),
        (["train", "digits", "--num-classes", "9"], ["num_classes is 9", "10 classes", "leave num_classes out"]),
        (["train", "folder", "--data.path", "nowhere"], ["nowhere", "--data PATH"]),
        (["recipes", "digts"], ["'digts'", "did you mean 'digits'"]),
        (["recipes", "digits", "--all"], ["--all", "no option"]),
        (["sample"], ["the run", "missing"]),
        (["sample", "nowhere"], ["nowhere", "no run", "`repae train`", "`repae import FILE"]),
        (["evaluate", "nowhere"], ["nowhere", "no run", "`repae train`", "`repae import FILE"]),
        (["evaluate", "nowhere", "--bundel", "ema"], ["bundel", "did you mean 'bundle'"]),
        (["evaluate"], ["the run", "missing"]),
        (["compare", "nowhere"], ["at least two runs", "`repae compare RUN RUN ...`"]),
        (["compare", "nowhere", "elsewhere"], ["nowhere", "no evaluation", "`repae evaluate nowhere`"]),
        (["report", "nowhere"], ["nowhere", "`repae train`"]),
        (["demo", "--rums", "x"], ["--rums", "did you mean 'runs'"]),
    ],
)  # fmt: skip
def test_wrong_words_are_refused_in_one_line(
    argv: list[str],
    facts: list[object],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is trained, no traceback is shown, and the line says what would be right."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("repae.commands.train.trained_teachers", lambda *arguments: pytest.fail("training began"))
    assert_tells(refusal(argv, capsys), *facts)


def _image(path: Path) -> None:
    path.parent.mkdir(parents=True)
    Image.fromarray(np.zeros((70, 70, 3), np.uint8)).save(path)


@pytest.mark.parametrize("kind", ["empty", "no-images"])
def test_folders_without_images_are_refused(kind: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """An empty folder, and one whose subfolders hold no image."""
    folder = tmp_path / "images"
    (folder / "cat").mkdir(parents=True) if kind == "no-images" else folder.mkdir()
    line = refusal(["train", "folder", "--data.path", str(folder), "--runs", str(tmp_path / "runs")], capsys)
    assert_tells(line, folder, "cat/1.jpg", "correct the path" if kind == "empty" else "'cat'")


@pytest.mark.slow
def test_a_process_says_it_in_one_line_too(tmp_path: Path) -> None:
    """What a shell sees: status 2, one line on standard error, nothing on standard output."""
    done = subprocess.run(
        [sys.executable, "-m", "repae", "train", "digts"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert_tells(done.stderr, "'digts'", "did you mean 'digits'")
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_recipes_are_listed_and_printed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """What is printed of one can be trained as a file."""
    assert main(["recipes"]) == 0
    assert "repae-vavae-xl1-guide" in capsys.readouterr().out
    assert main(["recipes", "digits"]) == 0
    path = tmp_path / "mine.yaml"
    path.write_text(capsys.readouterr().out)
    assert main(["train", str(path), "--loop.steps", "7", "--dry-run"]) == 0
    assert "7 steps of 64 images" in capsys.readouterr().out


def test_a_dry_run_trains_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """It says what would be done, and writes nothing; the guide's loss file counts, and its ranges are said."""
    losses = tmp_path / "losses.yaml"
    losses.write_text("model: {vq_model: {quantize_mode: vae}}\nlosses: {discriminator_weight: 0.3}\n")
    runs = tmp_path / "runs"
    assert main(["train", "digits", "--losses-from", str(losses), "--dry-run", "--runs", str(runs)]) == 0
    out, error = capsys.readouterr()
    assert "discriminator: 42,449, trained" in out and "nothing: it can start" in out
    assert_tells(error, "losses.discriminator_weight", 0.3, "tuning range")
    assert not runs.exists()


def test_a_run_can_be_trained_sampled_and_reported(
    trained: Path, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From words to files; and the same words again find the work done."""
    folder = runs / "tiny"
    assert (folder / "recipe.yaml").is_file() and (folder / "report.html").is_file()
    options = ["--classes", "3,7", "--per-class", "2", "--sampler.steps", "1", "--out", str(runs / "drawn")]
    assert main(["sample", str(folder), *options]) == 0
    assert (runs / "drawn" / "grid.png").is_file()
    drawn = np.load(runs / "drawn" / "samples.npz")
    assert drawn["arr_0"].shape == (4, 32, 32, 1) and drawn["labels"].tolist() == [3, 3, 7, 7]
    assert main(["report", str(folder)]) == 0
    before = (folder / "metrics.jsonl").read_bytes()
    assert main(["train", "digits-sit", *TINY, "--name", "tiny", "--runs", str(runs)]) == 0
    assert main(["train", str(folder), "--runs", str(runs)]) == 0
    assert (folder / "metrics.jsonl").read_bytes() == before
    assert "done: " in capsys.readouterr().out


def test_what_a_run_cannot_do_is_refused(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guidance without a null class, classes that do not exist, a bundle nobody knows, a folder of another run."""
    folder = str(runs / "tiny")
    for argv, facts in (
        (["sample", folder, "--guidance.scale", "2"], ["guidance.scale is 2.0", "null class", "guidance.scale 1"]),
        (["sample", folder, "--classes", "11"], ["classes", 11, "0 to 9"]),
        (["sample", folder, "--bundle", "lve"], ["bundle", "'lve'", "'live', 'ema', 'reference'"]),
        (["evaluate", folder, "--bundle", "lve"], ["bundle", "'lve'", "'live', 'ema', 'reference'"]),
    ):
        assert_tells(refusal(argv, capsys), *facts)
    other = ["train", "digits-sit", *TINY, "--latent-norm.eps", "1e-3", "--name", "tiny", "--runs", str(runs)]
    assert_tells(refusal(other, capsys), folder, "another recipe", "latent_norm.eps was 0.0001", 0.001)


def test_checkpoints_that_cannot_be_read_are_refused(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A checkpoint of another schema and a truncated one, for sampling and for going on alike."""
    folder = runs / "tiny"
    (checkpoint,) = (folder / "checkpoints").iterdir()
    weights = checkpoint / "ema_denoiser.safetensors"
    commands = [["sample", str(folder)], ["train", str(folder), "--runs", str(runs)]]
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    for argv in commands:
        assert_tells(refusal(argv, capsys), "ema_denoiser")
    weights.write_bytes(whole)
    state = json.loads((checkpoint / "state.json").read_text())
    (version,) = (name for name in state if "schema" in name)
    (checkpoint / "state.json").write_text(json.dumps(state | {version: 999}))
    for argv in commands:
        assert_tells(refusal(argv, capsys), 999)


def test_stopping_is_no_error(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever chains commands must not go on as if the training were done."""
    from repae.runs.players import Interrupted

    def stopped(*arguments: object) -> Path:
        raise Interrupted("stopped after step 3 of 10; checkpoint in runs/x")

    monkeypatch.setattr("repae.commands.train.train", stopped)
    assert main(["train", "digits-sit"]) == 130
    assert_tells(capsys.readouterr().err, "checkpoint", "runs/x", "same command")

    def pressed(*arguments: object) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr("repae.commands.train.train", pressed)
    assert main(["train", "digits-sit"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_figures_and_folders_are_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`evaluate` and `demo` hand their folder on and say what came out."""
    monkeypatch.setattr(
        "repae.commands.evaluate.evaluate_run",
        lambda folder, settings: {"accuracy": 0.98765, "notes": [f"x {settings.bundle}"], "protocol": {"seed": 0}},
    )
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "recipe.yaml").write_text(compose("digits", {}).to_yaml())
    assert main(["evaluate", str(tmp_path / "x"), "--bundle", "live"]) == 0
    out = capsys.readouterr().out
    assert "0.9877" in out and "x live" in out and "seed" not in out
    monkeypatch.setattr("repae.commands.demo.demo", lambda runs: runs / "demo")
    assert main(["demo", "--runs", str(tmp_path)]) == 0
    assert str(tmp_path / "demo" / "report.html") in capsys.readouterr().out


def test_only_the_first_process_speaks(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight processes would say everything eight times."""
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "1")
    assert main(["train", "digits", "--dry-run"]) == 0
    assert capsys.readouterr().out == ""


PAGE = (Path(__file__).parents[1] / "docs" / "command-line.md").read_text(encoding="utf-8")


def test_the_page_lists_the_commands() -> None:
    """All of them, in the order and the words of `repae --help`."""
    rows = re.findall(r"^\| `repae ([a-z-]+)` \| (.*?) \|", PAGE, flags=re.MULTILINE)
    assert rows == [(name, command.about) for name, command in COMMANDS.items()]


@pytest.mark.parametrize("line", re.findall(r"^repae train .*$", PAGE, flags=re.MULTILINE))
def test_the_documented_commands_are_understood(line: str) -> None:
    """Every training of the page is a valid recipe."""
    words = Arguments.read(shlex.split(line)[2:], COMMANDS["train"].switches)
    assert compose(words.only("a recipe"), words.options)


def test_the_documented_options_are_understood() -> None:
    """So is every way of saying a value."""
    table = PAGE.partition("| to say |")[2].partition("\n\n")[0]
    groups = [shlex.split(text) for text in re.findall(r"`(--[^`]+)`", table)]
    assert len(groups) >= 9
    for group in groups:
        assert compose("repae-sdvae-xl2", Arguments.read(group, ()).options) != compose("repae-sdvae-xl2", {})


def test_words_are_sorted() -> None:
    """Options before and after, with and without `=`, negative numbers as values, switches that take nothing."""
    words = Arguments.read(["--dry-run", "digits", "--a.b", "-1.5", "--c=--d", "--e", "--f", "x"], ["dry-run"])
    assert words.positional == ["digits"]
    assert words.options == {"dry-run": None, "a.b": "-1.5", "c": "--d", "e": None, "f": "x"}
    assert words.switch("dry-run") and not words.switch("dry-run")
    assert words.take("f") == "x" and words.take("f") is None
    with refused(UserError, "--e needs a value"):
        words.take("e")


def test_errors_of_the_program_are_not_dressed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what the user can mend is shortened to a line."""
    monkeypatch.setattr(program, "_help", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["--help"])


def test_torch_is_not_needed_to_be_refused() -> None:
    """A misspelt command is answered without loading anything heavy."""
    code = (
        "import sys; from repae.cli import main; main(['trian']); main(['--help']); assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
    assert torch.__version__
