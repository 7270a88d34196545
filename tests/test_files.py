"""Temporary files: swept once their process is gone, kept while it may still write."""

import multiprocessing
import os
import signal
import time

import pytest

from pointnet import files
from pointnet.files import DAY, HOST, sweep, write_atomically


def stuck(path) -> None:
    """Writes half of a file, and waits."""

    def pieces():
        yield b"half"
        os.kill(os.getppid(), 0)
        signal.pause()

    write_atomically(path, pieces())


def test_what_a_killed_process_left_goes_with_the_next_write_and_no_other_file(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=stuck, args=(tmp_path / "x",))
    process.start()
    while not list(tmp_path.iterdir()):
        time.sleep(0.01)
    others = [".x", ".pointnet-x.part", f".pointnet-{process.pid}-{HOST}-12345678.part.txt", "x.part"]
    for name in others:
        (tmp_path / name).touch()
    alive = set(os.listdir(tmp_path))
    sweep.cache_clear()
    write_atomically(tmp_path / "y", b"whole")
    assert set(os.listdir(tmp_path)) == {*alive, "y"}, "its process is alive"
    process.kill()
    process.join()
    sweep.cache_clear()
    write_atomically(tmp_path / "y", b"whole")
    assert set(os.listdir(tmp_path)) == {*others, "y"}


def test_of_another_machine_or_where_processes_cannot_be_asked_the_old_go(tmp_path, monkeypatch):
    new, old, ours = (tmp_path / f".pointnet-{pid}-{name}-abcdefgh.part" for pid, name in PROCESSES)
    for path in (new, old, ours):
        path.mkdir()
        (path / "checkpoint.pt").touch()
    os.utime(old, (time.time() - DAY - 60,) * 2)
    monkeypatch.setattr(files.sys, "platform", "win32")
    sweep.cache_clear()
    sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([new, ours])


PROCESSES = ((1, "elsewhere"), (2, "elsewhere"), (2**22 + 1, HOST))


@pytest.mark.parametrize("name", ["missing/x", "x" * 300])
def test_an_error_of_writing_names_the_file_that_is_wanted(tmp_path, name):
    with pytest.raises(OSError, match=f"{tmp_path / name}'$"):
        write_atomically(tmp_path / name, b"")
    assert not list(tmp_path.iterdir())
