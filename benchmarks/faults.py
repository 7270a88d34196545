"""Faults of every kind, at full counts: what was done, how often, and what came of it: docs/reliability.md.

python -m benchmarks.faults [--only kills bits/weights ...] [--count N] [--page docs/reliability.md]

Each row is measured alone, and replaces its line in the page's table, so that an interrupted campaign goes on with
--only. Everything is seeded. The exit code is 1 if anything did not hold.
"""

import argparse
import builtins
import contextlib
import errno
import io
import json
import multiprocessing
import os
import pickle
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import timeit
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from tqdm import tqdm

from pointnet import PointNetClassifier, load_model
from pointnet import __main__ as command_line
from pointnet.datasets import shapes, workers
from pointnet.datasets.cache import cached_clouds
from pointnet.datasets.notes import read_note, write_note
from pointnet.datasets.packed import open_packed
from pointnet.datasets.shape_classes import BUILDERS
from pointnet.files import write_atomically, write_json
from pointnet.inference.label import label_points
from pointnet.models.ports import load_port
from pointnet.pages.viewer import View, write_page
from pointnet.points.read import read_cloud
from pointnet.training import fit
from pointnet.training.checkpoint import header, load_checkpoint, save_checkpoint
from pointnet.training.claim import claimed
from pointnet.training.run_folder import read_config, read_metrics, read_result
from pointnet.world import World, joined_world
from tests.helpers import HOSTILE, SMALL, assert_ends_as, before_long, described, pack, quiet, tiny, two_shapes
from tests.mutants import read_mutants
from tests.pages import Page
from tests.ports import PortClassifier, trained
from tests.whole_files import FILES, FORMATS

Trials = Iterator[str]  # what came of each; the first of the words is FAILED where something did not hold
FORK = multiprocessing.get_context("fork")
FAILED = "FAILED"
SECONDS, PATIENCE = 60, 5  # with one trial, and with a rank whose other was killed


class Row(NamedTuple):
    """A line of the table."""

    what: str  # is done in each trial
    count: int  # of trials at full count; 0: one for each write
    trials: Callable[[int, Path], Trials]


def held(check: Callable[[], object], outcome: str) -> str:
    """The outcome of a trial whose check passes."""
    try:
        check()
        return outcome
    except Exception as error:
        return f"{FAILED}: {' '.join(repr(error).split())[:200]}"


# Killed runs.


def trains(out: Path, feed: str, rank: int, ranks: int, port: int) -> None:
    """Goes on with the run in a process that may be killed: it must not hold tqdm's lock, which forks share."""
    tqdm.set_lock(threading.RLock())
    torch.set_num_threads(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    if ranks > 1:
        told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "MASTER_PORT": port, "MASTER_ADDR": "127.0.0.1"}
        os.environ |= {name: str(value) for name, value in told.items()} | {"TORCHELASTIC_RUN_ID": "faults"}
    config = tiny(out, epochs=2, batch_size=4, ema=0.9, jitter=0.01, feed=feed)
    resume = (out / "checkpoint.pt").exists()
    with joined_world("cpu"):
        fit(config, two_shapes(per_class=8), two_shapes(per_class=6, seed=1), resume=resume, log=quiet)


def warm(folder: Path) -> None:
    """Trains once in this process, so that forks need not load again what training loads."""
    torch.set_num_threads(1)
    with contextlib.redirect_stderr(io.StringIO()):
        fit(tiny(folder, epochs=1), two_shapes(per_class=6), log=quiet)


def start(out: Path, feed: str, ranks: int) -> list[Any]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [FORK.Process(target=trains, args=(out, feed, rank, ranks, port)) for rank in range(ranks)]
    for process in processes:
        process.start()
    return processes


def end(processes: list[Any], patience: float) -> list[int]:
    """The exit codes of processes, which are killed where they do not end in time, as torchrun does."""
    before = time.monotonic()
    for process in processes:
        process.join(max(before + patience - time.monotonic(), 0))
        if process.exitcode is None:
            process.kill()
            process.join()
    return [process.exitcode for process in processes]


