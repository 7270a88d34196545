"""Evaluation: what a network is asked to do, and how good it is at that. It knows no training."""
