"""The tests. Programs that they start import this package, so it imports nothing."""