def kills(feed: str, ranks: int, count: int, folder: Path) -> Trials:
    """Kills a process of a run at a random moment, and goes on; a run that ended is compared with the unbroken one."""
    moments, done, unbroken = random.Random(0), 0, folder / "unbroken"
    warm(folder / "first")
    begun = time.monotonic()
    assert end(start(unbroken, feed, ranks), SECONDS) == [0] * ranks
    length = time.monotonic() - begun
    while done < count:
        out, killed = folder / f"after{done}", 0
        while True:
            processes = start(out, feed, ranks)
            victim = processes[moments.randrange(ranks)]
            if done + killed < count:
                victim.join(moments.uniform(0, length))
                victim.kill()
                victim.join()
            codes = end(processes, PATIENCE if victim.exitcode else SECONDS)
            if victim.exitcode != -signal.SIGKILL:
                break
            killed += 1
        same = held(partial(assert_ends_as, out, unbroken), "ended as the unbroken run, bit for bit")
        yield from [f"{FAILED}: ended with {codes}" if any(codes) else same] * max(killed, any(codes))
        done += max(killed, any(codes))
        shutil.rmtree(out)


# Flipped bits.


def model_folder(folder: Path) -> Path:
    described(PointNetClassifier(3, **SMALL)).save_pretrained(folder)
    return folder


def answers(folder: Path) -> Any:
    """What a model folder holds, as it can be compared."""
    model = load_model(folder)
    state = {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}
    return state, model.arguments, model.classes, model.preprocessing


def run_folder(folder: Path) -> Path:
    fit(tiny(folder, epochs=2), two_shapes(per_class=6), two_shapes(per_class=2, seed=1), log=quiet)
    return folder


def in_run(name: str, read: Callable[[Path], Any]) -> Callable[[Path], tuple[Path, Callable[[], Any]]]:
    return lambda folder: (run_folder(folder) / name, partial(read, folder))


def numbered(file: Path) -> np.ndarray[Any, Any]:
    """Stands for sampling: the file's first byte, everywhere."""
    return np.full((3, 4), file.read_bytes()[0], np.float32)


def numbered_files(folder: Path) -> list[Path]:
    folder.mkdir(exist_ok=True)
    files = [folder / f"{i:04d}.bin" for i in range(20)]
    for i, file in enumerate(files):
        file.write_bytes(bytes([i]))
    return files


def read_numbered(files: list[Path]) -> list[float]:
    with patch.object(workers, "free_cores", lambda: 1), contextlib.redirect_stderr(io.StringIO()):
        found = cached_clouds(files, numbered, (3, 4), "a", files[0].parent)
    assert not found.bad, found.bad
    return list(found.points.ravel().tolist())


def in_cache(pattern: str) -> Callable[[Path], tuple[Path, Callable[[], Any]]]:
    def make(folder: Path) -> tuple[Path, Callable[[], Any]]:
        files = numbered_files(folder)
        read_numbered(files)
        (path,) = (folder / ".cache").glob(pattern)
        return path, partial(read_numbered, files)

    return make


def checkpoint(folder: Path) -> tuple[Path, Callable[[], Any]]:
    folder.mkdir()
    save_checkpoint(folder / "a.pt", {"model": {"weight": torch.arange(999.0)}, "epoch": 3})
    return folder / "a.pt", lambda: str(load_checkpoint(folder / "a.pt"))


def note(folder: Path) -> tuple[Path, Callable[[], Any]]:
    write_note(known := {"chair_1.off": True, "chair_2.off": False}, folder, "split")
    (path,) = (folder / ".cache").iterdir()

    def read() -> Any:
        with contextlib.redirect_stderr(io.StringIO()):
            return read_note(folder, "split") or known  # which is made again

    return path, read


