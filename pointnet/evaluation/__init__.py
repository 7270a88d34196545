"""Evaluation: the three tasks, their metrics, and `evaluate`. It knows no training."""
