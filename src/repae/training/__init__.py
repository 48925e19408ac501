"""Training: one step per method, one loop for all of them."""
