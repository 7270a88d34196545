"""The commands of `python -m pointnet`, one file each. Importing them sets how PyTorch's threads wait."""

import os

# Before torch is loaded, as OpenMP reads it then. Threads that spin while they wait are slow beside another busy
# process, and threads that sleep at once are slow in small steps: these spin briefly, then sleep (docs/benchmarks.md).
# A user's own choice stays.
if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ):
    os.environ.update(OMP_WAIT_POLICY="PASSIVE", GOMP_SPINCOUNT="10000")
