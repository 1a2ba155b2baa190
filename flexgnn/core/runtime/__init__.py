"""Running a plan: memory, transfers, steps, training."""
