"""The commands of `python -m pointnet`, one file each. Importing them sets how PyTorch's threads wait."""

import os

# Before torch is loaded, as OpenMP reads it then. Threads that spin while they wait are slow beside another busy
# process: a training step took 17.9 s, and 1.3 s where they sleep. A user's own choice stays.
if "GOMP_SPINCOUNT" not in os.environ:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
