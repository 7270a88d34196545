"""PointNet++, DGCNN and PointNeXt by the names of their PyTorch forms, written down anew on the textbook's sampling."""

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


def block(
    convolution: type[nn.Module], norm: type[nn.Module], c: int, d: int, activation: bool = True
) -> nn.Sequential:
    """OpenPoints' blocks: a linear map without bias, a norm, and a ReLU."""
    size = () if convolution is nn.Linear else (1,)
    return nn.Sequential(convolution(c, d, *size, bias=False), norm(d), *([nn.ReLU()] if activation else []))


class NextStage(nn.Module):
    """OpenPoints' `SetAbstraction` of two layers with a residual sum; without a radius all points are one group."""

    def __init__(self, c: int, d: int, radius: float | None = None, most: int = 0, normalize_dp: bool = True):
        super().__init__()
        self.radius, self.most, self.normalize_dp = radius, most, normalize_dp
        if radius is not None:
            self.skipconv = nn.Sequential(nn.Conv1d(c, d, 1))
        layers = [(3 + c, c, True), (c, d, False)] if radius is not None else [(3 + c, d, True), (d, d, True)]
        self.convs = nn.Sequential(*(block(nn.Conv2d, nn.BatchNorm2d, *each) for each in layers))

    def forward(self, pf: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        p, f = pf
        if self.radius is None:
            return p, self.convs(torch.cat([p.mT, f], 1).unsqueeze(2)).amax(3)
        chosen = farthest(p, p.shape[1] // 2)
        new = taken(p, chosen)
        index = balls(self.radius, self.most, p, new)
        dp = taken(p, index) - new.unsqueeze(2)
        dp = dp / self.radius if self.normalize_dp else dp
        groups = torch.cat([dp, taken(f.mT, index)], 3).permute(0, 3, 1, 2)
        return new, F.relu(self.convs(groups).amax(3) + self.skipconv(taken(f.mT, chosen).mT))


class NextStem(nn.Module):
    def __init__(self, c: int, d: int):
        super().__init__()
        self.convs = nn.Sequential(nn.Sequential(nn.Conv1d(c, d, 1)))

    def forward(self, pf: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return pf[0], self.convs(pf[1])


class PortPointNext(nn.Module):
    """OpenPoints' `BaseCls` of a `PointNextEncoder`, pointnext-s.yaml, of levels (radius, K); logits."""

    def __init__(self, levels: list, k: int = 40, channels: int = 3, width: int = 32, normalize_dp: bool = True):
        super().__init__()
        stages: list[nn.Module] = [NextStem(channels, width)]
        for i, (radius, most) in enumerate(levels):
            stages.append(NextStage(width * 2**i, width * 2 ** (i + 1), radius, most, normalize_dp))
        width *= 2 ** len(levels)
        stages.append(NextStage(width, width))
        self.encoder, self.prediction = nn.Module(), nn.Module()
        self.encoder.encoder = nn.Sequential(*(nn.Sequential(stage) for stage in stages))
        head = [block(nn.Linear, nn.BatchNorm1d, *each) for each in ((width, 512), (512, 256))]
        self.prediction.head = nn.Sequential(
            head[0], nn.Dropout(0.5), head[1], nn.Dropout(0.5), nn.Sequential(nn.Linear(256, k))
        )

    def forward(self, x: Tensor) -> Tensor:
        _, feature = self.encoder.encoder((x[:, :3].mT, x))
        return self.prediction.head(feature.squeeze(2))
