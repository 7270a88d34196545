"""The base class of the models: each is built from plain arguments, and goes to a folder and comes back from it."""

import functools
import inspect
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from pointnet.files import AnyPath, write_atomically
from pointnet.layers.folding import fold_norms
from pointnet.names import printable
from pointnet.ops.hooks import has_hooks

from . import weights
from .card import model_card

M = TypeVar("M", bound="Pretrained")
MODELS: dict[str, type[Any]] = {}  # the subclasses of `Pretrained` that have a name, by it
MOMENTUM = re.compile(r"momentum=[^,)]*")
# Why networks that sample their centres are not exported.
CENTRES_IN_TURN = "its centres are found one after another, hundreds of times the operators of the network"
OF_ANSWERS = ("temperature", "familiar")  # in `preprocessing`: what was measured on a network's answers
LAST_MOVED = 1e-2  # of themselves the last weights may be moved, as in half precision, and are the same
ROOM = 4  # times what the weights hold; a network may make layers that it does not keep


class Pretrained(nn.Module):
    """A network that knows the names of its classes and can be saved with all it takes to rebuild and use it.

    A subclass that is defined with a name can be saved and loaded: `class Net(Pretrained, name="net")`.

    `classes` and `preprocessing` are empty until `load_model` fills them in: the names of the logits, and what the
    weights expect of points. `arguments` are those of the constructor, defaults included, sequences as lists.
    """

    model_name: ClassVar[str] = ""  # in `MODELS`
    scores_each_point: ClassVar[bool] = False  # logits (B, num_outputs, N) in place of (B, num_outputs)
    source: ClassVar[str] = "PointNet (Qi, Su, Mo, Guibas, CVPR 2017)"  # of the network, for the model card
    not_exported: ClassVar[str] = ""  # why there is no file of it for `export`
    least_points: int = 1  # of a cloud, in an exported file
    built_on_meta: ClassVar[bool] = True  # for loading it can be built without memory for its numbers
    classes: tuple[str, ...] = ()
    preprocessing: dict[str, Any]
    arguments: dict[str, Any]

    def __init_subclass__(cls, name: str = "") -> None:
        super().__init_subclass__()
        cls.model_name = name  # not inherited: a subclass may be another network
        if name:
            MODELS[name] = cls
        if _defines_later(cls, "forward", "classify_chunks"):  # which would go around it
            cls.classify_chunks = Pretrained.classify_chunks  # type: ignore[method-assign]
        if "__init__" in vars(cls):
            cls.__init__ = _recording(cls.__init__)  # type: ignore[method-assign]

    def __init__(self) -> None:
        super().__init__()
        self.preprocessing = {}

    @property
    def num_outputs(self) -> int:
        """The number of logits of a cloud, or of each point: those of its last layer, which is called `logits`."""
        last: Any = self.logits
        return last.out_features if hasattr(last, "out_features") else last.widths[-1]

    fold = fold_norms  # a copy for inference: `model.fold()`

    @torch.no_grad()
    def classify_chunks(self, chunks: Iterable[Tensor]) -> Tensor:
        """The logits of whole clouds, given in chunks (B, C, N_i); all are in memory.

        Raises:
            ValueError: in training mode.
        """
        if self.training:
            raise ValueError("this needs a network in eval mode; call model.eval() first")
        logits: Tensor = self(torch.cat([*chunks], 2))
        return logits

    def arguments_for(self, num_outputs: int) -> dict[str, Any]:
        """The arguments of the same network with another number of outputs."""
        return {**self.arguments, "num_classes": num_outputs}

    def save_pretrained(self, folder: AnyPath, half: bool = False, notes: str = "") -> None:
        """Writes a model folder: `model.safetensors`, `config.json` with its sha256, and a model card, `README.md`.

        `load_model` and `from_pretrained` read it; `hf upload NAME FOLDER` shares it.

        Args:
            half: matrices are stored in half precision, which halves the file; vectors (biases, norms) stay float32.
            notes: Markdown for the model card: what it was trained on, what it reached, its licence. A card that is
                already there is kept.

        Raises:
            ValueError: a network that its arguments do not rebuild (folded, pruned, or changed by hand), or that lacks
                names for its classes or `preprocessing["num_points"]`; weights that are not finite, or too large for
                half precision.
            OSError: the folder cannot be written.
        """
        folder = Path(folder)
        if folder.is_file():
            raise ValueError(f"{folder}: not written: it is a file, not a folder")
        state = {key: x.half() if half and x.dim() > 1 else x for key, x in self.state_dict().items()}
        too_large = half and not all(bool(tensor.isfinite().all()) for tensor in state.values())
        if reason := _why_not_rebuilt(self) or (too_large and "its weights are too large for half precision"):
            raise ValueError(f"{folder}: not written: {reason}")
        folder.mkdir(parents=True, exist_ok=True)
        sha256 = weights.save_weights(folder, state)
        if not (folder / "README.md").exists():
            write_atomically(folder / "README.md", model_card(self, notes).encode())
        # Last: a folder without it holds no model, and one of an older model does not match the new weights.
        described = {"arguments": self.arguments, "classes": self.classes, "preprocessing": preprocessing_of(self)}
        weights.save_config(folder, model=self.model_name, **described, sha256=sha256)

    @classmethod
    def from_pretrained(cls: type[M], name: AnyPath, revision: str | None = None, num_classes: int | None = None) -> M:
        """The model of a folder, of shipped weights, or of the Hugging Face Hub; in eval mode, on the CPU.

        Args:
            name: a folder, a name that `load_model` knows, or else `owner/name` on the Hub, which is downloaded once
                to the Hub's own cache.
            revision: a branch, tag or commit on the Hub.
            num_classes: of the same network with a new last layer, as of `load_model`.

        Raises:
            ValueError: no such model, one of another class, or damaged; the message names it.
            ImportError: it would have to come from the Hub, and the extra `hub` is not installed.
        """
        model = load_folder(name, hub=True, revision=revision, num_classes=num_classes)
        if not isinstance(model, cls):
            raise ValueError(f"{os.fspath(name)}: holds a {type(model).__name__}, not a {cls.__name__}")
        return model


