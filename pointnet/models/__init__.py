"""Networks, `(B, C, N)` clouds in. They know no data set."""

from .chunks import critical_points as critical_points
from .chunks import has_critical_points as has_critical_points
from .chunks import pool_chunks as pool_chunks
from .dgcnn import DGCNNClassifier as DGCNNClassifier
from .dgcnn import DGCNNPartSegmenter as DGCNNPartSegmenter
from .edgenet import EdgeNetClassifier as EdgeNetClassifier
from .encoder import PointNetEmbedder as PointNetEmbedder
from .encoder import PointNetEncoder as PointNetEncoder
from .encoder import PointNetModel as PointNetModel
from .encoder import Transforms as Transforms
from .pointnet import PointNetClassifier as PointNetClassifier
from .pointnet2 import PointNet2Classifier as PointNet2Classifier
from .pointnet2_segmentation import PointNet2PartSegmenter as PointNet2PartSegmenter
from .pointnet2_segmentation import PointNet2Segmenter as PointNet2Segmenter
from .pointnext import PointNextClassifier as PointNextClassifier
from .pretrained import MODELS as MODELS
from .pretrained import Pretrained as Pretrained
from .segmentation import PartLabels as PartLabels
from .segmentation import PointNetPartSegmenter as PointNetPartSegmenter
from .segmentation import PointNetSegmenter as PointNetSegmenter
from .weights import WEIGHTS as WEIGHTS
from .weights import shipped as shipped
from .zoo import DEFAULTS as DEFAULTS
from .zoo import SceneSegmenter as SceneSegmenter
from .zoo import load_model as load_model
