"""Networks, `(B, C, N)` clouds in. They know no data set."""

from .encoder import PointNetEncoder as PointNetEncoder
from .encoder import PointNetModel as PointNetModel
from .encoder import Transforms as Transforms
from .encoder import critical_points as critical_points
from .encoder import load_model as load_model
from .encoder import pool_chunks as pool_chunks
from .pointnet import PointNetClassifier as PointNetClassifier
from .pretrained import DEFAULTS as DEFAULTS
from .pretrained import MODELS as MODELS
from .pretrained import WEIGHTS as WEIGHTS
from .pretrained import shipped as shipped
from .segmentation import PointNetPartSegmenter as PointNetPartSegmenter
from .segmentation import PointNetSegmenter as PointNetSegmenter