def _defines_later(cls: type[Any], method: str, other: str) -> bool:
    """Whether the first method is of a class that is derived from the one that the other is of."""
    order = [next(i for i, each in enumerate(cls.__mro__) if name in vars(each)) for name in (method, other)]
    return order[0] < order[1]


def check_sizes(num_classes: int = 1, in_channels: int = 3) -> None:
    """Raises ValueError unless a network has a class, or more, and x y z among its channels."""
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, got {num_classes}")
    if in_channels < 3:
        raise ValueError(f"in_channels must be 3 (xyz) or more, got {in_channels}")


@contextmanager
def no_larger_than(state: Mapping[str, Tensor]) -> Iterator[None]:
    """Within it, building a network with many more layers or numbers than these weights have is a ValueError."""
    room = [ROOM * len(state), ROOM * sum(tensor.numel() for tensor in state.values())]
    thread = threading.get_ident()

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and threading.get_ident() == thread:
            room[:] = room[0] - 1, room[1] - parameter.numel()
            if min(room) < 0:
                what = "layers" if room[0] < 0 else "wide layers"
                raise ValueError(f"it asks for more {what} than the weights can fill")

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def load_folder(
    name: AnyPath,
    hub: bool = False,
    revision: str | None = None,
    num_classes: int | None = None,
    own: nn.Module | None = None,
) -> Any:
    """As `load_model`; with `hub` also from the Hugging Face Hub, as `Pretrained.from_pretrained`."""
    folder = weights.find_folder(name, hub, revision)
    config = weights.read_model_config(folder)
    state = weights.read_weights(folder, config.get("sha256"))
    try:
        model: Any = _build(config["model"], config["arguments"], state) if own is None else own
        if not isinstance(model, Pretrained):
            model.arguments = dict(config["arguments"])
        model.classes, model.preprocessing = tuple(config["classes"]), dict(config["preprocessing"])
        if misplaced := sorted(config.keys() & model.preprocessing.keys()):
            raise ValueError(
                f"{misplaced[0]!r} stands outside preprocessing, where nothing reads it; change the one inside"
            )
        if reason := _undescribed(model) if isinstance(model, Pretrained) else "":
            raise ValueError(reason)
    except (KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        said = f"no {error}" if isinstance(error, KeyError) else str(error).partition("\n")[0]
        path = folder / weights.CONFIG_FILE
        raise ValueError(f"{path}: does not describe a model of this library: {printable(said)}") from error
    if reason := weights.misfit(state, model.state_dict()):
        path = folder / weights.WEIGHTS_FILE
        raise ValueError(f"{path}: does not fit the model in {weights.CONFIG_FILE}: {printable(reason)}")
    model.load_state_dict(state, assign=own is None)
    its_last = next(reversed([*model.parameters()]), torch.empty(0)).detach().clone()
    model._measured = its_last, {name: model.preprocessing.get(name) for name in OF_ANSWERS}
    return (model if num_classes is None else _with_new_last_layer(model, num_classes)).eval()


def preprocessing_of(model: Any) -> dict[str, Any]:
    """`model.preprocessing`, without what was measured on the answers of the weights that were loaded, if these were
    trained since, or the last layer replaced: their last numbers are others, and nobody measured anew."""
    held, (last, measured) = dict(model.preprocessing), getattr(model, "_measured", (None, {}))
    now = next(reversed([*model.parameters()]), None)
    if last is None or now is None or now.shape != last.shape or {k: held.get(k) for k in OF_ANSWERS} != measured:
        return held
    are_those = torch.allclose(now.detach().float().cpu(), last.float().cpu(), LAST_MOVED, LAST_MOVED / 100)
    return held if are_those else {name: value for name, value in held.items() if name not in OF_ANSWERS}


def _with_new_last_layer(model: Pretrained, num_outputs: int) -> Pretrained:
    """The same network, but for its last layer, `logits`: untrained, from torch's global random numbers.

    It keeps the contract of its input, but neither classes, their numbers in files, nor what was measured on its
    answers.
    """
    if type(num_outputs) is not int or num_outputs < 1:
        raise ValueError(f"num_classes must be a whole number of at least 1, got {num_outputs!r}")
    if not isinstance(getattr(model, "logits", None), nn.Module):
        raise ValueError(f"num_classes: {type(model).__name__} has no last layer called `logits` to replace")
    new = _build(model.model_name, model.arguments_for(num_outputs))
    for module in new.get_submodule("logits").to_empty(device="cpu").modules():
        if callable(reset := getattr(module, "reset_parameters", None)):
            reset()
    kept = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("logits.")}
    new.load_state_dict(kept, strict=False, assign=True)
    of_labels = (*OF_ANSWERS, "label_numbers")
    new.preprocessing = {k: value for k, value in model.preprocessing.items() if k not in of_labels}
    return new


