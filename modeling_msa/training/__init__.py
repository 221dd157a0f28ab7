"""Training: datasets, collators, recipes, the Trainer, the checkpoints of a run."""
