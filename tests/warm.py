"""Processes of `repae` that need not import everything again: one has done it, and only forks from then on.

A test that kills and starts again pays for starting; most of that is imports. Every child is a process of its own all
the same, with the state that a fresh interpreter has before its first command, and ends as an interpreter ends.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path

MODULES = ("repae.commands.train", "repae.cli.program", "repae.report.build", "scipy.stats", "torch._dynamo")
"""No scikit-learn: it imports pyarrow, whose allocator starts a thread."""


class Child:
    """What `subprocess.Popen` is to a program, as far as tests ask."""

    def __init__(self, warm: Warm, pid: int, files: tuple[Path, Path]) -> None:
        self.warm, self.pid, self.files = warm, pid, files
        self.returncode: int | None = None

    def poll(self, timeout: float = 0) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        if self.returncode is None and select.select([self.warm.process.stdout], [], [], timeout)[0]:
            self.returncode = os.waitstatus_to_exitcode(int(self.warm.answer()))
        return self.returncode

    def send_signal(self, number: int) -> None:
        """To this process."""
        assert self.poll() is None
        os.kill(self.pid, number)

    def communicate(self, timeout: float) -> tuple[str, str]:
        """What it said, once it has ended."""
        deadline = time.monotonic() + timeout
        while self.poll(timeout=0.1) is None:
            if time.monotonic() > deadline:
                os.kill(self.pid, 9)
                raise AssertionError(f"no end after {timeout} s: {self.files[1].read_text()}")
        out, errors = (file.read_text(encoding="utf-8") for file in self.files)
        return out, errors


class Warm:
    """Forks one child at a time."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.started = folder, 0
        command = [sys.executable, str(Path(__file__)), *MODULES]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, bufsize=0)
        assert self.answer() == "ready"

    def answer(self) -> str:
        """The next line of the process that forks, and not a byte more: `select` must see the one after."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().strip()

    def start(self, code: str, argv: list[str]) -> Child:
        """``repae`` with these words; ``code`` runs beforehand."""
        self.started += 1
        files = (self.folder / f"{self.started}.out", self.folder / f"{self.started}.err")
        assert self.process.stdin is not None
        self.process.stdin.write(f"{json.dumps([code, argv, [str(file) for file in files]])}\n".encode())
        return Child(self, int(self.answer()), files)

    def close(self) -> None:
        """Ends it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)


def fork() -> tuple[str, list[str]] | None:
    """Serves until the other side hangs up (None), or, in a child, returns what that child shall do."""
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "a fork takes one thread along"
    print("ready", flush=True)
    while line := sys.stdin.readline():
        code, argv, files = json.loads(line)
        pid = os.fork()
        if pid == 0:
            for number, name in zip((0, 1, 2), (os.devnull, *files)):
                target = os.open(name, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
                os.dup2(target, number)
                os.close(target)
            return code, argv
        print(pid, flush=True)
        print(os.waitpid(pid, 0)[1], flush=True)
    return None


if __name__ == "__main__":
    for module in sys.argv[1:]:
        __import__(module)
    job = fork()
    if job is not None:
        exec(job[0], {"__name__": "prepared"})
        from repae.cli import main

        sys.exit(main(job[1]))
