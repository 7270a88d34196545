"""Benchmarks: ratios of two sides, timed in turn in one run, after a check that both compute the same.

Ctrl-C ends one in a line, as it ends a command: also while PyTorch is still being loaded, hence here.
"""

import sys
from types import TracebackType


def end(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """What Python does with an error that nobody caught: prints it; of Ctrl-C that it came."""
    if issubclass(kind, KeyboardInterrupt):
        print("\nstopped", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)


sys.excepthook = end
