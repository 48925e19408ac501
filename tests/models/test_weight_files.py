"""A file of weights can run nothing, whatever its format; what it may hold comes back as it was."""

from __future__ import annotations

import argparse
import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from errors import refused
from safetensors.torch import save_file

from repae.config import UserError
from repae.models.weight_files import is_state, read_file, read_weights


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (open, (str(self.mark), "w"))


def write(file: Path, held: object, how: str) -> None:
    if how == "pickle":
        file.write_bytes(pickle.dumps(held, protocol=2))
    else:
        torch.save(held, file, _use_new_zipfile_serialization=how == "zip")


@pytest.mark.parametrize("how", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize("hidden", ["beside the weights", "inside the Namespace", "alone"])
def test_a_malicious_pickle_is_refused_and_does_not_run(tmp_path: Path, how: str, hidden: str) -> None:
    """One line that names what was asked for; the payload, which does run in an ordinary unpickler, did not."""
    mark, file = tmp_path / "mark", tmp_path / "weights.pt"
    payload = Payload(mark)
    # Outside torch's own formats a tensor pickles itself through a function that is refused as well.
    held = {"model": {} if how == "pickle" else {"w": torch.zeros(2)}, "args": argparse.Namespace(seed=0)}
    if hidden == "beside the weights":
        held["steps"] = payload
    elif hidden == "inside the Namespace":
        held["args"].seed = payload
    write(file, payload if hidden == "alone" else held, how)
    with refused(UserError, file, "'io.open'", "could run anything", ".safetensors"):
        read_file(file)
    assert not mark.exists()
    pickle.loads(pickle.dumps(payload))
    assert mark.exists(), "this payload could not have shown anything"


@pytest.mark.parametrize("legacy", [False, True])
def test_what_a_checkpoint_holds_comes_back(tmp_path: Path, legacy: bool) -> None:
    """Tensors of several types, containers, plain values, a Namespace, in both formats of torch."""
    held = {
        "model": OrderedDict(w=torch.randn(2, 3), n=torch.tensor(3), half=torch.ones(2, dtype=torch.bfloat16)),
        "opt": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"betas": (0.9, 0.999), "lr": 1e-4}]},
        "args": argparse.Namespace(seed=0, name="x", ratio=0.5, nothing=None, flag=True, many=[1, 2]),
        "steps": 7,
    }
    write(tmp_path / "a.pt", held, "legacy" if legacy else "zip")
    read = read_file(tmp_path / "a.pt")
    assert read["args"] == held["args"] and read["steps"] == 7 and read["opt"] == held["opt"]
    assert all(torch.equal(read["model"][name], value) for name, value in held["model"].items())


def test_safetensors_and_what_is_a_state(tmp_path: Path) -> None:
    """The format without pickles is read too; a state dict is tensors and nothing else."""
    save_file({"a": torch.arange(3)}, tmp_path / "a.safetensors")
    assert is_state(read_file(tmp_path / "a.safetensors"))
    assert not is_state({}) and not is_state({"a": torch.zeros(1), "b": 1}) and not is_state([torch.zeros(1)])


def test_damaged_and_missing_files_are_named(tmp_path: Path) -> None:
    """In words, never by a traceback: no file, an empty one, a truncated one, one of something else."""
    with refused(UserError, tmp_path / "none.pt", "put it there"):
        read_file(tmp_path / "none.pt")
    torch.save({"a": torch.randn(1000)}, tmp_path / "whole.pt")
    whole = (tmp_path / "whole.pt").read_bytes()
    for name, data in {
        "empty.pt": b"",
        "cut.pt": whole[:-700],
        "text.pt": b"hello",
        "cut.safetensors": b"1234",
    }.items():
        (tmp_path / name).write_bytes(data)
        with refused(UserError, tmp_path / name, "cannot be read", "fetch a complete copy"):
            read_file(tmp_path / name)
    torch.save(torch.zeros(2), tmp_path / "one.pt")
    with refused(UserError, tmp_path / "one.pt", "Tensor", "weights by name", "give a state dict"):
        read_file(tmp_path / "one.pt")


def test_the_weights_of_one_network(tmp_path: Path) -> None:
    """Out of the wrappings of training scripts; a checkpoint of several, or of more than tensors, is not one."""
    state = {"a": torch.arange(3), "b": torch.zeros(2)}
    for number, held in enumerate((state, {"state_dict": state, "epoch": 3}, {"state_dict": {"model": state}})):
        torch.save(held, tmp_path / f"{number}.pt")
        assert read_weights(tmp_path / f"{number}.pt", "vae").keys() == state.keys()
    torch.save({"teacher": state}, tmp_path / "teacher.pt")
    assert read_weights(tmp_path / "teacher.pt", "dino", ("teacher",)).keys() == state.keys()
    with refused(UserError, "vae", tmp_path / "teacher.pt", "tensors of one network"):
        read_weights(tmp_path / "teacher.pt", "vae")
    with refused(UserError, "vae", tmp_path / "none.pt", "put it there"):
        read_weights(tmp_path / "none.pt", "vae")
