"""A run on disk: its folder, opening it again, its players made ready, the preflight."""
