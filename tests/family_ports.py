"""PointNet++ and DGCNN by the names of their PyTorch forms, written down anew on the textbook's sampling and graphs."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.textbook import balls, edges_of, farthest, taken


class PortAbstraction(nn.Module):
    """`PointNetSetAbstraction`: coordinates first; without centres all points are one group."""

    def __init__(self, channels: int, count: int | None = None, scales: tuple = (), widths: list[int] = ()):
        super().__init__()
        self.count, self.scales = count, scales
        sizes = [channels + 3, *(widths or scales[0][2])]
        self.mlp_convs = nn.ModuleList(nn.Conv2d(c, d, 1) for c, d in pairwise(sizes))
        self.mlp_bns = nn.ModuleList(nn.BatchNorm2d(d) for d in sizes[1:])

    def forward(self, xyz: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        if self.count is None:
            centres, groups = xyz[:, :1], torch.cat([xyz, points], 2).unsqueeze(1)
        else:
            centres = taken(xyz, farthest(xyz, self.count))
            index = balls(*self.scales[0][:2], xyz, centres)
            groups = torch.cat([taken(xyz, index) - centres.unsqueeze(2), taken(points, index)], 3)
        x = groups.permute(0, 3, 2, 1)
        for conv, bn in zip(self.mlp_convs, self.mlp_bns, strict=True):
            x = F.relu(bn(conv(x)))
        return centres, torch.max(x, 2)[0].transpose(1, 2)


class PortAbstractionMsg(nn.Module):
    """`PointNetSetAbstractionMsg`: features first."""

    def __init__(self, channels: int, count: int, scales: tuple):
        super().__init__()
        self.count, self.scales = count, scales
        sizes = [[channels + 3, *widths] for _, _, widths in scales]
        pairs = [list(pairwise(each)) for each in sizes]
        self.conv_blocks = nn.ModuleList(nn.ModuleList(nn.Conv2d(c, d, 1) for c, d in each) for each in pairs)
        self.bn_blocks = nn.ModuleList(nn.ModuleList(nn.BatchNorm2d(d) for _, d in each) for each in pairs)

    def forward(self, xyz: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        centres, found = taken(xyz, farthest(xyz, self.count)), []
        for (radius, most, _), convs, bns in zip(self.scales, self.conv_blocks, self.bn_blocks, strict=True):
            index = balls(radius, most, xyz, centres)
            x = torch.cat([taken(points, index), taken(xyz, index) - centres.unsqueeze(2)], 3).permute(0, 3, 2, 1)
            for conv, bn in zip(convs, bns, strict=True):
                x = F.relu(bn(conv(x)))
            found.append(torch.max(x, 2)[0])
        return centres, torch.cat(found, 1).transpose(1, 2)


class PortPointNet2(nn.Module):
    """yanx27's pointnet2_cls_ssg and pointnet2_cls_msg, of levels (centres, [(radius, K, widths), ...])."""

    def __init__(self, levels: list, k: int = 40, channels: int = 3):
        super().__init__()
        layer = PortAbstraction if len(levels[0][1]) == 1 else PortAbstractionMsg
        self.sa1 = layer(channels - 3, *levels[0])
        self.sa2 = layer(sum(widths[-1] for _, _, widths in levels[0][1]), *levels[1])
        self.sa3 = PortAbstraction(sum(widths[-1] for _, _, widths in levels[1][1]), widths=[256, 512, 1024])
        self.fc1, self.bn1 = nn.Linear(1024, 512), nn.BatchNorm1d(512)
        self.fc2, self.bn2 = nn.Linear(512, 256), nn.BatchNorm1d(256)
        self.fc3 = nn.Linear(256, k)

    def forward(self, x: Tensor) -> Tensor:
        xyz, points = x[:, :3].transpose(1, 2), x[:, 3:].transpose(1, 2)
        for layer in (self.sa1, self.sa2, self.sa3):
            xyz, points = layer(xyz, points)
        x = F.relu(self.bn1(self.fc1(points.flatten(1))))
        return F.log_softmax(self.fc3(F.relu(self.bn2(self.fc2(x)))), 1)


class PortDGCNN(nn.Module):
    """The DGCNN of WangYueFt/dgcnn and the DGCNN_cls of AnTao97/dgcnn.pytorch; logits."""

    def __init__(self, k: int = 40, channels: int = 3, neighbours: int = 20):
        super().__init__()
        self.neighbours = neighbours
        for i, (c, d) in enumerate([(2 * channels, 64), (128, 64), (128, 128), (256, 256)], 1):
            self.add_module(f"bn{i}", nn.BatchNorm2d(d))
            conv = nn.Conv2d(c, d, 1, bias=False)
            self.add_module(f"conv{i}", nn.Sequential(conv, getattr(self, f"bn{i}"), nn.LeakyReLU(0.2)))
        self.bn5 = nn.BatchNorm1d(1024)
        self.conv5 = nn.Sequential(nn.Conv1d(512, 1024, 1, bias=False), self.bn5, nn.LeakyReLU(0.2))
        self.linear1, self.bn6 = nn.Linear(2048, 512, bias=False), nn.BatchNorm1d(512)
        self.linear2, self.bn7 = nn.Linear(512, 256), nn.BatchNorm1d(256)
        self.linear3 = nn.Linear(256, k)

    def forward(self, x: Tensor) -> Tensor:
        found = []
        for i in range(1, 5):
            centre, edge = edges_of(x, self.neighbours).chunk(2, 1)
            x = torch.max(getattr(self, f"conv{i}")(torch.cat([edge, centre], 1)), 3)[0]
            found.append(x)
        x = self.conv5(torch.cat(found, 1))
        x = torch.cat([torch.max(x, 2)[0], torch.mean(x, 2)], 1)
        x = F.leaky_relu(self.bn6(self.linear1(x)), 0.2)
        return self.linear3(F.leaky_relu(self.bn7(self.linear2(x)), 0.2))
