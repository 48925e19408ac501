"""Weights to the world and back: the reference's files, diffusers folders, model cards, the hub, and what a file holds."""