def made_shapes(folder: Path) -> tuple[Path, Callable[[], Any]]:
    rng = np.random.default_rng(0)
    points = rng.random((len(BUILDERS) * 2, 3, shapes.NUM_POINTS), np.float32)
    whole = points, np.zeros_like(points[:, 0], np.uint8)

    def read() -> Any:
        with patch.object(shapes, "_generate", lambda _: whole), patch.dict(shapes.COUNTS, train=2):
            return [array.tobytes() for array in shapes._cached(folder / "a.npz", "train")]

    read()
    return folder / "a.npz", read


def labels_ply(folder: Path) -> tuple[Path, Callable[[], Any]]:
    (labelled,) = label_points([FILES / "stool.xyz"], num_points=64)
    labelled.write_ply(folder / "a.ply")
    return folder / "a.ply", lambda: [np.asarray(part).tobytes() for part in read_cloud(folder / "a.ply")[:4]]


def packed_set(folder: Path) -> Path:
    with contextlib.redirect_stderr(io.StringIO()), patch.object(workers, "free_cores", lambda: 1):
        pack(two_shapes(per_class=6), folder)
    return folder


def in_packed(name: str) -> Callable[[Path], tuple[Path, Callable[[], Any]]]:
    def make(folder: Path) -> tuple[Path, Callable[[], Any]]:
        def read() -> Any:
            data = open_packed(folder, "train", 32)
            points, labels = data.batch(torch.arange(len(data)))
            return points.numpy().tobytes(), labels.tolist(), data.classes, [*map(data.name_of, range(len(data)))]

        return packed_set(folder) / "train" / name, read

    return make


def half_packed(folder: Path) -> tuple[Path, Callable[[], Any]]:
    return packed_set(folder) / "train" / "shard-00000.npy", lambda: whole(packed_set(folder))


CHECKED, TEXT = True, False
# What is written, how it is made and read, and whether it has a checksum, which notices every bit.
WRITTEN: dict[str, tuple[Callable[[Path], tuple[Path, Callable[[], Any]]], bool]] = {
    "checkpoint.pt": (checkpoint, CHECKED),
    "model.safetensors": (
        lambda folder: (model_folder(folder) / "model.safetensors", partial(answers, folder)),
        CHECKED,
    ),
    "model.safetensors of a run": (in_run("model.safetensors", answers), CHECKED),
    "cached clouds": (in_cache("*.npy"), CHECKED),
    "listing of a cache": (in_cache(f"{'?' * 16}.json"), CHECKED),
    "hashes of a cache": (in_cache("contents-*.json"), CHECKED),
    "note": (note, CHECKED),
    "shapes.npz": (made_shapes, CHECKED),
    "packed shard": (in_packed("shard-00000.npy"), CHECKED),
    "packed samples": (in_packed("samples.npy"), CHECKED),
    "packed index": (in_packed("index.json"), CHECKED),
    "shard of an earlier pack": (half_packed, CHECKED),
    "config.json": (lambda folder: (model_folder(folder) / "config.json", partial(answers, folder)), TEXT),
    "config.yaml": (in_run("config.yaml", read_config), TEXT),
    "metrics.jsonl": (in_run("metrics.jsonl", read_metrics), TEXT),
    "result.json": (in_run("result.json", read_result), TEXT),
    "labels.ply": (labels_ply, TEXT),
}


def bits(kind: str, count: int, folder: Path) -> Trials:
    """Flips one bit anywhere in a file that we write, and reads it."""
    make, is_checked = WRITTEN[kind]
    path, read = make(folder / "written")
    good, wanted, flips = path.read_bytes(), read(), random.Random(0)
    for _ in range(count):
        damaged = bytearray(good)
        damaged[at := flips.randrange(len(good))] ^= 1 << (bit := flips.randrange(8))
        path.write_bytes(damaged)
        outcome = refused_or(read, path.parent)
        if isinstance(outcome, str):
            yield outcome if not outcome.startswith(FAILED) else f"{outcome} (bit {bit} of byte {at})"
        elif outcome.value == wanted:
            yield "nothing lost"
        else:
            yield "read as other text" if not is_checked else f"{FAILED}: bit {bit} of byte {at} goes through"


