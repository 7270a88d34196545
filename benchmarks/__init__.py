"""Benchmarks: ratios of two sides, timed in turn in one run, after a check that both compute the same."""
