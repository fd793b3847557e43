"""Training: one candidate, several in lock-step, and resuming."""