class Read(NamedTuple):
    value: Any


def refused_or(read: Callable[[], Any], named: Path) -> str | Read:
    """What `read` returns; "refused" for an error of one line that names a path; all else has failed."""
    try:
        with before_long(SECONDS):
            return Read(read())
    except (ValueError, OSError) as error:
        said = str(error)
        is_fine = str(named) in said and "\n" not in said and said.isprintable()
        return "refused" if is_fine else f"{FAILED}: said {said!r}"
    except BaseException as error:
        return f"{FAILED}: raised {error!r}"


# Full and read-only disks.

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


def whole(path: Path) -> dict[str, bytes]:
    """The bytes of all files below a folder, by name."""
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


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


# Hostile names.

CONTROLS = ("\x1b]0;mine\x07", "\x1b[2J", "\x1b]8;;a:b\x1b\\", "\x1b]52;c;YQ==\x07", "\x1bP", "\x9b31m", "\u202e")
CONTROLS += ("\r", "\b\b", "\x7f", "\t", "\v", "\x0e", "\u2028", "\u200b", "\ufeff", "\udcff", "\n")
SAYING = (
    "show folder --root {root} --out {out}",
    "show {root} --out {out}",
    "show folder --root {out} --out {out}",
    "evaluate pointnet_shapes --dataset folder --root {root}",
    "predict {root} --model pointnet_shapes",
    "predict nowhere{name} --model {name}",
    "{name}",
    "show --{name} shapes",
    "convert nowhere{name}",
    "train --dataset folder --root {root} --out {out} --{name} 1",
    "train --dataset {name} --root {root} --out {out}",
    "embed {root} --model pointnet_shapes --out {out}.npz",
    "report {root}",
)


def hostile_set(root: Path, name: str) -> Path:
    """A set of one's own whose classes, files and root have hostile names."""
    for kind in "ab":
        folder = root / f"root{name}" / f"{kind}{name}"
        folder.mkdir(parents=True)
        for i in range(3):
            shutil.copy(FILES / "stool.xyz", folder / f"{i}{name}.xyz")
        (folder / f"broken{name}.xyz").write_text(name, errors="replace")
        (folder / f"other.{name}").touch()
    return root / f"root{name}"


def terminal(count: int, folder: Path) -> Trials:
    """Runs commands on files and words with control characters in their names."""
    choice = random.Random(0)
    for i in range(count):
        name = "".join(choice.sample(CONTROLS, choice.randint(1, 4)))
        root, out_folder = hostile_set(folder / str(i), name), folder / str(i) / f"out{name}"
        known = {"root": str(root), "out": str(out_folder), "name": name}
        words = [word.format(**known) for word in SAYING[i % len(SAYING)].split(" ")]
        out, err = io.StringIO(), io.StringIO()
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = command_line.main(words)
        except SystemExit as error:  # of argparse
            code = error.code
        except BaseException as error:
            code = f"raised {error!r}"
        said = (out.getvalue() + err.getvalue()).replace("\n", "")
        yield "printable" if code in (0, 1, 2) and said.isprintable() else f"{FAILED}: {words}: {code} {said!r}"
        shutil.rmtree(folder / str(i))


SCRIPTS = (*HOSTILE, "<svg onload=alert(1)>", "javascript:alert(1)", "'><script>alert(1)</script>", "${alert(1)}")
SCRIPTS += ("]]><script>alert(1)</script>", "--><script>alert(1)</script>", "</title><script>alert(1)</script>")
SCRIPTS += ("<style>*{display:none}</style>", "&lt;script&gt;", "</textarea><img src=x onerror=alert(1)>", "\u2028")


