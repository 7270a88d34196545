"""Functions on tensors, each first as its definition."""

# These define the operators that kernels are then offered to.
from . import edges as edges
from . import kernels as kernels
from . import mlp as mlp
from . import neighbours as neighbours

kernels.offer_all()