def _recording(init: Callable[..., None]) -> Callable[..., None]:
    """`init` of a subclass, which then keeps its arguments; the outermost of several is the last, so it wins."""
    signature = inspect.signature(init)

    @functools.wraps(init)
    def recording(self: Pretrained, *given: Any, **named: Any) -> None:
        init(self, *given, **named)
        bound = signature.bind(self, *given, **named)
        bound.apply_defaults()
        self.arguments = {name: _plain(value) for name, value in list(bound.arguments.items())[1:]}

    return recording


def _plain(value: Any) -> Any:
    """As JSON gives it back: sequences, inner ones too, as lists of their own."""
    return [_plain(each) for each in value] if isinstance(value, Sequence) and not isinstance(value, str) else value


def _build(name: str, arguments: Mapping[str, Any], state: Mapping[str, Tensor] | None = None) -> Pretrained:
    """The network; if it allows that, without memory for its numbers and without drawing any.

    Args:
        state: the weights that it is for; one of the library's own is built no larger than they can fill.
    """
    if name not in list(MODELS):  # of a list, since what a config holds may not be hashable
        own = "register_model makes one of your own known, load_model(..., model=...) fills it"
        raise ValueError(f"model must be one of {', '.join(MODELS)}, got {name!r}; {own}")
    kind = MODELS[name]
    is_ours = kind.__module__.startswith(f"{__package__}.")
    with (
        torch.device("meta") if kind.built_on_meta else nullcontext(),
        nullcontext() if state is None or not is_ours else no_larger_than(state),
    ):
        return kind(**arguments)


