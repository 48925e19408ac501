"""Checkpoints: what is written comes back, and what is wrong is said."""

import json
import subprocess
import sys

import pytest
import torch
from errors import assert_tells, refused
from processes import child_environment, run_processes
from safetensors.torch import load_file
from stacks import Layers
from torch import nn

from repae.config import UserError
from repae.runtime.checkpoint import CheckpointStore
from repae.runtime.ema import EMA, EmaConfig
from repae.runtime.optimise import AdamWConfig, Optimiser
from repae.runtime.precision import Precision

META = {"recipe": {"name": "digits", "lr": 1e-4}, "best": float("inf"), "ids": (1, 2)}


class Part:
    """A state of anything."""

    def __init__(self, state=None):
        self.state = state

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.state = state


def _training(seed):
    """A model, its optimiser with moments and a scaler, and its average."""
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    optimiser = Optimiser(module.parameters(), AdamWConfig(), Precision("fp16", torch.device("cpu")), total_steps=9)
    ema = EMA(module, EmaConfig(decay=0.5))
    for _ in range(seed):
        optimiser(module(torch.randn(4, 3)).square().mean())
        ema.update()
    return {"model": module, "optimiser": optimiser, "ema": ema, "words": Part({"means": [0.1, None], 3: (True, "x")})}


def _flat(parts):
    from repae.runtime.tree import flatten

    return {name: flatten(part.state_dict()) for name, part in parts.items()}


@pytest.fixture
def store(tmp_path):
    """Three small checkpoints of one part."""
    store = CheckpointStore(tmp_path / "checkpoints")
    for step in (1, 2, 3):
        store.save(step, {"part": Part({"x": torch.full((64,), float(step)), "step": step})}, {"step": step})
    return store


def test_a_whole_training_comes_back_bit_for_bit(tmp_path):
    """Weights, statistics, moments, loss scale, average and plain values, into objects in another state."""
    store = CheckpointStore(tmp_path)
    parts, other = _training(3), _training(1)
    path = store.save(100, parts, META)
    assert path == store.latest() == tmp_path / "step-0000100"
    saved = store.load(path, other)
    assert saved == store.describe(path) == (100, META)
    for (skeleton, tensors), (skeleton_2, tensors_2) in zip(_flat(parts).values(), _flat(other).values()):
        assert skeleton == skeleton_2 and tensors.keys() == tensors_2.keys()
        assert all(torch.equal(tensor, tensors_2[name]) for name, tensor in tensors.items())


def test_files_are_for_anybody(tmp_path):
    """Plain safetensors with the module's own names; JSON for the rest; nothing that runs code when read."""
    path = CheckpointStore(tmp_path).save(7, _training(1), META)
    assert sorted(file.name for file in path.iterdir()) == [
        "ema.safetensors",
        "model.safetensors",
        "optimiser.safetensors",
        "state.json",
    ]
    assert list(load_file(path / "model.safetensors")) and "0.weight" in load_file(path / "model.safetensors")
    state = json.loads((path / "state.json").read_text())
    assert state["schema"] == 2 and state["step"] == 7 and state["meta"]["recipe"] == META["recipe"]


def test_one_part_can_be_read_or_loaded_alone(tmp_path):
    """Sampling needs the average and not the moments; loading a training needs everything."""
    store = CheckpointStore(tmp_path)
    parts = _training(2)
    path = store.save(1, parts, {})
    torch.testing.assert_close(store.read(path, "ema")["module"], parts["ema"].state_dict()["module"], rtol=0, atol=0)
    other = _training(1)["ema"]
    store.load(path, {"ema": other}, partial=True)
    assert other.count == 2
    with refused(
        UserError, path, "unexpected parts", "model, optimiser, words", "use the recipe", "another output folder"
    ):
        store.load(path, {"ema": other})
    with refused(UserError, path, "'emma'", "allowed: model", "optimiser, ema, words"):
        store.read(path, "emma")


