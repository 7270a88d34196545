"""One process writes a run folder at a time: the others end in one line, and the dead block nobody."""

import errno
import fcntl
import multiprocessing
import os
import platform
import signal

import pytest

from pointnet.training import fit
from pointnet.training.claim import claimed
from pointnet.training.seeds import run_seeds
from pointnet.world import World
from tests.helpers import quiet, tiny, two_shapes

FORK = multiprocessing.get_context("fork")


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
    for name in ("config.yaml", "checkpoint.pt"):  # as of a run whose first epoch is done
        (out / name).touch()
    with pytest.raises(ValueError, match=said):
        fit(tiny(out, epochs=1), two_shapes(per_class=6), log=quiet)
    holder.kill()
    holder.join()
    with pytest.raises(ValueError, match="already holds a run; continue it with --resume"):
        fit(tiny(out, epochs=1), two_shapes(per_class=6), log=quiet)
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
