from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from errors import refused
from processes import child_environment

from repae.config import UserError
from repae.runtime.background import AHEAD, background, foreground

pytestmark = pytest.mark.slow

WRITE = "import os, time; time.sleep(0.05); print({word}, end=' ', file=open({path!r}, 'a'))"


def test_calls_run_in_the_background_in_order_and_errors_come_back(tmp_path):
    """One process, not this one; the caller goes on meanwhile but never more than a few calls ahead."""
    path = tmp_path / "words"
    with background() as submit:
        submit(exec, WRITE.format(word="os.getpid()", path=str(path)))
        for count, word in enumerate("abcdef", 2):
            submit(exec, WRITE.format(word=repr(word), path=str(path)))
            written = path.read_text().split() if path.exists() else []
            assert count - len(written) <= AHEAD
    pid, *words = path.read_text().split()
    assert words == list("abcdef") and int(pid) != os.getpid()
    with refused(OSError, "No space left"), background() as submit:
        submit(exec, "raise OSError(28, 'No space left on device')")
    with foreground() as submit:
        submit(exec, WRITE.format(word="os.getpid()", path=str(path)))
    assert path.read_text().split()[-1] == str(os.getpid())


def test_a_background_process_that_dies_is_named(tmp_path):
    """The kernel may end it where memory is scarce."""
    with refused(UserError, "process that writes", "memory", "same command again"), background() as submit:
        submit(exec, "import os; os._exit(9)")


ORPHAN = """
import os, signal, sys, time
from repae.runtime.background import background
if __name__ == "__main__":
    with background() as submit:
        submit(exec, "import os; print(os.getpid(), file=open('pid.part', 'w')); os.rename('pid.part', 'pid')")
        submit(time.sleep, 1)
        sys.stdin.read(1)
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for a process in /proc")
def test_the_background_process_ends_with_a_killed_parent(tmp_path):
    """SIGKILL leaves no orphan that holds memory and a folder."""
    script = tmp_path / "parent.py"
    script.write_text(ORPHAN)
    parent = subprocess.Popen(
        [sys.executable, script], stdin=subprocess.PIPE, env=child_environment(), text=True, cwd=tmp_path
    )
    while not (tmp_path / "pid").exists():
        time.sleep(0.02)
    pid = int((tmp_path / "pid").read_text())
    assert Path(f"/proc/{pid}").is_dir()
    parent.communicate("x")
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").is_dir() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(f"/proc/{pid}").is_dir()


def test_a_background_process_loads_no_torch(tmp_path):
    """It begins at once and takes little memory beside each of eight processes."""
    with background() as submit:
        submit(exec, "import sys, repae.runtime.image_files; assert 'torch' not in sys.modules, 'torch was loaded'")
