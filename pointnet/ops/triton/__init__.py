"""The operators' kernels in Triton, which are loaded when the first of them runs (`ops.kernels`)."""

from pointnet.ops.kernels import KERNELS, Kernel
from pointnet.ops.mlp import fits

from . import edges, mlp, pooled, sampling

KERNELS |= {
    "mlp_max": Kernel(mlp.mlp_max, fits),
    "extremes": Kernel(pooled.extremes, pooled.fits),
    "edge_extremes": Kernel(edges.edge_extremes, edges.fits),
    "edge_extremes_backward": Kernel(edges.edge_extremes_backward, edges.fits_backward),
    "edge_moments": Kernel(edges.edge_moments, edges.fits_moments),
    "edge_moments_backward": Kernel(edges.edge_moments_backward, edges.fits_moments_backward),
    "lowest": Kernel(sampling.lowest, sampling.fits_lowest),
    "farthest_point_sampling": Kernel(sampling.farthest_point_sampling, sampling.fits),
}
