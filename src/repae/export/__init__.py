"""Weights out and in: the reference's files, diffusers folders and their cards, the hub, and what a file holds."""
