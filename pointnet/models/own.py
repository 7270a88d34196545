"""Networks of one's own: what the library asks of a network, mixed into any class of modules."""

import copy
import functools
import inspect
from typing import Any, TypeVar

from torch import nn

from .pretrained import MODELS, Pretrained

S = TypeVar("S", bound="OwnNetwork")
OUTPUTS = ("num_classes", "num_parts")  # an argument of the constructor: how many logits


class OwnNetwork(Pretrained):
    """A network that the library did not write. Its state dict is as it was before."""

    source = "A network of one's own"
    built_on_meta = False  # it may compute with numbers when it is built

    @property
    def num_outputs(self) -> int:
        return int(next(self.arguments[name] for name in OUTPUTS if name in self.arguments))

    def fold(self: S) -> S:
        """A copy in eval mode; nothing of it is folded."""
        return copy.deepcopy(self).eval()

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """As of any object, but for its class, which no module has under its name."""
        made: Any = super().__reduce_ex__(protocol)
        kind = type(self).__bases__[0]
        return _unpickled, (self.model_name, kind), *made[2:]


def is_own(model: nn.Module) -> bool:
    """Whether the library did not write the network."""
    return type(model).__module__.partition(".")[0] != __name__.partition(".")[0]


def registered_as(model: nn.Module) -> str:
    """The name that a network's class was registered by; "" of one that was not, and of one made by its name."""
    of_both = (name for name, known in MODELS.items() if known.__bases__ == (type(model), OwnNetwork))
    return next(of_both, "")


def has_own_forward(model: nn.Module) -> bool:
    """Whether it is one of the library's networks but for its `forward`, around which none of their methods may go."""
    return type(model).forward.__module__.partition(".")[0] != __name__.partition(".")[0]


def own_network(name: str, kind: type[nn.Module], outputs: str) -> type[Any]:
    """The class that `MODELS` knows by this name from now on: `kind`, as an `OwnNetwork` unless it is a `Pretrained`.

    Args:
        outputs: the argument of its constructor that says how many logits it has.

    Raises:
        ValueError: not a class of modules, a constructor without that argument and `in_channels`, or a name that the
            library uses itself.
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"the name of a network must be a word, got {name!r}")
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise ValueError(f"the network '{name}' must be a class of nn.Module, got {kind!r}")
    if missing := {outputs, "in_channels"} - set(inspect.signature(kind).parameters):
        raise ValueError(f"{kind.__name__}, the network '{name}', must take {' and '.join(sorted(missing))}")
    known = MODELS.get(name)
    if known not in (None, kind) and not (issubclass(known, OwnNetwork) and _is_again(known, kind)):
        raise ValueError(f"there is a network '{name}' already; choose another name")
    if issubclass(kind, Pretrained):
        MODELS[name], kind.model_name = kind, name
        return kind
    init: Any = kind.__init__

    @functools.wraps(init)
    def of_both(self: OwnNetwork, *given: Any, **named: Any) -> None:
        self.preprocessing = {}
        init(self, *given, **named)

    return type(kind.__name__, (kind, OwnNetwork), {"__init__": of_both, "__module__": kind.__module__}, name=name)


def _unpickled(name: str, kind: type[nn.Module]) -> OwnNetwork:
    """An empty network of the class that is known by this name, or becomes so in a process that has not met it."""
    known: Any = MODELS.get(name)
    if known is None or kind not in known.__bases__:
        known = own_network(name, kind, next(each for each in OUTPUTS if each in inspect.signature(kind).parameters))
    blank: OwnNetwork = known.__new__(known)
    return blank


def _is_again(known: type[Any], kind: type[Any]) -> bool:
    """Whether a class is defined as the one that is known was, as by a notebook's cell that runs twice."""
    before = known.__bases__[0] if OwnNetwork in known.__bases__ else known
    return (before.__module__, before.__qualname__) == (kind.__module__, kind.__qualname__)
