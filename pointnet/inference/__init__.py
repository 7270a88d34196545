"""Using and looking: what comes after training. Nothing here is needed to train a model."""
