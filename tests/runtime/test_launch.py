"""Reading the launcher from the environment."""

import pytest
from errors import refused

from repae.config import UserError
from repae.runtime.launch import read_launch

TORCHRUN = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "host", "MASTER_PORT": "29500"}
SLURM = {
    "SLURM_PROCID": "5",
    "SLURM_NTASKS": "8",
    "SLURM_LOCALID": "1",
    "SLURM_JOB_ID": "31",
    "SLURM_STEP_NUM_TASKS": "8",
}


def test_nothing_was_started():
    """No launcher, no distributed run; an address alone, which many clusters set everywhere, is none either."""
    assert read_launch({}) is None
    assert read_launch({"MASTER_ADDR": "host", "MASTER_PORT": "1", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "1"}) is None


def test_torchrun():
    """The five variables that torchrun and accelerate set."""
    assert read_launch(TORCHRUN) == (1, 4, 1, "host", 29500, False)


def test_one_process_needs_no_address():
    """A world of one never meets anybody."""
    launch = read_launch({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"})
    assert launch is not None and launch.size == 1


@pytest.mark.parametrize("missing", TORCHRUN)
def test_half_of_torchrun_is_refused(missing):
    """A missing variable is named, with what to do."""
    half = {name: value for name, value in TORCHRUN.items() if name != missing}
    with refused(UserError, f"missing {missing}", "start with `torchrun`"):
        read_launch(half)


def test_half_of_slurm_is_refused():
    """A task number without the number of tasks."""
    with refused(UserError, "set SLURM_PROCID, SLURM_LOCALID", "missing SLURM_NTASKS", "`srun`"):
        read_launch({"SLURM_PROCID": "0", "SLURM_LOCALID": "0"})


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("node[003-010,012],other1", "node003"),
        ("alpha,beta", "alpha"),
        ("rack[1-2]n[07,09]-ib,x", "rack1n07-ib"),
        ("single", "single"),
    ],
)
def test_slurm_meets_at_the_first_host(nodes, host):
    """The compressed list of hosts is read without calling Slurm; the port follows from the job."""
    assert read_launch({**SLURM, "SLURM_JOB_NODELIST": nodes}) == (5, 8, 1, host, 15031, True)


def test_slurm_on_one_node_stays_there():
    """Names of compute nodes need not resolve to be able to meet on one."""
    launch = read_launch({**SLURM, "SLURM_NNODES": "1", "SLURM_JOB_NODELIST": "unresolvable"})
    assert launch is not None and launch.address == "127.0.0.1"


def test_slurm_takes_a_given_address():
    """What the job script sets wins over what would be derived."""
    launch = read_launch({**SLURM, "MASTER_ADDR": "there", "MASTER_PORT": "77", "SLURM_JOB_NODELIST": "here"})
    assert launch is not None and (launch.address, launch.port) == ("there", 77)


def test_torchrun_inside_slurm_wins():
    """A job script that starts torchrun on every node has both sets of variables."""
    launch = read_launch({**SLURM, **TORCHRUN})
    assert launch is not None and launch.size == 4 and not launch.by_slurm


def test_batch_script_without_srun_is_refused():
    """Seven tasks that nobody started would be waited for in vain."""
    with refused(UserError, "SLURM_NTASKS is 8", "`srun repae ...`", "unset SLURM_PROCID"):
        read_launch({name: value for name, value in SLURM.items() if name != "SLURM_STEP_NUM_TASKS"})


@pytest.mark.parametrize(("name", "value"), [("RANK", "one"), ("WORLD_SIZE", "-2"), ("MASTER_PORT", "http")])
def test_what_is_no_number_is_refused(name, value):
    """The variable and its value are in the message."""
    with refused(UserError, name, f"'{value}'", "whole number from 0"):
        read_launch({**TORCHRUN, name: value})


def test_rank_beyond_the_world_is_refused():
    """Ranks count from 0."""
    with refused(UserError, "RANK is 4", "WORLD_SIZE is 4", "below the number"):
        read_launch({**TORCHRUN, "RANK": "4"})
