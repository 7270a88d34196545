"""The networks of popular PyTorch ports of PointNet, by their names, written down anew."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PortTNet(nn.Module):
    def __init__(self, channels: int, k: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv1d(channels, 64, 1), nn.BatchNorm1d(64)
        self.conv2, self.bn2 = nn.Conv1d(64, 128, 1), nn.BatchNorm1d(128)
        self.conv3, self.bn3 = nn.Conv1d(128, 1024, 1), nn.BatchNorm1d(1024)
        self.fc1, self.bn4 = nn.Linear(1024, 512), nn.BatchNorm1d(512)
        self.fc2, self.bn5 = nn.Linear(512, 256), nn.BatchNorm1d(256)
        self.fc3, self.k = nn.Linear(256, k * k), k

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = F.relu(self.bn3(self.conv3(x)))
        x = torch.max(x, 2, keepdim=True)[0].view(-1, 1024)
        x = F.relu(self.bn4(self.fc1(x)))
        x = F.relu(self.bn5(self.fc2(x)))
        identity = torch.eye(self.k, dtype=x.dtype).view(1, -1).repeat(len(x), 1)
        return (self.fc3(x) + identity).view(-1, self.k, self.k)


class PortEncoder(nn.Module):
    def __init__(self, channels: int, feature_transform: bool, global_feat: bool = True):
        super().__init__()
        self.global_feat = global_feat
        self.stn = PortTNet(channels, 3)
        self.conv1, self.bn1 = nn.Conv1d(channels, 64, 1), nn.BatchNorm1d(64)
        self.conv2, self.bn2 = nn.Conv1d(64, 128, 1), nn.BatchNorm1d(128)
        self.conv3, self.bn3 = nn.Conv1d(128, 1024, 1), nn.BatchNorm1d(1024)
        if feature_transform:
            self.fstn = PortTNet(64, 64)

    def forward(self, x):
        turned = torch.bmm(x.transpose(2, 1)[:, :, :3], self.stn(x))
        x = torch.cat([turned, x.transpose(2, 1)[:, :, 3:]], 2).transpose(2, 1)
        x = F.relu(self.bn1(self.conv1(x)))
        if hasattr(self, "fstn"):
            x = torch.bmm(x.transpose(2, 1), self.fstn(x)).transpose(2, 1)
        point = x
        x = F.relu(self.bn2(self.conv2(x)))
        x = torch.max(self.bn3(self.conv3(x)), 2)[0]
        return x if self.global_feat else torch.cat([x.unsqueeze(2).repeat(1, 1, point.shape[2]), point], 1)


class PortClassifier(nn.Module):
    def __init__(self, k: int = 40, channels: int = 3, feature_transform: bool = True):
        super().__init__()
        self.feat = PortEncoder(channels, feature_transform)
        self.fc1, self.bn1 = nn.Linear(1024, 512), nn.BatchNorm1d(512)
        self.fc2, self.bn2 = nn.Linear(512, 256), nn.BatchNorm1d(256)
        self.fc3, self.dropout = nn.Linear(256, k), nn.Dropout(0.4)

    def forward(self, x):
        x = F.relu(self.bn1(self.fc1(self.feat(x))))
        x = F.relu(self.bn2(self.dropout(self.fc2(x))))
        return F.log_softmax(self.fc3(x), dim=1)


class PortDense(nn.Module):
    """yanx27's pointnet_sem_seg (9 channels) and fxia22's PointNetDenseCls: (B, N, k) log-probabilities."""

    def __init__(self, k: int = 13, channels: int = 9, feature_transform: bool = True):
        super().__init__()
        self.feat = PortEncoder(channels, feature_transform, global_feat=False)
        self.conv1, self.bn1 = nn.Conv1d(1088, 512, 1), nn.BatchNorm1d(512)
        self.conv2, self.bn2 = nn.Conv1d(512, 256, 1), nn.BatchNorm1d(256)
        self.conv3, self.bn3 = nn.Conv1d(256, 128, 1), nn.BatchNorm1d(128)
        self.conv4 = nn.Conv1d(128, k, 1)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(self.feat(x))))
        x = F.relu(self.bn2(self.conv2(x)))
        x = F.relu(self.bn3(self.conv3(x)))
        return F.log_softmax(self.conv4(x).transpose(2, 1), dim=-1)


class PortParts(nn.Module):
    """yanx27's pointnet_part_seg: (B, C, N), (B, 1, categories) one-hot -> (B, N, parts) log-probabilities."""

    def __init__(self, parts: int = 50, channels: int = 6, categories: int = 16):
        super().__init__()
        self.stn, self.fstn = PortTNet(channels, 3), PortTNet(128, 128)
        for i, (c, d) in enumerate([(channels, 64), (64, 128), (128, 128), (128, 512), (512, 2048)], 1):
            self.add_module(f"conv{i}", nn.Conv1d(c, d, 1))
            self.add_module(f"bn{i}", nn.BatchNorm1d(d))
        given = 2048 + categories + 64 + 128 + 128 + 512 + 2048
        for i, (c, d) in enumerate([(given, 256), (256, 256), (256, 128)], 1):
            self.add_module(f"convs{i}", nn.Conv1d(c, d, 1))
            self.add_module(f"bns{i}", nn.BatchNorm1d(d))
        self.convs4 = nn.Conv1d(128, parts, 1)

    def forward(self, x, label):
        points = torch.bmm(x.transpose(2, 1)[:, :, :3], self.stn(x))
        x = torch.cat([points, x.transpose(2, 1)[:, :, 3:]], 2).transpose(2, 1)
        out1 = F.relu(self.bn1(self.conv1(x)))
        out2 = F.relu(self.bn2(self.conv2(out1)))
        out3 = F.relu(self.bn3(self.conv3(out2)))
        turned = torch.bmm(out3.transpose(2, 1), self.fstn(out3)).transpose(2, 1)
        out4 = F.relu(self.bn4(self.conv4(turned)))
        out5 = self.bn5(self.conv5(out4))
        cloud = torch.cat([torch.max(out5, 2)[0], label.squeeze(1)], 1).unsqueeze(2).repeat(1, 1, x.shape[2])
        x = torch.cat([cloud, out1, out2, out3, out4, out5], 1)
        for i in (1, 2, 3):
            x = F.relu(getattr(self, f"bns{i}")(getattr(self, f"convs{i}")(x)))
        return F.log_softmax(self.convs4(x).transpose(2, 1), dim=-1)


