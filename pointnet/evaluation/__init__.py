"""Evaluation: the three tasks, their metrics, and `evaluate`. It imports no training."""
