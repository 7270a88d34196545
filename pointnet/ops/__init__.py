"""Functions on tensors, each first as its definition."""

import os

if os.environ.get("POINTNET_KERNELS"):
    from . import triton as triton