def test_the_last_ones_and_the_best_are_kept(tmp_path):
    """The best one stays until another is better, and its figures with it."""
    store = CheckpointStore(tmp_path, keep_last=2)
    assert store.latest() is None and store.best() is None
    for step in range(1, 7):
        best = {"fd": 1.0 / step} if step in (1, 2) else False
        store.save(step, {"part": Part({"x": torch.ones(1)})}, {}, best=best)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "best.json",
        "step-0000002",
        "step-0000005",
        "step-0000006",
    ]
    best = store.best()
    assert best is not None and best == (tmp_path / "step-0000002", 2, {"fd": 0.5})
    store.save(7, {"part": Part({})}, {}, best=True)
    best = store.best()
    assert best is not None and best.step == 7 and not (tmp_path / "step-0000002").exists()


def test_steps_are_ordered_as_numbers(tmp_path):
    """Also beyond seven digits; other things in the folder are none of ours."""
    store = CheckpointStore(tmp_path, keep_last=5)
    for step in (9_999_999, 10_000_000, 20):
        store.save(step, {"part": Part({})}, {})
    (tmp_path / "step-notes").mkdir()
    (tmp_path / "step-99999999.txt").write_text("")
    assert store.latest() == tmp_path / "step-10000000"


def test_saving_a_step_again_replaces_it(store):
    """The last word counts; nothing else stays behind."""
    store.save(3, {"part": Part({"x": torch.zeros(2)})}, {"again": True})
    assert store.describe(store.latest()).meta == {"again": True}
    assert sorted(path.name for path in store.folder.iterdir()) == ["step-0000001", "step-0000002", "step-0000003"]


def test_what_a_killed_process_left_is_ignored_and_removed(store):
    """Half-written folders, and a checkpoint that was about to be replaced: that one is still the latest."""
    half = store.folder / ".tmp-step-0000009"
    half.mkdir()
    (half / "part.safetensors").write_bytes(b"half")
    (store.folder / "step-0000003").rename(store.folder / "step-0000003.replaced")
    assert store.latest() == store.folder / "step-0000003.replaced"
    part = Part()
    assert store.load(store.latest(), {"part": part}).step == 3 and part.state["step"] == 3
    store.save(4, {"part": Part({})}, {})
    assert sorted(path.name for path in store.folder.iterdir()) == ["step-0000002", "step-0000003", "step-0000004"]


def _damage(name):
    def cut(path):
        file = path / "part.safetensors"
        file.write_bytes(file.read_bytes()[:-10])

    def flip(path):
        file = path / "part.safetensors"
        data = bytearray(file.read_bytes())
        data[-5] ^= 1
        file.write_bytes(data)

    def edit(path):
        file = path / "state.json"
        file.write_text(file.read_text().replace('"step": 3', '"step": 4'))

    def cut_state(path):
        file = path / "state.json"
        file.write_text(file.read_text()[:-30])

    def lose(path):
        (path / "part.safetensors").unlink()

    def lose_state(path):
        (path / "state.json").unlink()

    return locals()[name]


@pytest.mark.parametrize(
    ("damage", "facts"),
    [
        ("cut", ["part.safetensors", "318 bytes", 328]),
        ("flip", ["part.safetensors", "altered"]),
        ("edit", ["state.json", "altered"]),
        ("cut_state", ["state.json", "read"]),
        ("lose", ["part.safetensors", "missing"]),
        ("lose_state", ["state.json", "read"]),
    ],
)
def test_damage_is_found_before_anything_is_loaded(store, damage, facts):
    """One line: which folder, what is wrong, and that deleting it goes on from the one before."""
    path = store.latest()
    _damage(damage)(path)
    part = Part("untouched")
    with refused(UserError, path, *facts, "delete that folder", "step-0000002") as caught:
        store.load(path, {"part": part})
    assert "\n" not in str(caught.value) and part.state == "untouched"
    first = store.folder / "step-0000001"
    _damage(damage)(first)
    if damage != "edit":
        with refused(UserError, first, *facts, "delete that folder", "the beginning"):
            store.load(first, {"part": part})


def test_another_schema_is_refused(store):
    """Whatever else it holds."""
    path = store.latest()
    (path / "state.json").write_text(json.dumps({"schema": 3, "anything": "else"}))
    with refused(UserError, path, "schema 3", "schemas up to 2", "the version that wrote"):
        store.load(path, {"part": Part()})


