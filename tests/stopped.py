"""A run that a signal stops at a step of one's choice."""

import os
import signal

import pytest

from pointnet.training import Stopped, fit, step
from tests.helpers import quiet


def fit_until_stopped(config, stop_at, monkeypatch, data):
    """Sends SIGTERM at the end of a step, counted from 1, which must be the last."""
    steps = []

    def send(*arguments, call=step.Step.__call__):
        steps.append(call(*arguments))
        if len(steps) == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return steps[-1]

    with monkeypatch.context() as patch:
        patch.setattr(step.Step, "__call__", send)
        with pytest.raises(Stopped) as stopped:
            fit(config, data, log=quiet)
    assert len(steps) == stop_at
    assert stopped.value.signum == signal.SIGTERM
