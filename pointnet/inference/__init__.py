"""Answers of trained models: classes, labels of points, whole rooms, exported files. Nothing here needs training."""
