"""The operators' kernels in Triton. Importing this lets the operators use them (`ops.kernels`)."""

import importlib.util

from pointnet.extras import MissingExtraError

if importlib.util.find_spec("triton") is None:
    raise MissingExtraError("POINTNET_KERNELS=triton", "triton", "triton")
from . import edges as edges
from . import mlp as mlp
from . import pooled as pooled
from . import sampling as sampling
