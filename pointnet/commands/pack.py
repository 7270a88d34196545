"""`python -m pointnet pack`: a data set as shards, few large files that training streams."""

from argparse import Namespace
from pathlib import Path

from pointnet.datasets import open_dataset
from pointnet.datasets.catalog import OWN_FILES
from pointnet.datasets.lines import lines_about, skipped_files
from pointnet.datasets.packing import Packed, pack_split
from pointnet.evaluation.contract_of_data import contract_of_data, said_by
from pointnet.names import printable, say

SPLITS = ("train", "test")


def run(flags: Namespace) -> int:
    """Packs both splits; returns 1 where files were skipped."""
    root, out = Path(flags.root), Path(flags.out)
    if flags.dataset in OWN_FILES and root.resolve() in (out.resolve(), *out.resolve().parents):
        raise ValueError(f"{out}: is in {root}, where shards would be read as files of the set; choose another folder")
    how = {name: getattr(flags, name) for name in "features up columns block strict download task".split()}
    if flags.dataset == "packed":
        raise ValueError("the data set is packed already; name what it was packed from")
    opened = {split: open_dataset(flags.dataset, root, split, flags.num_points, **how) for split in SPLITS}
    for split, data in opened.items():
        if said_by(data) is None:  # measured once here, and not each time that the shards are opened
            contract = contract_of_data(data, num_points=flags.num_points)
            data.channel_names, data.scale, data.centre = contract.channels, contract.scale, contract.centre
        packed = pack_split(data, out / split, flags.task, root, flags.keep)
        say(f"{out / split}/: {what_was_packed(packed)}")
    for line in lines_about([*opened.values()]):
        say(line)
    if skipped := skipped_files([*opened.values()]):
        say("\n".join([f"{len(skipped)} file{'s' * (len(skipped) != 1)} skipped:", *skipped]))
    train = f"python train.py --dataset packed --root {printable(str(out))} --task {flags.task}"
    say(f"next: {train} --num_points {flags.num_points}")
    return 1 if skipped else 0


def what_was_packed(packed: Packed) -> str:
    """How much was packed, and how exactly."""
    shards = f"{packed.shards:,} shard{'s' * (packed.shards != 1)}"
    exact = "in single precision: half would move points by more than a thousandth of a cloud's width, or change labels"
    if packed.half:
        exact = f"{packed.half:,} in half precision, which moves points by up to {packed.moved:.1e} of a cloud's width"
    return f"{packed.clouds:,} clouds in {shards}, {packed.size / 1e6:,.1f} MB; {exact}"
