"""Losses: functions of tensors, each returning one float32 scalar."""