def kinds_of(page: Path) -> set[Any]:
    """The elements of a page, each with the names of its attributes, and the words of its scripts and styles."""
    read = Page.read(page)
    texts = {read.texts.get(tag) for tag in ("script", "style")}
    return {(tag, *sorted(named)) for tag, named in read.elements} | texts


def pages_of(folder: Path, source: Path, name: str) -> dict[str, Path]:
    """The pages of a run, a set, its files and clouds, all of whose names have `name` in them."""
    as_file = name.replace("/", "\N{DIVISION SLASH}")
    shutil.copytree(source / "run", folder / f"run{as_file}")
    classes = [f"a{as_file}", f"b{as_file}"]
    for kind, renamed in zip("ab", classes, strict=True):
        shutil.copytree(source / "set" / kind, folder / f"set{as_file}" / renamed)
    config = folder / f"run{as_file}" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"classes": classes}))
    run, data = config.parent, folder / f"set{as_file}"
    cloud = read_cloud(data / classes[0] / "0.xyz").points
    for words in (
        ["report", str(run), "--root", str(data), "--out", str(folder / "report"), "--device", "cpu"],
        ["show", "folder", "--root", str(data), "--out", str(folder / "show")],
        ["predict", str(data / classes[0]), "--task", "part", "--out", str(folder / "parts")],
    ):
        assert (found := ended(words, folder)).code == 0, found
    views = [View(name, cloud, labels=np.zeros(len(cloud), int), label_names=[name], answer=name, notes=(name,))]
    write_page(folder / "views.html", views, name, name)
    made = {"report": folder / "report" / "index.html", "parts": folder / "parts" / "parts.html"}
    return made | {"show": folder / "show" / "folder.html", "views": folder / "views.html"}


