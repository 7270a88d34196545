"""What the models of `MODELS` have in common: they go to a folder and come back from one, or from a hub."""

from __future__ import annotations

import os
from typing import Any, TypeVar

from torch import nn

M = TypeVar("M", bound="Pretrained")


class Pretrained(nn.Module):
    """A network with names for what it tells apart, that can be saved with all it takes to rebuild and use it.

    `classes` and `preprocessing` are empty until `load_model` fills them in: the names of the logits, and what the
    weights expect of points.
    """

    classes: tuple[str, ...] = ()
    preprocessing: dict[str, Any]

    def __init__(self) -> None:
        super().__init__()
        self.preprocessing = {}

    @property
    def arguments(self) -> dict[str, Any]:
        """What its constructor takes to make one like it."""
        raise NotImplementedError

    @property
    def num_outputs(self) -> int:
        """How many logits it gives for a cloud, or for each point of one."""
        raise NotImplementedError

    def save_pretrained(self, folder: str | os.PathLike[str], half: bool = False, notes: str = "") -> None:
        """Writes a model folder: `model.safetensors`, `config.json` with its sha256, and a model card, `README.md`.

        `load_model` and `from_pretrained` read it; `hf upload NAME FOLDER` shares it.

        Args:
            half: matrices are stored in half precision, which halves the file; vectors (biases, norms) stay float32.
            notes: Markdown for the model card: what it was trained on, what it reached, its licence. A card that is
                there already is left as it is.

        Raises:
            ValueError: a network that its arguments do not rebuild (folded, or changed by hand), or that lacks names
                for its classes or `preprocessing["num_points"]`; weights too large for half precision.
            OSError: the folder cannot be written.
        """
        from .zoo import save_model

        save_model(self, folder, half, notes)

    @classmethod
    def from_pretrained(cls: type[M], name: str | os.PathLike[str], revision: str | None = None) -> M:
        """The model of a folder, of shipped weights, or of the Hugging Face Hub; in eval mode, on the CPU.

        Args:
            name: a folder, a name that `load_model` knows, or else `owner/name` on the Hub, which is fetched once
                and kept in the Hub's own cache.
            revision: a branch, tag or commit on the Hub.

        Raises:
            ValueError: no such model, one of another kind, or damaged; the message names it.
            ImportError: it would have to come from the Hub, and the extra `hub` is not installed.
        """
        from .zoo import fetch_model, load_model

        model = load_model(fetch_model(os.fspath(name), revision))
        if not isinstance(model, cls):
            raise ValueError(f"{os.fspath(name)}: holds a {type(model).__name__}, not a {cls.__name__}")
        return model
