"""Features of files or arrays of points: the encoder's, and those of the last hidden layer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pointnet.evaluation.contract import Contract
from pointnet.evaluation.trust import Familiar
from pointnet.files import AnyPath
from pointnet.models import DEFAULTS, PointNetClassifier, PointNetModel, SceneSegmenter, load_model, pool_chunks
from pointnet.models.own import has_own_forward
from pointnet.points.read import PointCloudFileError, check_drawing

from .inputs import Reading, Source, Sources, answers_of, check_float32, name_of_model, notes_on_source, path_of
from .judge import BATCH_POINTS, at_most, clouds_together
from .predict import reader


@dataclass(frozen=True, eq=False)
class Embedding:
    """What a network makes of one cloud, as numbers.

    Args:
        file: the file of the cloud; None for an array.
        feature: the encoder's, float32, as published (1024,), of a network for parts (2048,).
        hidden: of the last hidden layer of a classifier, (256,) float32 as published; (0,) of any other network.
        notes: what of the file was guessed or left out, and what makes `predict` unsure of such a cloud, but for low
            probabilities, in short sentences.
    """

    file: Path | None
    feature: NDArray[np.float32]
    hidden: NDArray[np.float32]
    notes: tuple[str, ...]


def embed(
    source: Sources,
    model: AnyPath | PointNetModel | None = None,
    up: str | None = None,
    num_points: int | None = None,
    columns: str | Iterable[str] | None = None,
    vertices: bool = False,
) -> Embedding | list[Embedding]:
    """The features of a file or an array of points; a list for several, or for a folder.

    Arguments are those of `predict`, except `up="auto"`. Any network with an encoder gives features, except one for
    scenes, whose blocks are not whole clouds. Clouds are brought into its contract and sampled as in `predict`.

    Raises:
        PointCloudFileError: a file that cannot be read or lacks what the model takes, the first of several.
        ValueError: an array or an argument that `predict` refuses, or no such model, or one without an encoder.
    """
    network = with_encoder(model)
    reading = Reading(up, num_points, columns, vertices)
    return answers_of(source, lambda sources: embed_each(sources, network, reading), columns=columns)


def with_encoder(model: AnyPath | PointNetModel | None) -> PointNetModel:
    """The model itself, or the one of this name or folder; None: the shipped one that classifies. ValueError if it has
    no encoder of whole clouds."""
    name = DEFAULTS["classification"] if model is None else model
    network = name if isinstance(name, torch.nn.Module) else load_model(name_of_model(name))
    if isinstance(network, SceneSegmenter):
        raise ValueError("a network of scenes sees blocks of them, so it has no feature of a whole cloud")
    if not isinstance(network, PointNetModel):
        raise ValueError(f"a {type(network).__name__} has no encoder whose features could be taken")
    if has_own_forward(network):
        raise ValueError(f"a {type(network).__name__} has a forward of its own, so its encoder may see other points")
    check_float32(network)
    return network


@torch.no_grad()
def embed_each(
    sources: Sequence[Source], model: PointNetModel, reading: Reading
) -> Iterator[Embedding | PointCloudFileError]:
    """The features of each source, in order, or the error of its file; one batch is read at a time.

    Raises:
        ValueError: an array or an argument that `embed` refuses.
    """
    contract, network = Contract.of(model), model.fold()
    classifies = isinstance(network, PointNetClassifier)
    familiar = Familiar.from_json(contract.familiar) if classifies and contract.familiar is not None else None
    count = contract.num_points if reading.num_points is None else reading.num_points
    check_drawing(count, reading.up)
    read, size = reader(contract, reading, count), clouds_together(count)
    device = next(model.parameters()).device
    for start in range(0, len(sources), size):
        batch = sources[start : start + size]
        clouds = [read(source) for source in batch]
        whole = [cloud.channels for cloud in clouds if not isinstance(cloud, PointCloudFileError)]
        rows: Iterator[Any] = iter(())
        if whole:
            x = torch.from_numpy(np.stack(whole)).to(device)
            pooled = pool_chunks(network.encoder, x.split(-(-BATCH_POINTS // len(x)), 2))
            last, unlike = pooled[:, :0], [list[str]() for _ in whole]
            if isinstance(network, PointNetClassifier):
                last = network.head(pooled)
                few = at_most(x, contract.num_points)
                unlike = unlike if familiar is None else familiar.reasons(few, network.logits(last))
            rows = zip(*(each.float().cpu().numpy() for each in (pooled, last)), unlike, strict=True)
        for source, cloud in zip(batch, clouds, strict=True):
            if isinstance(cloud, PointCloudFileError):
                yield cloud
            else:
                feature, hidden, unlike = next(rows)
                doubts = [cloud.unfit] if cloud.unfit else unlike
                notes = (*cloud.notes, *notes_on_source(source, reading, contract))
                notes += (f"unsure: {'; '.join(doubts)}",) if doubts else ()
                yield Embedding(path_of(source), feature, hidden, notes)
