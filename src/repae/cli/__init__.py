"""The command line: reads the arguments, calls one command, and turns errors into one line and an exit status.

Exit status: 0 done; 2 something asked for is not possible, in one line that begins with ``error:``; 130 stopped by
Ctrl-C or SIGTERM with a checkpoint written, so that what was chained after the command does not start.

A command is a function and an entry in its file's ``COMMANDS``. Nothing heavy is imported but inside a command, so that
help comes at once.
"""

from repae.cli.arguments import Arguments, Command
from repae.cli.program import COMMANDS, main

__all__ = ["COMMANDS", "Arguments", "Command", "main"]
