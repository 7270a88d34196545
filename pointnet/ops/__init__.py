"""Functions on tensors, each first as its definition."""
