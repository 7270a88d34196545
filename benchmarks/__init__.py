"""Measurements: ratios taken side by side in one run, after a check that both sides compute the same."""
