"""What a run needs and no algorithm sees: device, precision, processes, seeds, optimisers, averages, checkpoints."""
