"""What trained weights are worth with few files: a classifier from scratch, on a frozen encoder, and trained whole.

python -m benchmarks.finetune --root ../shared/data/psb_parts_dev

The categories of a set in ShapeNetPart's text layout are the classes. Of each, n files are drawn by the seed to train
on, a fifth of which choose the epoch; all others are the test split. Each run is `train.py` on such a folder. The
table has the mean and standard deviation over the seeds, and the mean seconds of CPU time of a run, which other work on
the machine changes little. Called again, it keeps finished runs.

    --files     how many files of a class (psb_parts_dev has 16, so 13 is the most that leaves three to test)
    --init      the weights
    --set_only  make the folders and stop, to compare settings on validation (`python -m tools.ablation`)
    others      flags of `train.py` for every run, such as --num_points 512 --early_points 128, to be quick
"""

import argparse
import random
import shutil
import statistics
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

from benchmarks.common import machine
from pointnet.commands import train
from pointnet.devices import use_threads
from pointnet.models import DEFAULTS
from pointnet.names import no_folder
from pointnet.training.run_folder import read_result
from pointnet.training.seeds import percent

# The files are y up, face any way, and hold x y z nx ny nz part.
DATA = "--dataset folder --up y --columns x,y,z,_,_,_,_ --rotate 180".split()
WAYS = {
    "from scratch": "--tnet_width 0.25 --epochs 20 --early_share 0.95 --val_fraction 0.2".split(),
    "encoder frozen": ["--init", "{init}", "--freeze"],
    "whole": ["--init", "{init}"],
}


def make_set(root: Path, out: Path, count: int, seed: int) -> Path:
    """A folder of links for the data set folder: `train/` with so many files of each category, and `test/`."""
    listing = root / "synsetoffset2category.txt"
    if not listing.is_file():
        reason = "no such file" if root.is_dir() else no_folder(root)
        raise SystemExit(f"{listing}: {reason}; a set in ShapeNetPart's text layout is wanted")
    for line in listing.read_text(encoding="utf-8-sig").splitlines():
        category, folder = line.split()
        files = sorted((root / folder).glob("*.txt"))
        if len(files) <= count:
            raise SystemExit(f"{category} has {len(files)} files; {count} to train on leave none to test")
        random.Random(f"{seed}/{category}").shuffle(files)
        for i, file in enumerate(files):
            link = out / ("train" if i < count else "test") / category / file.name
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to(file.resolve())
    return out


def trained(words: Sequence[str], out: Path) -> tuple[float, float]:
    """The test accuracy of a run, made now or before, and its seconds of CPU time."""
    seconds = out / "cpu_seconds.txt"
    if not seconds.is_file():
        shutil.rmtree(out, ignore_errors=True)  # it was stopped, and its time with it
        before = time.process_time()
        with open(f"{out}.log", "w", encoding="utf-8") as log, redirect_stdout(log):
            code = train.main([*words, "--out", str(out)])
        if code:
            raise SystemExit(code)
        seconds.write_text(f"{time.process_time() - before:.1f}\n")
    return read_result(out)["test"]["overall_accuracy"], float(seconds.read_text())


def main(arguments: Sequence[str] | None = None) -> None:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/finetune"))
    parser.add_argument("--files", type=int, nargs="+", default=[5, 10, 13])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--init", default=DEFAULTS["classification"])
    parser.add_argument("--set_only", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    flags, more = parser.parse_known_args(arguments)
    folders = {(n, seed): flags.out / f"{n}-files-{seed}" for n in flags.files for seed in flags.seeds}
    sets = {key: make_set(flags.root, folder / "data", *key) for key, folder in folders.items()}
    if flags.set_only:
        print("\n".join(map(str, sets.values())))
        return
    use_threads(flags.threads)
    print(f"{machine('cpu')}; weights: {flags.init}\n")
    print(f"| files of a class | {' | '.join(f'{way} | seconds' for way in WAYS)} |\n{'|-' * (1 + 2 * len(WAYS))}|")
    for n in flags.files:
        cells = []
        for way, words in WAYS.items():
            chosen = [word.format(init=flags.init) for word in words]
            runs = []
            for seed in flags.seeds:
                where = ["--root", str(sets[n, seed]), "--seed", str(seed), "--threads", str(flags.threads)]
                runs.append(trained([*chosen, *DATA, *where, *more], folders[n, seed] / way.replace(" ", "-")))
            accuracies, seconds = zip(*runs, strict=True)
            spread = statistics.stdev(accuracies) if len(runs) > 1 else None
            cells += [percent(statistics.fmean(accuracies), spread), f"{statistics.fmean(seconds):.0f}"]
        print(f"| {n} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
