"""Full and read-only disks."""

import errno
import io
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from tqdm import tqdm

from pointnet import __main__ as command_line
from pointnet.datasets import workers
from pointnet.points.read import read_cloud
from tests.helpers import assert_ends_as
from tests.ports import PortClassifier, trained
from tests.whole_files import FILES

from .kills import warm
from .trial import FAILED, FORK, SECONDS, Trials, held, whole

QUICK = "--epochs 2 --num_points 32 --early_points 0 --batch_size 4 --device cpu --width 0.1 --input_transform false"
QUICK += " --feature_transform false --val_fraction 0.25"
COMMANDS = {
    "train": f"train --dataset folder --root set {QUICK} --out out",
    "report": "report run --out out --device cpu",
    "predict": "predict set/a/0.xyz set/b/1.xyz --task part --out out",
    "show": "show folder --root set --out out",
    "embed": "embed set/a/0.xyz set/b/1.xyz --model pointnet_shapes --out out/features.npz",
    "convert": "convert ../port.pth --out out",
    "export": "export run --format torch --out out/model.pt2",
    "explain": "explain --out out/page.html",
    "pack": "pack set out --num_points 32",
}
CREATES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.link", "os.symlink", "os.truncate")


class Ended(NamedTuple):
    code: int
    said: str  # on stderr
    writes: int


def child(words: Sequence[str], folder: Path, fault: str, at: int, sender: Any) -> None:
    """Runs a command in a folder whose disk is full or read-only from its write number `at` on."""
    os.chdir(folder)
    tqdm.set_lock(threading.RLock())
    torch.set_num_threads(1)
    # Whatever is written is written below this folder.
    os.environ |= {"TMPDIR": str(folder / "tmp"), "XDG_CACHE_HOME": str(folder / "cache")}
    tempfile.tempdir, writes = None, [0]
    fsync = os.fsync

    def refuse(path: Any, is_new: bool) -> None:
        """At a write of a file that is opened, or of the folder it is in."""
        writes[0] += 1
        if writes[0] < at or not at:
            return
        if fault == "read-only":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))  # bytes that a file may still have
        if is_new:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    def hook(event: str, given: Any) -> None:
        is_open = event == "open" and not isinstance(given[0], int) and (given[2] or 0) & CREATES
        if is_open or (event in CHANGES and (fault == "read-only" or event == "os.mkdir")):
            path = os.path.abspath(os.fsdecode(given[0]))
            if path.startswith(str(folder)):
                refuse(path, event == "os.mkdir")

    def synchronise(descriptor: int) -> None:
        refuse(None, True)
        fsync(descriptor)

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    sys.addaudithook(hook)
    sys.stdout, sys.stderr = io.StringIO(), io.StringIO()
    try:
        with patch.object(os, "fsync", synchronise), patch.object(workers, "free_cores", lambda: 1):
            code = command_line.main(words)
    except SystemExit as error:  # of argparse
        code = error.code
    except BaseException as error:
        code = f"raised {error!r}"
    sender.send(Ended(code, sys.stderr.getvalue(), writes[0]))


def ended(words: Sequence[str], folder: Path, fault: str = "", at: int = 0) -> Ended:
    receiver, sender = FORK.Pipe(duplex=False)
    process = FORK.Process(target=child, args=(words, folder, fault, at, sender))
    process.start()
    sender.close()
    try:
        if not receiver.poll(SECONDS):
            return Ended(-1, "never ended", 0)
        return receiver.recv()
    except EOFError:
        return Ended(-1, "ended without a word", 0)
    finally:
        process.kill()
        process.join()


def prepared(folder: Path) -> Path:
    """A folder with what the commands read."""
    folder.mkdir()
    for name in ("tmp", "cache"):
        (folder / name).mkdir()
    for kind, file in (("a", "stool.xyz"), ("b", "vase.pcd")):
        points = read_cloud(FILES / file).points[:200]
        (folder / "set" / kind).mkdir(parents=True)
        for i in range(6):
            np.savetxt(folder / "set" / kind / f"{i}.xyz", points + i)
    torch.save(trained(PortClassifier(40)).state_dict(), folder.parent / "port.pth")
    warm(folder / "first")
    shutil.rmtree(folder / "first")
    good = ended(COMMANDS["train"].replace("--out out", "--out run").split(), folder)
    assert good.code == 0, good
    shutil.rmtree(folder / "set" / ".cache")
    return folder


OVER = ("report", "predict", "show", "embed", "export", "explain", "pack")  # commands that replace what is there


def disk(name: str, count: int, folder: Path) -> Trials:
    """Runs a command whose disk is full, or read-only, from each of its writes on, and then once more on a good one."""
    source, clean, out = prepared(folder / "source"), folder / "clean", folder / "trial" / "out"
    words, places = COMMANDS[name].split(), []
    for is_over in (False, True)[: 1 + (name in OVER)]:
        for fault in ("full", "read-only"):
            if not is_over:
                shutil.rmtree(clean, ignore_errors=True)
                shutil.copytree(source, clean)
            good = ended(words, clean, fault)
            assert good.code == 0, good
            places += [(is_over, fault, at + 1) for at in range(good.writes)]
    wanted = whole(clean / "out")
    random.Random(0).shuffle(places)
    for is_over, fault, at in places[: count or None]:
        shutil.rmtree(out.parent, ignore_errors=True)
        shutil.copytree(clean if is_over else source, out.parent)
        found = ended(words, out.parent, fault, at)
        left = whole(out)
        is_resumed = (out / "checkpoint.pt").exists()
        again = ended([*words, "--resume"] if is_resumed else words, out.parent)
        where = f"{fault} disk at write {at}{' over another' * is_over}"
        lines = found.said.strip().splitlines()
        if found.code not in (0, 1, 2) or (found.code and not lines) or not all(map(str.isprintable, lines)):
            yield f"{FAILED}: {where}: {found}"
        elif again.code:
            yield f"{FAILED}: {where}: then {again}"
        elif name == "train":
            same = "refused in a line, then ended as the unbroken run" if found.code else "not needed"
            yield held(partial(assert_ends_as, out, clean / "out"), same)
        elif whole(out) != wanted:
            changed = {file for file, _ in whole(out).items() ^ wanted.items()}
            yield f"{FAILED}: {where}: then others: {changed}"
        elif halves := [file for file, content in left.items() if wanted.get(file) != content and fault == "full"]:
            yield f"{FAILED}: {where}: left {halves}"
        else:
            yield "refused in a line, nothing lost, then whole" if found.code else "not needed"
