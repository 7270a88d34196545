"""Which forms of a test are run as a newcomer runs it, and which wait for --slow."""

from collections.abc import Iterable
from typing import Any

import pytest


def forms(values: Iterable[Any], *quick: Any) -> list[Any]:
    """Parameters of a test: those that are `quick`, and the others as its long forms.

    Raises:
        ValueError: a quick one is none of the values.
    """
    values = list(values)
    if unknown := [each for each in quick if each not in values]:
        raise ValueError(f"not among the forms of the test: {unknown}")
    return [each if each in quick else pytest.param(each, marks=pytest.mark.slow) for each in values]
