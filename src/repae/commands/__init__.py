"""What each command does, as Python: one file a command."""
