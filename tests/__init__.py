"""The tests. Without a GPU the kernels in Triton are interpreted, which is decided before anything imports Triton."""

import os

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
