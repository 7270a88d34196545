"""The commands of `python -m pointnet`, one file each."""
