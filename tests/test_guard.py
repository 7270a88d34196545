"""What damaged HDF5 and LAZ files do to the library that reads them ends in the kept process, and is one line."""

import io
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pointnet.points import guard
from pointnet.points.errors import Refusal
from pointnet.points.guard import guarded
from pointnet.points.read import PointCloudFileError, read_hdf5, read_points
from tests import guarded_work
from tests import hostile_hdf5 as hostile
from tests.forms import forms
from tests.helpers import ROOT
from tests.whole_files import written

UNREADABLE = r"a\.h5: is not a readable HDF5 file \(damaged, cut short or of another format\): "
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs limits of memory, forks and /proc")


def asked(work, path: Path = Path(__file__), *given):
    return guarded(work, "json", path, *given, size=0)[0]


@pytest.fixture
def hurried(monkeypatch):
    monkeypatch.setattr(guard, "SECONDS", 0.25)
    monkeypatch.setattr(guard, "BYTES_PER_SECOND", 10**9)


@pytest.mark.parametrize(
    ("content", "read"),
    [
        (hostile.fletcher(1), read_points),
        pytest.param(
            hostile.nbit_without_parameters(),
            lambda path: read_hdf5(path, {"points": None}),
            marks=pytest.mark.slow,
        ),
        pytest.param(hostile.tree_in_itself(), read_points, marks=pytest.mark.slow),
    ],
    ids=["checksum", "nbit", "tree"],
)
def test_what_crashes_hdf5_is_one_line_and_the_next_file_is_read(tmp_path, content, read):
    path = written(tmp_path, "a.h5", content)
    with pytest.raises(PointCloudFileError, match=UNREADABLE):
        read(path)
    path.write_bytes(hostile.plain())
    assert np.array_equal(read_points(path), np.arange(12).reshape(4, 3))


@linux
@pytest.mark.parametrize("content", [hostile.names_in_a_loop(), hostile.lzf_bomb(1_000_000)], ids=["names", "lzf"])
def test_what_stalls_hdf5_ends_in_time(tmp_path, hurried, content):
    path = written(tmp_path, "a.h5", content)
    with pytest.raises(
        PointCloudFileError, match=f"{UNREADABLE}|a.h5: cannot be read in 0 s|more memory than a file of"
    ):
        read_points(path)


def test_work_that_does_not_return_ends_in_time(hurried):
    with pytest.raises(Refusal, match="^cannot be read in 0 s$"):
        asked(guarded_work.stalls)


@linux
def test_a_chunk_that_unpacks_to_more_than_it_declares_takes_no_more_than_the_file_may(tmp_path):
    os.kill(asked(guarded_work.whose), signal.SIGTERM)  # the next one has imported nothing of the tests
    path = written(tmp_path, "a.h5", hostile.deflate_bomb(300))
    with pytest.raises(PointCloudFileError, match=UNREADABLE):
        read_points(path)
    kept = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split()[-1]
    status = Path(f"/proc/{kept}/status").read_text(encoding="latin-1")
    peak = 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])
    may = guard.MEMORY + guard.MEMORY_PER_BYTE * path.stat().st_size
    assert 10_000_000 < peak < may + 80_000_000  # beside what it has with its imports, some 62 MB


def test_a_filter_that_is_repeated_is_refused(tmp_path):
    assert len(read_points(written(tmp_path, "a.h5", hostile.deflated(1)))) == 4
    with pytest.raises(PointCloudFileError, match="a.h5: data set 'points' is packed several times over"):
        read_points(written(tmp_path, "a.h5", hostile.deflated(2)))


@linux
def test_memory_and_crashes_are_told_apart():
    with pytest.raises(Refusal, match=r"^is not a readable PY file .*: reading it ended by SIGSEGV$"):
        asked(guarded_work.crashes)
    with pytest.raises(Refusal, match="^needs more memory than a file of its size may take$"):
        asked(guarded_work.takes, Path(__file__), 200_000_000)
    assert asked(guarded_work.takes, Path(__file__), 100_000_000) == 100_000_000


def test_one_process_is_kept_and_answers_every_thread():
    with ThreadPoolExecutor(4) as threads:
        assert len(set(threads.map(lambda _: asked(guarded_work.whose), range(20)))) == 1
    sizes = [1, 3 << 20, 255, 70_000]
    said, sink = guarded(guarded_work.echoes, "json", Path(__file__), sizes, size=0)
    assert said == "test_guard.py"
    assert sink.getvalue() == b"".join(bytes([size % 256]) * size for size in sizes)


def test_a_process_that_ended_unasked_is_replaced():
    kept = asked(guarded_work.whose)
    os.kill(kept, signal.SIGTERM)
    assert asked(guarded_work.whose) != kept


def test_a_stop_in_the_middle_leaves_no_half_answer():
    class Full(io.BytesIO):
        def write(self, block):
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        guarded(guarded_work.echoes, "json", Path(__file__), [1000], size=0, sink=Full)
    assert asked(guarded_work.echoes, Path(__file__), []) == "test_guard.py"


@linux
@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_a_worker_starts_a_process_of_its_own(method):
    """As those of a loader, which are daemons, and may have no children of multiprocessing."""
    context = multiprocessing.get_context(method)
    ours, theirs = asked(guarded_work.whose), context.SimpleQueue()
    worker = context.Process(target=guarded_work.ask_whose, args=(theirs,), daemon=True)
    worker.start()
    other = theirs.get()
    worker.join()
    assert other != ours
    assert asked(guarded_work.whose) == ours
    assert is_gone(other)


def is_gone(process: int) -> bool:
    for _ in range(200):
        try:
            if Path(f"/proc/{process}/stat").read_text(encoding="latin-1").rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


PROGRAM = """
import sys, time
from pathlib import Path
from pointnet.points.read import read_points
children = Path(f"/proc/self/task/{__import__('os').getpid()}/children")
assert not children.read_text()
assert len(read_points(sys.argv[1])) == 4
assert not {"h5py", "torch"} & set(sys.modules)
print(children.read_text().split()[0], flush=True)
time.sleep(float(sys.argv[2]))
"""


@linux
@pytest.mark.parametrize("is_killed", forms([False, True], True))
def test_it_starts_at_the_first_file_and_ends_with_its_parent(tmp_path, is_killed):
    path = written(tmp_path, "a.h5", bytes(hostile.plain()))
    command = [sys.executable, "-W", "error", "-c", PROGRAM, str(path), "99" if is_killed else "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as parent:
        kept = int(parent.stdout.readline() or parent.stderr.read())
        if is_killed:
            parent.kill()
        assert parent.wait() == (-signal.SIGKILL if is_killed else 0)
        assert not parent.stderr.read()
    assert is_gone(kept)
