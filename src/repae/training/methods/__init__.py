"""The methods of training: for each its configuration and its step."""
