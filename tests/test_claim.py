"""One process writes a run folder at a time: the others end in one line, and the dead block nobody."""

import errno
import fcntl
import multiprocessing
import os
import platform
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pointnet.training import fit
from pointnet.training.claim import claimed
from pointnet.training.seeds import run_seeds
from pointnet.world import World
from tests.helpers import quiet, tiny, two_shapes

FORK = multiprocessing.get_context("fork")


def started_at_once(out, barrier, ends) -> None:
    torch.set_num_threads(1)
    barrier.wait()
    try:
        fit(tiny(out, epochs=1), two_shapes(per_class=6), log=quiet)
        ends.put("")
    except ValueError as error:
        ends.put(str(error))


def said_at_once(target: Callable[..., None], count: int, out: Path) -> list[str]:
    """What so many processes say that begin in one folder together, the silent ones first."""
    barrier, ends = FORK.Barrier(count), FORK.SimpleQueue()
    processes = [FORK.Process(target=target, args=(out, barrier, ends)) for _ in range(count)]
    for process in processes:
        process.start()
    said = sorted(ends.get() for _ in processes)
    for process in processes:
        process.join()
        assert process.exitcode == 0
    return said


@pytest.mark.slow
def test_of_runs_started_at_once_in_one_folder_one_trains_and_the_others_say_why_not(tmp_path):
    for attempt in range(4):
        out = tmp_path / str(attempt)
        said = said_at_once(started_at_once, 2, out)
        assert said[0] == ""
        for line in said[1:]:
            assert line.startswith(str(out)), line
            assert "process" in line or "already holds a run" in line
            assert "\n" not in line
        fit(tiny(out, epochs=1), two_shapes(per_class=6), resume=True, log=quiet)


def claim_at_once(out, barrier, ends) -> None:
    barrier.wait()
    try:
        with claimed(out, World()):
            ends.put("")
            barrier.wait()
    except ValueError as error:
        ends.put(str(error))
        barrier.wait()


def test_of_processes_that_claim_a_folder_at_once_exactly_one_has_it(tmp_path):
    for attempt in range(8):
        out = tmp_path / str(attempt)
        said = said_at_once(claim_at_once, 3, out)
        assert said[0] == ""
        assert all(f"{out}: " in line and "process" in line for line in said[1:]), said


def hold(out, begun) -> None:
    with claimed(out, World()):
        begun.put(os.getpid())
        signal.pause()


@pytest.fixture
def holder(tmp_path):
    """A process that has claimed the folder `run`."""
    begun = FORK.SimpleQueue()
    process = FORK.Process(target=hold, args=(tmp_path / "run", begun))
    process.start()
    assert begun.get() == process.pid
    yield process
    process.kill()
    process.join()


def test_a_claimed_folder_is_refused_by_the_name_of_its_holder_and_free_once_that_is_killed(tmp_path, holder):
    out = tmp_path / "run"
    said = f"{out}: process {holder.pid} on {platform.node()} is training here; wait until it ends, or choose another"
    with pytest.raises(ValueError, match=said):
        fit(tiny(out, epochs=1), two_shapes(per_class=6), log=quiet)
    with pytest.raises(ValueError, match=said):
        run_seeds(tiny(out), [0], lambda config, resume: {}, log=quiet)
    assert sorted(os.listdir(out)) == [".lock", ".locked_by"], "the refused have written nothing"
    holder.kill()
    holder.join()
    with claimed(out, World()):
        assert (out / ".locked_by").read_text() == f"process {os.getpid()} on {platform.node()}"


def test_a_claim_ends_with_any_exception_and_a_folder_with_nothing_in_it_goes_with_it(tmp_path):
    for error in (ValueError, KeyboardInterrupt, SystemExit):
        with pytest.raises(error), claimed(tmp_path / "run", World()):
            raise error
        assert not (tmp_path / "run").exists()
    with claimed(tmp_path / "run", World()):
        (tmp_path / "run" / "config.yaml").touch()
    assert sorted(os.listdir(tmp_path / "run")) == [".lock", "config.yaml"]


def test_a_file_stands_for_the_lock_on_a_file_system_without_locks(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    soft = tmp_path / "run" / ".lock_file"
    with claimed(tmp_path / "run", World()):
        assert soft.exists()
        with (
            pytest.raises(ValueError, match=f"is training here \\(if that process is gone, remove {soft}\\); wait"),
            claimed(tmp_path / "run", World()),
        ):
            pass
    assert not soft.exists()
