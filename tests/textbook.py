"""PointNet's classifier as everybody writes it: the independent oracle, and the baseline of the benchmarks.

It imports nothing of the package. Its parameters stand in the same order as the package's, so that one state dict
fits both, entry by entry.
"""

import torch
from torch import Tensor, nn


def shared_layer(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv1d(in_channels, out_channels, 1, bias=False), nn.BatchNorm1d(out_channels), nn.ReLU())


def dense_layer(in_channels: int, out_channels: int, dropout: float = 0.0) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(in_channels, out_channels, bias=False),
        nn.BatchNorm1d(out_channels),
        nn.ReLU(),
        nn.Dropout(dropout),
    )


class TextbookTNet(nn.Module):
    def __init__(self, dim: int, in_channels: int):
        super().__init__()
        self.dim = dim
        self.mlp = nn.Sequential(shared_layer(in_channels, 64), shared_layer(64, 128), shared_layer(128, 1024))
        self.fc = nn.Sequential(dense_layer(1024, 512), dense_layer(512, 256))
        self.matrix = nn.Linear(256, dim * dim)
        nn.init.zeros_(self.matrix.weight)
        nn.init.eye_(self.matrix.bias.data.view(dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        feature = torch.max(self.mlp(x), 2)[0]
        return self.matrix(self.fc(feature)).view(-1, self.dim, self.dim)


class TextbookPointNet(nn.Module):
    def __init__(self, num_classes: int, in_channels: int = 3):
        super().__init__()
        self.input_tnet = TextbookTNet(3, in_channels)
        self.feature_tnet = TextbookTNet(64, 64)
        self.mlp1 = nn.Sequential(shared_layer(in_channels, 64), shared_layer(64, 64))
        self.mlp2 = nn.Sequential(shared_layer(64, 64), shared_layer(64, 128), shared_layer(128, 1024))
        self.head = nn.Sequential(dense_layer(1024, 512, 0.3), dense_layer(512, 256, 0.3))
        self.logits = nn.Linear(256, num_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        turn = self.input_tnet(x)
        xyz = torch.bmm(x[:, :3].transpose(2, 1), turn).transpose(2, 1)
        x = self.mlp1(torch.cat([xyz, x[:, 3:]], 1))
        align = self.feature_tnet(x)
        x = torch.bmm(x.transpose(2, 1), align).transpose(2, 1)
        feature = torch.max(self.mlp2(x), 2)[0]
        return self.logits(self.head(feature)), turn, align
