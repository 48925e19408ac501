"""Transformers that predict velocities."""
