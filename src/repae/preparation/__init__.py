"""What is computed from the data before a training starts."""