def pages(count: int, folder: Path) -> Trials:
    """Writes pages about what has markup and scripts in its names."""
    source, choice = prepared(folder / "source"), random.Random(0)
    harmless = set().union(*map(kinds_of, pages_of(folder / "harmless", source, "x").values()))
    for i in range(-(-count // 4)):
        name = "".join(choice.sample(SCRIPTS, choice.randint(1, 3)))
        for page, path in pages_of(folder / str(i), source, name).items():
            more = kinds_of(path) - harmless
            yield f"{FAILED}: {page} of {name!r} has {more}" if more else "text"
        shutil.rmtree(folder / str(i))


# Poisoned caches.


class Malice:
    """A pickle of it calls a function when it is opened."""

    def __init__(self, function: Callable[..., Any], *given: Any):
        self.call = function, given

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def make_pipe(path: Path, *_: Any) -> None:
    path.unlink()
    os.mkfifo(path)


def make_folder(path: Path, *_: Any) -> None:
    path.unlink()
    (path / "x").mkdir(parents=True)


def link_to(target: str) -> Callable[..., None]:
    def make(path: Path, *_: Any) -> None:
        path.unlink()
        path.symlink_to(target)

    return make


def forge(path: Path, choice: random.Random, _: Path) -> None:
    """JSON of other values under a right hash, and any bytes in place of an array."""
    if path.suffix != ".json":
        path.write_bytes(choice.randbytes(choice.randrange(2000)))
        return
    known = json.loads(path.read_bytes().partition(b"\n")[2])
    key = choice.choice(list(known))
    known[key] = choice.choice([None, -1, 10**30, [], {}, "x", [[0]] * 20, [10**9] * 20, [-1] * 20, ["x"] * 20])
    path.unlink()
    write_json(path, known)


def pickled(path: Path, _: random.Random, ran: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([Malice(os.mkdir, str(ran))] * 20), allow_pickle=True)


def from_another(path: Path, choice: random.Random, _: Path) -> None:
    """The same file of a cache of other files."""
    others = numbered_files(path.parents[2] / "others")
    for file in others:
        file.write_bytes(bytes([choice.randrange(256)]))
    read_numbered(others)
    kind = "contents-*" if "contents" in path.name else "?" * 16
    (other,) = (others[0].parent / ".cache").glob(f"{kind}{path.suffix}")
    shutil.copy(other, path)


POISONS: dict[str, Callable[[Path, random.Random, Path], None]] = {
    "cut": lambda path, choice, _: os.truncate(path, choice.randrange(path.stat().st_size)),
    "empty": lambda path, *_: os.truncate(path, 0),
    "deep": lambda path, choice, _: write_atomically(path, b"[" * choice.randrange(100_000)),
    "pipe": make_pipe,
    "folder": make_folder,
    "endless": link_to("/dev/zero"),
    "nowhere": link_to("nowhere"),
    "itself": link_to("."),
    "forged": forge,
    "pickle": pickled,
    "another's": from_another,
}


def caches(count: int, folder: Path) -> Trials:
    """Puts something else in the place of a file of a cache, and reads the clouds."""
    choice, ran = random.Random(0), folder / "ran"
    files = numbered_files(folder / "set")
    wanted = read_numbered(files)
    for _ in range(count):
        pattern = choice.choice(["?" * 16 + ".npy", "?" * 16 + ".json", "contents-*.json"])
        (path,) = (folder / "set" / ".cache").glob(pattern)
        poison = choice.choice(list(POISONS))
        POISONS[poison](path, choice, ran)
        found = refused_or(partial(read_numbered, files), folder)
        is_right = isinstance(found, Read) and found.value == wanted and path.is_file() and not path.is_symlink()
        yield "made again" if is_right and not ran.exists() else f"{FAILED}: {poison} {path.suffix}: {found}"
        shutil.rmtree(folder / "others", ignore_errors=True)
        if not is_right:
            shutil.rmtree(folder / "set" / ".cache")
            read_numbered(files)


# Several writers at once.


def claims(out: Path) -> str:
    try:
        with claimed(out, World()):
            time.sleep(0.2)  # until the others have seen it
            return ""
    except ValueError as error:
        return str(error)


def fits(out: Path) -> str:
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())
    try:
        fit(tiny(out, epochs=1), two_shapes(per_class=6), log=quiet)
        return ""
    except ValueError as error:
        return str(error)


def caching(folder: Path) -> str:
    return "" if read_numbered([*folder.glob("*.bin")]) else "nothing"


def rewrites(path: Path) -> str:
    """Writes a file again and again, and reads it, whole, whoever wrote it last."""
    for i in range(20):
        write_atomically(path, bytes([i]) * 10_000, durable=False)
        if len(set(found := path.read_bytes())) != 1 or len(found) != 10_000:
            return "half a file"
    return ""


def at_once(work: Callable[[Path], str], path: Path, processes: int) -> list[str]:
    """What processes say that begin together, the silent ones first."""
    barrier, ends = FORK.Barrier(processes), FORK.SimpleQueue()

    def run() -> None:
        barrier.wait()
        try:
            ends.put(work(path))
        except BaseException as error:
            ends.put(f"raised {error!r}")

    started = [FORK.Process(target=run) for _ in range(processes)]
    for process in started:
        process.start()
    said = sorted(ends.get() for _ in started)
    for process in started:
        process.join()
    return said


def claiming(work: Callable[[Path], str], processes: int, count: int, folder: Path) -> Trials:
    """Of processes that begin in one folder together one has it, and the others say why not."""
    warm(folder / "first")
    for i in range(count):
        said = at_once(work, out := folder / str(i), processes)
        known = (line.startswith(f"{out}: ") and ("process" in line or "already holds" in line) for line in said[1:])
        yield "one wrote, the others were refused" if not said[0] and all(known) else f"{FAILED}: {said}"


def writing(count: int, folder: Path) -> Trials:
    """Processes write the same file, or cache the same files, at once."""
    for i in range(count):
        path = folder / str(i)
        is_cache = i % 2
        if is_cache:
            files = numbered_files(path)
        said = at_once(caching if is_cache else rewrites, path, 4)
        is_whole = not any(said) and (not is_cache or read_numbered(files)[::12] == [*range(20)])
        yield "whole" if is_whole else f"{FAILED}: {said}"


# Pickles that call something.


def payloads(ran: Path) -> list[Malice]:
    """What makes a folder when its pickle is opened, by functions that lists of known dangers have and have not."""
    there, script = str(ran), ran.with_suffix(".py")
    code = f"__import__('os').makedirs({there!r}, exist_ok=True)"
    script.write_text(code)
    plain = Malice(os.makedirs, there, 0o777, True)
    return [
        plain,
        Malice(os.system, f"mkdir -p {there}"),
        Malice(subprocess.call, ["mkdir", "-p", there]),
        Malice(builtins.exec, code),
        Malice(builtins.eval, code),
        Malice(timeit.timeit, code, "pass", time.perf_counter, 1),
        Malice(Path.mkdir, ran, 0o777, True, True),
        Malice(shutil.copytree, FILES, there),
        Malice(pickle.loads, pickle.dumps(plain)),
        Malice(torch.hub._import_module, "x", str(script)),
    ]


def in_checkpoint(path: Path, content: bytes) -> None:
    path.write_bytes(header(content) + content)


def pickles(count: int, folder: Path) -> Trials:
    """Opens a pickle that calls a function, in a place where weights, arrays or settings should be."""
    choice, ran = random.Random(0), folder / "ran"
    run, malices = run_folder(folder / "run"), payloads(ran)
    model_folder(folder / "model")
    settings = (run / "config.yaml").read_text()

    def yaml(path: Path, _: bytes) -> None:
        tag = choice.choice(["object/apply:os.mkdir", "object/new:os.mkdir", "object/apply:subprocess.call"])
        path.write_text(f"{settings}out: !!python/{tag} [{ran}]\n")

    places: dict[str, tuple[Callable[[Path, bytes], Any], Callable[[Path], Any]]] = {
        "model/model.safetensors": (Path.write_bytes, lambda path: load_model(path.parent)),
        "model/config.json": (Path.write_bytes, lambda path: load_model(path.parent)),
        "a.pth": (Path.write_bytes, load_port),
        "a.pt": (in_checkpoint, load_checkpoint),
        "b.pt": (Path.write_bytes, load_checkpoint),
        "run/config.yaml": (yaml, lambda path: read_config(path.parent)),
        **{f"a{suffix}": (Path.write_bytes, read_cloud) for suffix in (".npy", ".npz", ".h5", ".txt", ".ply", ".pcd")},
    }
    for _ in range(count):
        name = choice.choice(list(places))
        malice, stream = choice.choice(malices), io.BytesIO()
        held_by = choice.choice([malice, [malice], {"x": malice}, {"state_dict": {"x": malice}}])
        kind, protocol = choice.choice(["zip", "legacy", "bare", "npy", "npz"]), choice.randint(0, 5)
        if kind in ("npy", "npz"):
            array = np.array([[malice] * 3] * 4)
            np.save(stream, array, allow_pickle=True) if kind == "npy" else np.savez(stream, points=array)
        elif kind == "bare":
            pickle.dump(held_by, stream, protocol)
        else:
            torch.save(held_by, stream, pickle_protocol=max(protocol, 1), _use_new_zipfile_serialization=kind == "zip")
        write, read = places[name]
        path = folder / name
        before = path.read_bytes() if path.exists() else None
        write(path, stream.getvalue())
        found = refused_or(partial(read, path), path.parent)
        yield found if found == "refused" and not ran.exists() else f"{FAILED}: {kind} as {name}: {malice.call} {found}"
        shutil.rmtree(ran, ignore_errors=True)
        path.unlink() if before is None else path.write_bytes(before)


def mutants(kind: str, count: int, folder: Path) -> Trials:
    """Damages a file of a format, mostly where it counts, and reads it in ten times its size and 200 MB."""
    found = read_mutants(kind, count)
    yield from ["read"] * found.read + ["refused"] * found.refused
    yield from (f"{FAILED}: {failure}" for failure in found.failures)


ROWS = {
    "kills/resident": Row("`kill -9` of training, at any moment", 200, partial(kills, "resident", 1)),
    "kills/stream": Row("the same, its clouds loaded as they are needed", 200, partial(kills, "stream", 1)),
    "kills/two ranks": Row("the same of one of two processes", 200, partial(kills, "resident", 2)),
    **{f"bits/{kind}": Row("a flipped bit", 1000, partial(bits, kind)) for kind in WRITTEN},
    **{f"disk/{name}": Row(f"`{name}`, the disk full or read-only", 0, partial(disk, name)) for name in COMMANDS},
    **{f"mutants/{kind}": Row("a damaged file", 10_000, partial(mutants, kind)) for kind in FORMATS},
    "names/terminal": Row("control characters in names of files, folders, classes, words", 1000, terminal),
    "names/pages": Row("markup and scripts in the names that pages show", 1000, pages),
    "caches": Row("something else in the place of a cached file", 1000, caches),
    "writers/claims": Row("three processes claim a run folder at once", 200, partial(claiming, claims, 3)),
    "writers/runs": Row("two runs begin in one folder at once", 100, partial(claiming, fits, 2)),
    "writers/files": Row("four processes write a file, or a cache, at once", 200, writing),
    "pickles": Row("a pickle that calls a function, in the place of any file", 1000, pickles),
}
HEADING = "| row | what was done, each time | times | what came of it |"


def measured(name: str, count: int | None = None) -> Counter[str]:
    """What came of the trials of a row, and how often."""
    row = ROWS[name]
    with tempfile.TemporaryDirectory() as folder:
        return Counter(row.trials(row.count if count is None else count, Path(folder).resolve()))


def line(name: str, found: Counter[str]) -> str:
    """The row as a line of the table."""
    failed = sum(number for outcome, number in found.items() if outcome.startswith(FAILED))
    kinds = {outcome: number for outcome, number in found.items() if not outcome.startswith(FAILED)}
    came = "; ".join(f"{number:,} {outcome}" for outcome, number in sorted(kinds.items()))
    wrong = f"**{failed:,} did not hold**" if failed else ""
    return f"| {name} | {ROWS[name].what} | {found.total():,} | {'; '.join(filter(None, [wrong, came]))} |"


def write_line(page: Path, name: str, text: str) -> None:
    """Replaces the row's line in the page's table, which is in the order of `ROWS`."""
    before, heading, after = page.read_text(encoding="utf-8").partition(f"{HEADING}\n|-|-|-|-|\n")
    assert heading, f"{page} has no table with the heading {HEADING}"
    rows = list(takewhile(lambda each: each.startswith("|"), after.splitlines()))
    lines = {each.split("|")[1].strip(): each for each in rows} | {name: text}
    made = [lines[each] for each in ROWS if each in lines]
    rest = "".join(after.splitlines(keepends=True)[len(rows) :])
    page.write_text(before + heading + "".join(f"{each}\n" for each in made) + rest, encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    flags = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    flags.add_argument("--only", nargs="+", default=[""], help=f"rows, or what they begin with, of: {', '.join(ROWS)}")
    flags.add_argument("--count", type=int, help="trials of each row, in place of its full count")
    flags.add_argument("--page", type=Path, help="the page whose table gets the rows")
    args = flags.parse_args(arguments)
    chosen = [name for name in ROWS if name.startswith(tuple(args.only))]
    failures: list[str] = []
    print(f"{HEADING}\n|-|-|-|-|")
    for name in chosen:
        found = measured(name, args.count)
        failures += [f"{name}: {outcome}" for outcome in found if outcome.startswith(FAILED)]
        print(line(name, found), flush=True)
        if args.page:
            write_line(args.page, name, line(name, found))
    print("\n".join(failures) or "Everything held.")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
