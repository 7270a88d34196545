"""Faults of every kind, at full counts: `python -m benchmarks.faults` makes them and writes docs/reliability.md."""