def _why_not_rebuilt(model: Pretrained) -> str:
    """Why a model folder would not give this model back; empty where it would."""
    if not model.model_name:
        return f"{type(model).__name__} is not one of {', '.join(MODELS)}"
    other = _build(model.model_name, model.arguments)
    if not _looks_as(model, other):
        why = "the model is not as its arguments make it (folded, or changed)"
        return f"{why}; for a last layer of other classes: load_model(..., num_classes=N)"
    state = model.state_dict()
    if odd := [name for name, tensor in state.items() if not bool(tensor.isfinite().all())]:
        return f"{odd[0]} holds numbers that are not finite"
    if reason := weights.misfit(state, other.state_dict()):
        return f"its weights do not fit the model as its arguments make it: {reason}"
    if not _computes_as(model, other):
        return "a hook or a forward of one of its modules changes what it computes, which no folder holds; remove it"
    return _undescribed(model)


def is_rebuilt(model: Pretrained) -> bool:
    """Whether the arguments of a model make the same network, whatever the momentum of its norms."""
    other = _build(model.model_name, model.arguments)
    same_names = model.state_dict().keys() == other.state_dict().keys()
    return _looks_as(model, other) and same_names and _computes_as(model, other)


def _looks_as(model: Pretrained, other: Pretrained) -> bool:
    """Whether a network has the arguments and the modules of another."""
    # What is kept under an argument's name must still be that argument; the modules show in the repr.
    kept = {name: _plain(getattr(model, name, value)) for name, value in model.arguments.items()}
    shown, again = (MOMENTUM.sub("", repr(each)) for each in (model, other))
    return kept == model.arguments and shown == again


@torch.no_grad()
def _computes_as(model: Pretrained, other: Pretrained) -> bool:
    """Whether a network gives what another does with its weights, on two clouds: hooks may read alone, or change it."""
    if not any(map(has_hooks, model.modules())):
        return True
    weight, modes = next(model.parameters()), [(module, module.training) for module in model.modules()]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, model.arguments["in_channels"], 64, generator=generator).to(weight)
    given = [x, *[torch.zeros(2, dtype=torch.long, device=x.device)] * ("num_categories" in model.arguments)]
    other.load_state_dict(model.state_dict(), assign=True)  # it was built without numbers
    try:
        found, wanted = (each.eval()(*given) for each in (model, other))
        return found.shape == wanted.shape and torch.allclose(found, wanted, 1e-2, 1e-2 * float(wanted.abs().max()))
    except (AttributeError, RuntimeError, TypeError, ValueError):
        return False
    finally:
        for module, was_training in modes:
            module.training = was_training


def _undescribed(model: Pretrained) -> str:
    """What is wrong with the model's classes or `num_points`; empty where nothing is."""
    count, names = model.num_outputs, {name for name in model.classes if isinstance(name, str)}
    if not len(model.classes) == len(names) == count:
        return f"classes must name its {count} classes, each once, got {len(names)} names"
    num_points = model.preprocessing.get("num_points")
    if type(num_points) is not int or num_points < 1:
        return f"num_points in preprocessing must be an integer above 0, points per cloud, got {num_points!r}"
    return ""
