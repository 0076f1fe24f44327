"""What the callback, explain and evaluate share: the model, its statistics and checkpoints, cases, the map store."""
