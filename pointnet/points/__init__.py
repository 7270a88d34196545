"""Points: one file to points in one frame."""
