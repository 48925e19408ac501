"""Whole comparisons: the paper in miniature, and the two stages."""