FIVE = [(3, 64), (64, 64), (64, 64), (64, 128), (128, 1024)]


class FiveLayers(nn.Module):
    """The encoder of learning3d, with or without norms; a ReLU stands before the max."""

    def __init__(self, use_bn: bool = True):
        super().__init__()
        self.use_bn = use_bn
        for i, (c, d) in enumerate(FIVE, 1):
            self.add_module(f"conv{i}", nn.Conv1d(c, d, 1))
            if use_bn:
                self.add_module(f"bn{i}", nn.BatchNorm1d(d))

    def forward(self, x):
        for i in range(1, 6):
            x = getattr(self, f"conv{i}")(x)
            x = F.relu(getattr(self, f"bn{i}")(x) if self.use_bn else x)
        return torch.max(x, 2)[0]


class Learning3d(nn.Module):
    """learning3d's Classifier: logits."""

    def __init__(self, k: int = 40, use_bn: bool = True):
        super().__init__()
        self.feature_model = FiveLayers(use_bn)
        self.linear1, self.bn1 = nn.Linear(1024, 512), nn.BatchNorm1d(512)
        self.linear2, self.bn2 = nn.Linear(512, 256), nn.BatchNorm1d(256)
        self.linear3 = nn.Linear(256, k)

    def forward(self, x):
        x = F.relu(self.bn1(self.linear1(self.feature_model(x))))
        return self.linear3(F.relu(self.bn2(self.linear2(x))))


class OfDGCNN(nn.Module):
    """The PointNet of WangYueFt/dgcnn: no biases before norms, one hidden layer in the head; logits."""

    def __init__(self, k: int = 40):
        super().__init__()
        for i, (c, d) in enumerate(FIVE, 1):
            self.add_module(f"conv{i}", nn.Conv1d(c, d, 1, bias=False))
            self.add_module(f"bn{i}", nn.BatchNorm1d(d))
        self.linear1, self.bn6 = nn.Linear(1024, 512, bias=False), nn.BatchNorm1d(512)
        self.linear2 = nn.Linear(512, k)

    def forward(self, x):
        for i in range(1, 6):
            x = F.relu(getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x)))
        return self.linear2(F.relu(self.bn6(self.linear1(F.adaptive_max_pool1d(x, 1).squeeze(2)))))


def trained(network: nn.Module, channels: int = 3, more: tuple[Tensor, ...] = ()) -> nn.Module:
    """With statistics of its points, as after training, and both signs of the norms' scales; more: inputs of 16."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.normal_(module.weight, 1, 0.5)
            nn.init.normal_(module.bias, 0, 0.3)
            module.momentum = 0.5
    with torch.no_grad():
        for _ in range(3):
            network.train()(torch.randn(16, channels, 40), *more)
    return network.eval()
