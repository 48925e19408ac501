"""Whole runs: the named recipes, and what carries one out."""
