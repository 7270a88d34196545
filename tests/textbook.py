"""PointNet and PointNet++ as everybody writes them: the independent oracle, and the baseline of the benchmarks.

It imports nothing of the package. Its parameters stand in the same order as the package's, so that one state dict
fits both, entry by entry.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def shared_layer(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv1d(in_channels, out_channels, 1, bias=False), nn.BatchNorm1d(out_channels), nn.ReLU())


def dense_layer(in_channels: int, out_channels: int, dropout: float = 0.0) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(in_channels, out_channels, bias=False), nn.BatchNorm1d(out_channels), nn.ReLU(), nn.Dropout(dropout)
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

    def features(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of each point, aligned, and of each cloud; and the matrices of the T-Nets."""
        turn = self.input_tnet(x)
        xyz = torch.bmm(x[:, :3].transpose(2, 1), turn).transpose(2, 1)
        x = self.mlp1(torch.cat([xyz, x[:, 3:]], 1))
        align = self.feature_tnet(x)
        x = torch.bmm(x.transpose(2, 1), align).transpose(2, 1)
        return x, torch.max(self.mlp2(x), 2)[0], turn, align

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        _, feature, turn, align = self.features(x)
        return self.logits(self.head(feature)), turn, align


def share_weights(model: nn.Module, textbook: nn.Module) -> None:
    """Gives the textbook's network the weights of the package's, whose kernels may have fewer dimensions of size 1."""
    pairs = zip(textbook.state_dict().items(), model.state_dict().values(), strict=True)
    textbook.load_state_dict({name: given.view_as(own) for (name, own), given in pairs})


def with_state_of(model: nn.Module, textbook: nn.Module) -> nn.Module:
    """The textbook's network with the weights and the mode of the package's, in float64, where nothing is dropped."""
    textbook = textbook.double()
    share_weights(model, textbook)
    for module in textbook.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return textbook.train(model.training)


def repeat(feature: Tensor, points: int) -> Tensor:
    """A copy of its cloud's feature for each point: (B, E) -> (B, E, N)."""
    return feature.unsqueeze(2).repeat(1, 1, points)