def test_parts_that_are_missing_or_do_not_fit_are_named(tmp_path):
    """By the part and by torch's own words on one line."""
    store = CheckpointStore(tmp_path)
    path = store.save(1, {"model": nn.Linear(2, 2)}, {})
    with refused(UserError, path, "missing parts ema", "use the recipe", "another output folder"):
        store.load(path, {"model": nn.Linear(2, 2), "ema": nn.Linear(2, 2)})
    with refused(UserError, path, "missing parts vae", "unexpected parts model", "use the recipe"):
        store.load(path, {"vae": nn.Linear(2, 2)})
    with refused(UserError, path, "'model'", "mismatch for weight", "[2, 2]", "[2, 3]", "use the recipe") as caught:
        store.load(path, {"model": nn.Linear(3, 2)})
    assert "\n" not in str(caught.value)
    with refused(UserError, tmp_path / "step-0000002", "no checkpoint", "there are: step-0000001"):
        store.load(tmp_path / "step-0000002", {})


def test_loaded_state_does_not_hang_on_the_file(store):
    """Removing or cutting the file later must not touch what was loaded from it."""
    path = store.latest()
    part = Part()
    store.load(path, {"part": part})
    (path / "part.safetensors").write_bytes(b"")
    assert part.state["x"].tolist() == [3.0] * 64


def test_a_folder_that_cannot_be_written_is_told_in_words(tmp_path):
    """A file stands where the folder should be."""
    (tmp_path / "file").write_text("")
    with refused(UserError, "step 1", tmp_path / "file" / "checkpoints", "same command again"):
        CheckpointStore(tmp_path / "file" / "checkpoints").save(1, {"part": Part({})}, {})


def test_keeping_none_is_refused(tmp_path):
    """A run without a checkpoint cannot go on."""
    with refused(UserError, "keep_last", 0, "at least 1"):
        CheckpointStore(tmp_path, keep_last=0)


FULL_DISK = """
import resource, sys, torch
from repae.config import UserError
from repae.runtime.checkpoint import CheckpointStore
from torch import nn
store = CheckpointStore(sys.argv[1])
store.save(1, {"model": nn.Linear(10, 10)}, {})
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
try:
    store.save(2, {"small": nn.Linear(10, 10), "model": nn.Linear(100, 100)}, {})
except UserError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_full_disk_leaves_the_checkpoint_before(tmp_path):
    """The system refuses to write on in the middle of a file: one clear line, the one before intact, no rubbish."""
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path)]
    done = subprocess.run(command, env=child_environment(), capture_output=True, text=True, timeout=120, check=False)
    assert_tells(done.stdout + done.stderr, "step 2", "File too large", "intact")
    assert [path.name for path in tmp_path.iterdir()] == ["step-0000001"]
    store = CheckpointStore(tmp_path)
    assert store.load(store.latest(), {"model": nn.Linear(10, 10)}).step == 1


def save_together(folder, bad):
    """On two processes: one good checkpoint, then one into a place that cannot be written."""
    from repae.runtime.distributed import world
    from repae.runtime.parallel import ParallelPlan, parallelise

    torch.manual_seed(world().rank)
    plan = ParallelPlan(torch.device("cpu"))
    module = parallelise(Layers(nn.Linear(2, 2)), plan)
    store = CheckpointStore(folder)
    path = store.save(5, {"model": module}, {"size": world().size})
    latest = store.latest()
    fresh = parallelise(Layers(nn.Linear(2, 2)), plan)
    step = store.load(path, {"model": fresh}).step
    try:
        CheckpointStore(bad).save(1, {"model": module}, {})
        error = ""
    except UserError as caught:
        error = str(caught)
    weights = [parameter.detach().clone() for parameter in fresh.parameters()]
    return {"latest": str(latest), "step": step, "error": error, "weights": weights}


@pytest.mark.slow
def test_two_processes_write_once_and_fail_together(tmp_path):
    """All wait until it is there, names are those of the bare model, and none waits for one that could not write."""
    (tmp_path / "file").write_text("")
    first, second = run_processes(save_together, str(tmp_path / "good"), str(tmp_path / "file" / "bad"))
    assert first["latest"] == second["latest"] == str(tmp_path / "good" / "step-0000005")
    alone = Layers(nn.Linear(2, 2))
    CheckpointStore(tmp_path / "good").load(first["latest"], {"model": alone})
    for result in (first, second):
        assert result["step"] == 5
        assert all(torch.equal(a, b) for a, b in zip(result["weights"], alone.parameters()))
    assert_tells(first["error"], "file/bad", "could not be written")
    assert_tells(second["error"], "the first process")
