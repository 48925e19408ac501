"""Choosing where to compute."""

import pytest
import torch
from errors import refused

from repae.config import UserError
from repae.runtime.device import pick_device, set_threads

RANK_1_OF_2 = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
TASK_1_OF_2 = {"SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_LOCALID": "1"}


@pytest.fixture
def gpus(monkeypatch):
    """Pretends that so many GPUs are visible; picking a device computes nothing on it."""

    def pretend(count):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return pretend


def test_auto_prefers_cuda_then_mps_then_cpu(gpus, monkeypatch):
    """What a stranger's machine has is used without asking."""
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    gpus(0)
    assert pick_device() == torch.device("cpu")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device() == torch.device("mps")
    gpus(1)
    assert pick_device() == torch.device("cuda", 0)


def test_each_process_of_a_host_has_its_own_gpu(gpus, monkeypatch):
    """The index is the local rank, unless Slurm shows each task one GPU only."""
    gpus(2)
    for name, value in RANK_1_OF_2.items():
        monkeypatch.setenv(name, value)
    assert pick_device("cuda") == torch.device("cuda", 1)
    with refused(UserError, "'cuda:0'", "2 processes", "use 'cuda'"):
        pick_device("cuda:0")
    gpus(1)
    with refused(UserError, "process 1", "1 visible", "at most 1"):
        pick_device("cuda")
    for name in RANK_1_OF_2:
        monkeypatch.delenv(name)
    for name, value in TASK_1_OF_2.items():
        monkeypatch.setenv(name, value)
    assert pick_device("cuda") == torch.device("cuda", 0)


def test_absent_and_unknown_devices_are_refused_in_words(gpus):
    """The message names what was asked for and what there is."""
    gpus(0)
    with refused(UserError, "'cuda'", "found: cpu", "'auto'"):
        pick_device("cuda")
    with refused(UserError, "'tpu'", "auto", "cpu", "mps", "cuda"):
        pick_device("tpu")
    gpus(2)
    assert pick_device("cuda:1") == torch.device("cuda", 1)
    with refused(UserError, "'cuda:2'", "cuda:0 to cuda:1"):
        pick_device("cuda:2")


def test_threads():
    """A number is set, 0 leaves torch's choice, anything below is refused."""
    before = torch.get_num_threads()
    try:
        set_threads(1)
        assert torch.get_num_threads() == 1
        set_threads(0)
        assert torch.get_num_threads() == 1
        with refused(UserError, "threads", -1, "from 1 on", "0 to use all"):
            set_threads(-1)
    finally:
        torch.set_num_threads(before)