class TextbookPartSegmenter(nn.Module):
    def __init__(self, num_parts: int, num_categories: int, in_channels: int = 3):
        super().__init__()
        self.num_categories = num_categories
        self.input_tnet = TextbookTNet(3, in_channels)
        self.feature_tnet = TextbookTNet(128, 128)
        self.mlp1 = nn.Sequential(shared_layer(in_channels, 64), shared_layer(64, 128), shared_layer(128, 128))
        self.mlp2 = nn.Sequential(shared_layer(128, 512), shared_layer(512, 2048))
        self.head = nn.Sequential(
            shared_layer(3008 + num_categories, 256), shared_layer(256, 256), shared_layer(256, 128)
        )
        self.logits = nn.Conv1d(128, num_parts, 1)

    def forward(self, x: Tensor, category: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        turn = self.input_tnet(x)
        xyz = torch.bmm(x[:, :3].transpose(2, 1), turn).transpose(2, 1)
        out1 = self.mlp1[0](torch.cat([xyz, x[:, 3:]], 1))
        out2 = self.mlp1[1](out1)
        out3 = self.mlp1[2](out2)
        align = self.feature_tnet(out3)
        turned = torch.bmm(out3.transpose(2, 1), align).transpose(2, 1)
        out4 = self.mlp2[0](turned)
        feature = torch.max(self.mlp2[1](out4), 2)[0]
        kind = torch.zeros(len(x), self.num_categories, dtype=x.dtype, device=x.device)
        if category is not None:
            kind = F.one_hot(category, self.num_categories).to(x.dtype)
        context = repeat(torch.cat([feature, kind], 1), x.shape[2])
        wide = torch.cat([turned, out1, out2, out3, out4, context], 1)
        return self.logits(self.head(wide)), turn, align


class TextbookSegmenter(TextbookPointNet):
    def __init__(self, num_classes: int, in_channels: int = 9):
        super().__init__(num_classes, in_channels)
        self.head = nn.Sequential(
            shared_layer(1088, 512), shared_layer(512, 256), shared_layer(256, 128), shared_layer(128, 128)
        )
        self.logits = nn.Conv1d(128, num_classes, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        turned, feature, turn, align = self.features(x)
        wide = torch.cat([turned, repeat(feature, x.shape[2])], 1)
        return self.logits(self.head(wide)), turn, align


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared, as most ports expand them: (B, S, 3), (B, N, 3) -> (B, S, N)."""
    return a.square().sum(2, keepdim=True) - 2 * a @ b.transpose(1, 2) + b.square().sum(2).unsqueeze(1)


def farthest(xyz: Tensor, count: int) -> Tensor:
    """(B, N, 3) -> (B, S) indices; it begins at 0."""
    batch = torch.arange(len(xyz), device=xyz.device)
    nearest = torch.full(xyz.shape[:2], 1e10, dtype=xyz.dtype, device=xyz.device)
    taken, latest = [], torch.zeros_like(batch)
    for _ in range(count):
        taken.append(latest)
        distance = (xyz - xyz[batch, latest].unsqueeze(1)).square().sum(2)
        nearest = torch.where(distance < nearest, distance, nearest)
        latest = nearest.max(1)[1]
    return torch.stack(taken, 1)


def balls(radius: float, count: int, xyz: Tensor, centres: Tensor) -> Tensor:
    """(B, S, K) indices: the first in a ball, the first of all again where there are fewer."""
    index = torch.arange(xyz.shape[1], device=xyz.device).repeat(*centres.shape[:2], 1)
    index[distances(centres, xyz) > radius**2] = xyz.shape[1]
    index = index.sort(2)[0][:, :, :count]
    return torch.where(index == xyz.shape[1], index[:, :, :1], index)


def taken(x: Tensor, index: Tensor) -> Tensor:
    """(B, N, C), (B, S) or (B, S, K) -> (B, S, C) or (B, S, K, C)."""
    return x[torch.arange(len(x), device=x.device).view(-1, *[1] * (index.dim() - 1)), index]


def pair_layers(widths: list[int]) -> nn.Sequential:
    layers = [nn.Sequential(nn.Conv2d(c, d, 1, bias=False), nn.BatchNorm2d(d), nn.ReLU()) for c, d in pairwise(widths)]
    return nn.Sequential(*layers)


class TextbookPointNet2(nn.Module):
    """PointNet++ for classes, with one or several scales; levels are (centres, [(radius, K, widths), ...])."""

    def __init__(self, num_classes: int, levels: list, last: list[int], head: list[int], in_channels: int = 3):
        super().__init__()
        self.levels, channels, mlps = levels, in_channels - 3, []
        for _, scales in levels:
            mlps.append(nn.ModuleList(pair_layers([3 + channels, *widths]) for _, _, widths in scales))
            channels = sum(widths[-1] for _, _, widths in scales)
        mlps.append(pair_layers([3 + channels, *last]))
        self.mlps = nn.ModuleList(mlps)
        self.head = nn.Sequential(dense_layer(last[-1], head[0], 0.5), dense_layer(head[0], head[1], 0.5))
        self.logits = nn.Linear(head[1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        xyz, points = x[:, :3].transpose(1, 2), x[:, 3:].transpose(1, 2)
        for (count, scales), mlps in zip(self.levels, self.mlps, strict=False):
            centres, found = taken(xyz, farthest(xyz, count)), []
            for (radius, most, _), mlp in zip(scales, mlps, strict=True):
                index = balls(radius, most, xyz, centres)
                groups = torch.cat([taken(xyz, index) - centres.unsqueeze(2), taken(points, index)], 3)
                found.append(torch.max(mlp(groups.permute(0, 3, 2, 1)), 2)[0])
            xyz, points = centres, torch.cat(found, 1).transpose(1, 2)
        whole = torch.cat([xyz, points], 2).transpose(1, 2).unsqueeze(2)
        return self.logits(self.head(torch.max(self.mlps[-1](whole), 3)[0].flatten(1)))


class TextbookPointNext(nn.Module):
    """PointNeXt-S for classes; levels are (radius, K), each of half the points and twice as wide as the one before."""

    def __init__(self, num_classes: int, levels: list, width: int, head: list[int], in_channels: int = 3):
        super().__init__()
        self.levels = levels
        self.stem = nn.Conv1d(in_channels, width, 1)
        mlps = []
        for _ in levels:
            mlp = pair_layers([3 + width, width, 2 * width])
            mlp[1][2] = nn.Identity()  # the ReLU comes after the sum
            mlps.append(nn.ModuleDict({"mlp": mlp, "skip": nn.Conv1d(width, 2 * width, 1)}))
            width = 2 * width
        self.mlps, self.last = nn.ModuleList(mlps), pair_layers([3 + width, width, width])
        self.head = nn.Sequential(dense_layer(width, head[0], 0.5), dense_layer(head[0], head[1], 0.5))
        self.logits = nn.Linear(head[1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        xyz, points = x[:, :3].transpose(1, 2), self.stem(x).transpose(1, 2)
        for (radius, most), layer in zip(self.levels, self.mlps, strict=True):
            chosen = farthest(xyz, xyz.shape[1] // 2)
            centres, own = taken(xyz, chosen), taken(points, chosen).transpose(1, 2)
            index = balls(radius, most, xyz, centres)
            relative = (taken(xyz, index) - centres.unsqueeze(2)) / radius
            groups = torch.cat([relative, taken(points, index)], 3).permute(0, 3, 2, 1)
            points = F.relu(torch.max(layer["mlp"](groups), 2)[0] + layer["skip"](own)).transpose(1, 2)
            xyz = centres
        whole = torch.cat([xyz, points], 2).transpose(1, 2).unsqueeze(2)
        return self.logits(self.head(torch.max(self.last(whole), 3)[0].flatten(1)))


def carried(xyz: Tensor, centres: Tensor, points: Tensor) -> Tensor:
    """Features of centres at the points, from the three nearest: (B, N, 3), (B, S, 3), (B, S, D) -> (B, N, D)."""
    squares, index = distances(xyz, centres).sort(2)
    squares, index = squares[:, :, :3], index[:, :, :3]
    weights = 1 / squares.clamp(min=1e-10)
    weights = (weights / weights.sum(2, keepdim=True)).detach()
    return (taken(points, index) * weights.unsqueeze(3)).sum(2)


class TextbookPointNet2Segmenter(nn.Module):
    """PointNet++ for points. `last` is of a set abstraction over all centres, or none; `back` of the propagations.

    To the last of these points bring their category and their coordinates, if there are categories, and other channels.
    """

    def __init__(self, num_outputs: int, levels: list, last: list[int], back: list, in_channels: int, categories: int):
        super().__init__()
        self.levels, self.categories, channels, mlps = levels, categories, in_channels - 3, []
        own = [categories + in_channels if categories else channels]
        for _, scales in levels:
            mlps.append(nn.ModuleList(pair_layers([3 + channels, *widths]) for _, _, widths in scales))
            channels = sum(widths[-1] for _, _, widths in scales)
            own.append(channels)
        if last:
            mlps.append(pair_layers([3 + channels, *last]))
            channels = last[-1]
        else:
            own.pop()
        self.mlps, layers = nn.ModuleList(mlps), []
        for of_points, widths in zip(reversed(own), back, strict=True):
            pairs = pairwise([channels + of_points, *widths])
            layers.append(nn.Sequential(*(shared_layer(*pair) for pair in pairs)))
            channels = widths[-1]
        self.back = nn.ModuleList(layers)
        self.head = shared_layer(channels, channels)
        self.logits = nn.Conv1d(channels, num_outputs, 1)

    def forward(self, x: Tensor, category: Tensor | None = None) -> Tensor:
        xyz, points = x[:, :3].transpose(1, 2), x[:, 3:].transpose(1, 2)
        own = points
        if category is not None:
            one_hot = F.one_hot(category, self.categories).to(x).unsqueeze(1).repeat(1, x.shape[2], 1)
            own = torch.cat([one_hot, xyz, points], 2)
        kept = [(xyz, own)]
        for (count, scales), mlps in zip(self.levels, self.mlps, strict=False):
            centres, found = taken(xyz, farthest(xyz, count)), []
            for (radius, most, _), mlp in zip(scales, mlps, strict=True):
                index = balls(radius, most, xyz, centres)
                groups = torch.cat([taken(xyz, index) - centres.unsqueeze(2), taken(points, index)], 3)
                found.append(torch.max(mlp(groups.permute(0, 3, 2, 1)), 2)[0])
            xyz, points = centres, torch.cat(found, 1).transpose(1, 2)
            kept.append((xyz, points))
        if len(self.mlps) > len(self.levels):
            whole = torch.cat([xyz, points], 2).transpose(1, 2).unsqueeze(2)
            xyz, points = torch.zeros_like(xyz[:, :1]), torch.max(self.mlps[-1](whole), 3)[0].transpose(1, 2)
        else:
            kept.pop()
        for layer in self.back:
            near, of_points = kept.pop()
            y = torch.cat([carried(near, xyz, points), of_points], 2)
            xyz, points = near, layer(y.transpose(1, 2)).transpose(1, 2)
        return self.logits(self.head(points.transpose(1, 2)))


def edge_layer(in_channels: int, out_channels: int) -> nn.Sequential:
    conv = nn.Conv2d(2 * in_channels, out_channels, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.LeakyReLU(0.2))


def edges_of(x: Tensor, neighbours: int) -> Tensor:
    """Each point beside what leads to its neighbours: (B, C, N) -> (B, 2 C, N, K)."""
    squares = x.square().sum(1)
    distances = squares.unsqueeze(2) - 2 * x.transpose(1, 2) @ x + squares.unsqueeze(1)
    index = distances.topk(neighbours, 2, largest=False)[1]
    near = x.transpose(1, 2)[torch.arange(len(x), device=x.device).view(-1, 1, 1), index].permute(0, 3, 1, 2)
    centre = x.unsqueeze(3).repeat(1, 1, 1, neighbours)
    return torch.cat([centre, near - centre], 1)


class TextbookDGCNN(nn.Module):
    def __init__(self, num_classes: int, in_channels: int = 3, neighbours: int = 20):
        super().__init__()
        self.neighbours = neighbours
        layers = edge_layer(in_channels, 64), edge_layer(64, 64), edge_layer(64, 128), edge_layer(128, 256)
        self.edges = nn.ModuleList(layers)
        self.mlp = nn.Sequential(nn.Conv1d(512, 1024, 1, bias=False), nn.BatchNorm1d(1024), nn.LeakyReLU(0.2))
        self.head = nn.Sequential(dense_layer(2048, 512, 0.5), dense_layer(512, 256, 0.5))
        for layer in self.head:
            layer[2] = nn.LeakyReLU(0.2)
        self.logits = nn.Linear(256, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        found = []
        for layer in self.edges:
            x = torch.max(layer(edges_of(x, self.neighbours)), 3)[0]
            found.append(x)
        y = self.mlp(torch.cat(found, 1))
        return self.logits(self.head(torch.cat([torch.max(y, 2)[0], torch.mean(y, 2)], 1)))


def leaky_layer(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(*shared_layer(in_channels, out_channels)[:2], nn.LeakyReLU(0.2))


class TextbookDGCNNPart(nn.Module):
    def __init__(self, num_parts: int, num_categories: int, in_channels: int = 3, neighbours: int = 40):
        super().__init__()
        self.num_categories, self.neighbours = num_categories, neighbours
        self.turn_edges, self.turn = nn.Sequential(edge_layer(3, 64), edge_layer(32, 128)), TextbookTNet(3, 128)
        self.turn.mlp = leaky_layer(128, 1024)
        self.turn.fc[0][2] = self.turn.fc[1][2] = nn.LeakyReLU(0.2)
        two = [nn.Sequential(edge_layer(channels, 64), edge_layer(32, 64)) for channels in (in_channels, 64)]
        self.edges = nn.ModuleList([*two, edge_layer(64, 64)])
        self.mlp, self.category = leaky_layer(192, 1024), leaky_layer(num_categories, 64)
        self.head = nn.Sequential(leaky_layer(1280, 256), leaky_layer(256, 256), leaky_layer(256, 128))
        self.logits = nn.Conv1d(128, num_parts, 1, bias=False)

    def forward(self, x: Tensor, category: Tensor) -> Tensor:
        turn = self.turn(torch.max(self.turn_edges(edges_of(x[:, :3], self.neighbours)), 3)[0])
        xyz = torch.bmm(x[:, :3].transpose(2, 1), turn).transpose(2, 1)
        x, found = torch.cat([xyz, x[:, 3:]], 1), []
        for layers in self.edges:
            x = torch.max(layers(edges_of(x, self.neighbours)), 3)[0]
            found.append(x)
        feature = torch.max(self.mlp(torch.cat(found, 1)), 2)[0]
        kind = self.category(F.one_hot(category, self.num_categories).to(x).unsqueeze(2))
        context = repeat(torch.cat([feature, kind.squeeze(2)], 1), x.shape[2])
        return self.logits(self.head(torch.cat([*found, context], 1)))
