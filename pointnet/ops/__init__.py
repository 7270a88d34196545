"""Functions on tensors, each first as its definition."""

from . import edges as edges
from . import kernels as kernels
from . import mlp as mlp
from . import neighbours as neighbours

for name in kernels.NAMES:
    kernels.offer(name)
