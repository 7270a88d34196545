"""The benchmarks and the ablation run, in small: only a quiet machine gives figures that mean something."""

import importlib
import mmap
import os
import re
import shlex
import signal
import subprocess
import sys
from argparse import ArgumentParser
from pathlib import Path

import pytest
import torch

from benchmarks import common, data, family, finetune, gpu, inference, memory, scale, scene, segmentation, speedrun
from pointnet import PointNetClassifier
from pointnet.commands import train
from pointnet.training.run_folder import read_config, read_metrics
from tests.helpers import (
    ON_SAMPLES,
    OWN,
    ROOT,
    SAMPLES,
    SMALL,
    described,
    error_of,
    metrics_line,
    tiny,
    two_shapes,
    write_metrics,
    write_text,
)
from tests.readers import PAGES, commands_of
from tools import ablation

BENCHMARKS = [
    ("training_step", "--batch_size 2 --num_points 16", r"\| kept \| fp32 \| ours \| [\d.]+ \|"),
    ("inference", "--batch_size 2 --num_points 16 --stream 1000", r"\| 1,000 \| [\d.]+ \|"),
    ("neighbours", "--clouds 2 --num_points 64", r"\| nearest, K = 20 \| the products alone \| [\d.]+ \| [\d.]+ \|"),
    ("family", "pointnet2 --clouds 2 --num_points 64", r"\| kept \| pointnet2, 2 clouds \| step \| [\d,]+ \|"),
    ("family", "pointnet2 --clouds 2 --num_points 64 --precision bf16", r"64 points; bf16; gradients and logits equal"),
    ("spellings", "--sizes 2x3x4x5", r"\| `Linear` on \(B, N, C\) \| [*\d.]+ / [*\d.]+ \|"),
    ("data", "--repeat 1", r"\| ours, into the cache \| [\d.]+ \| [\d,]+ \| [\d.]+ \|"),
    ("memory", "--sizes 2x32", r"\| 2 x 32 \| [\d,]+ \| [\d,]+ \|"),
    ("scene", "--points 100", r"100 points, .* points/s; at most [\d,]+ MiB over"),
    ("scale", "--clouds 600 --points 16 --workers 2", r"\| shards in memory, 2 workers \| [\d,]+ \| [\d,]+ \|"),
    ("segmentation", "--part 2x16 --scene 2x16", r"\| kept \| scene \| step \| ours \| [\d.]+ \|"),
]
LONG = ("data", "family", "memory", "segmentation")  # to run, even in small


@pytest.fixture
def in_small(monkeypatch, bfloat16):
    """Benchmarks run in this process: a small product for the floor, a small hall, and no memory measured."""
    threads = torch.get_num_threads()
    monkeypatch.setattr(common, "WIDEST", (1, 8, 16, 32))
    monkeypatch.setattr(inference, "CHUNK", 256)
    monkeypatch.setattr(scene, "HALL", (1.5, 1.5, 3.0))
    monkeypatch.setattr(scale, "in_a_process", lambda out, points, workers, _: scale.measured(out, points, workers))
    for module in (data, family, inference, memory, segmentation):
        monkeypatch.setattr(module, "peak_memory", lambda *given, **options: 1.0)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("module", "flags", "row"),
    [pytest.param(*each, id=each[0], marks=[pytest.mark.slow] * (each[0] in LONG)) for each in BENCHMARKS],
)
def test_a_benchmark_checks_equality_and_prints_its_table(module, flags, row, in_small, capsys):
    importlib.import_module(f"benchmarks.{module}").main(["--rounds", "1", "--threads", "1", *flags.split()])
    printed = capsys.readouterr().out
    assert re.search(row, printed), printed


@pytest.mark.slow
def test_the_fine_tuning_table_is_of_runs_on_sets_that_it_makes(tmp_path, capsys):
    root = write_text(tmp_path, OWN, {"Tree": [0, 1], "Park bench": [0, 1, 2]}, sizes=(40, 40, 40))
    (root / "synsetoffset2category.txt").write_text("Tree\t01\nBench\t02\n")
    described(PointNetClassifier(3, **SMALL)).save_pretrained(tmp_path / "weights")
    words = ["--root", str(root), "--init", str(tmp_path / "weights"), "--files", "2", "--seeds", "0", "1"]
    words += ["--out", str(tmp_path / "runs"), "--epochs", "1", "--val_fraction", "0.5", "--num_points", "16"]
    finetune.main(words)
    said = capsys.readouterr().out
    assert re.search(r"\| 2 \| [\d.]+ ± [\d.]+% \| \d+ \| [\d.]+ ± [\d.]+% \| \d+ \| [\d.]+ ± [\d.]+% \| \d+ \|", said)
    made = tmp_path / "runs" / "2-files-0" / "data"
    assert {split: len([*(made / split).rglob("*.txt")]) for split in ("train", "test")} == {"train": 4, "test": 2}
    assert read_config(tmp_path / "runs" / "2-files-1" / "encoder-frozen").freeze
    with pytest.raises(SystemExit, match="Tree has 3 files; 3 to train on leave none to test"):
        finetune.main([*words, "--files", "3"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "flags", "row"),
    [
        ("epoch", "--clouds 8 --batch_size 4", r"\| \+ freed memory kept, as in `train.py` \| [\d.]+ \| [\d,]+ \|"),
        ("loaded", "--batch_size 2 --num_points 64", r"\| a busy process \| sleeping \| [\d.]+ \| [\d.]+ \|"),
        ("scene", "--las 300 --labelled 200 --width 0.1", r"(?s)show: .* MiB of its own.*predict: .* MiB of its own"),
        ("faults", "--only mutants/NPY --count 5", r"\| mutants/NPY \| .* \| 5 \| \d read; \d refused \|\nEverything"),
        ("scale", "--clouds 600 --points 16 --workers 1", r"\| shards in memory, 1 worker \| [\d,]+ \| [\d,]+ \|"),
    ],
)
def test_a_benchmark_is_a_command(module, flags, row):
    measured = [] if module == "faults" else ["--rounds", "1", "--threads", "1"]
    command = [sys.executable, "-m", f"benchmarks.{module}", *measured, *flags.split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.search(row, done.stdout), done.stdout


class Accepted(Exception):
    """Raised in place of the measurement."""


PRINTED = {line for page in PAGES for line in commands_of(page) if line.startswith("python -m benchmarks.")}


@pytest.mark.parametrize("line", sorted(PRINTED))
def test_the_flags_that_a_page_gives_a_benchmark_are_accepted(line, monkeypatch):
    def accept(self, *given):
        if parse(self, *given)[1]:
            self.error("there are others")
        raise Accepted

    parse = ArgumentParser.parse_known_args
    monkeypatch.setattr(ArgumentParser, "parse_known_args", accept)
    monkeypatch.setattr(sys, "argv", shlex.split(line)[2:])
    is_package = (ROOT / sys.argv[0].replace(".", "/")).is_dir()
    with pytest.raises(Accepted):
        importlib.import_module(sys.argv[0] + ".__main__" * is_package).main()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_peak_memory_is_what_a_function_adds():
    def touch():
        fresh = mmap.mmap(-1, 2**25)  # 32 MiB that no earlier test can have freed
        for page in range(0, len(fresh), mmap.PAGESIZE):
            fresh[page] = 1

    assert 31 < common.peak_memory(touch) < 34


def test_ctrl_c_ends_a_benchmark_in_a_line():
    come = "import os, signal, benchmarks; signal.signal(signal.SIGINT, signal.default_int_handler); "
    come += "os.kill(os.getpid(), signal.SIGINT); signal.pause()"
    ended = subprocess.run([sys.executable, "-c", come], cwd=ROOT, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGINT, "", "\nstopped\n")
    ended = subprocess.run([sys.executable, "-c", "import benchmarks; 1 / 0"], cwd=ROOT, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr.splitlines()[-1]) == (1, "ZeroDivisionError: division by zero")


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_ctrl_c_ends_the_process_that_measures_memory_without_a_word(capfd):
    with pytest.raises(EOFError):
        common.peak_memory(lambda: os.kill(os.getpid(), signal.SIGINT))
    assert capfd.readouterr() == ("", "")


SHARED = [*ON_SAMPLES, "--val_fraction", "0.25", "--recipe", "fast"]


def variations_of(folder: Path, text: str) -> list[str]:
    """The words of an ablation of these variations, whose runs go to `folder`/runs."""
    (folder / "variations.txt").write_text(text, encoding="utf-8")
    return [str(folder / "variations.txt"), "--out", str(folder / "runs"), *SHARED]


@pytest.mark.slow
def test_variations_are_compared_on_validation_alone_and_taken_up_again(tmp_path, monkeypatch, capsys, opened):
    def stopped(*given):
        raise KeyboardInterrupt

    out = tmp_path / "runs" / "no_smoothing"
    words = variations_of(tmp_path, "as it is:\n\n# what is left out\nno smoothing: --label_smoothing 0 # here\n")
    assert ablation.main([*words, "--seeds", "3"]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(train, "fit", stopped)
        assert ablation.main([*words, "--seeds", "3", "5"]) == 130
    assert ablation.main([*words, "--seeds", "3", "5"]) == 0
    assert set(opened) == {"train"}
    times = len(opened)
    assert ablation.main([*words, "--seeds", "3", "5"]) == 0
    assert len(opened) == times  # every run has its result
    printed = capsys.readouterr().out
    lines = [read_metrics(out / f"seed-{seed}")[0] for seed in (3, 5)]
    first = ablation.spread([100 * line["val_overall_accuracy"] for line in lines])
    last = ablation.spread([line["val_loss"] for line in lines])
    row = rf"\| no smoothing \| 2 \| {first} \| [\d.]+ ± [\d.]+ \| {last} \| [\d.]+ \|\n$"
    assert re.search(row, printed), printed
    assert "| no smoothing | 1 |" in printed
    assert ablation.spread([1.0, 2.0]) == "1.500 ± 0.707"
    assert "label_smoothing: 0.0\n" in (out / "config.yaml").read_text()


@pytest.mark.slow
def test_variations_follow_a_data_set_that_moved_but_no_other_setting(tmp_path, capsys):
    words = variations_of(tmp_path, "a: --label_smoothing 0")
    assert ablation.main([*words, "--seeds", "3"]) == 0
    moved = tmp_path / "moved"
    moved.symlink_to(ROOT / SAMPLES)
    assert ablation.main([*words, "--root", str(moved), "--seeds", "3", "7"]) == 0
    assert f"root: {moved}\n" in (tmp_path / "runs" / "a" / "seed-7" / "config.yaml").read_text()
    said = error_of(capsys, ablation.main, variations_of(tmp_path, "a: --label_smoothing 0.1"))
    assert "was run with label_smoothing 0.0, got 0.1; give it another name" in said


@pytest.mark.parametrize(("text", "message"), [
    ("--ema 0.9", "line 1: must be a new name, a colon and flags, got '--ema 0.9'"),
    ("a b:\na_b: --ema 0.9", "line 2: must be a new name"),
    ("\ufeffa b:\na_b: --ema 0.9", "line 2: must be a new name"),
    ("a: --emma 0.9", "did you mean '--ema'?"),
    ("a: --val_fraction 0", "a: is compared on validation, so --val_fraction must be above 0"),
    ("a:\nb: --task part --dataset shapes --recipe part", "got classification, part"),
])  # fmt: skip
def test_variations_that_cannot_be_compared_are_refused(text, message, tmp_path, capsys):
    assert message in error_of(capsys, ablation.main, variations_of(tmp_path, text))


def test_a_row_is_of_the_epoch_that_was_chosen(tmp_path):
    scores = [{"val_overall_accuracy": a, "val_mean_class_accuracy": a / 2, "val_loss": 1 - a} for a in (0.5, 0.8, 0.6)]
    write_metrics(tmp_path, *(metrics_line(epoch, **score) for epoch, score in enumerate(scores, 1)))
    (tmp_path / "result.json").write_text('{"test": null, "val": null, "selected_epoch": 2, "seconds": 90}')
    titles = ["overall_accuracy", "mean_class_accuracy"]
    assert ablation.row("a", [tmp_path], titles) == "| a | 1 | 80.000 | 40.000 | 0.200 | 1.5 |"
    smoothed = metrics_line(2, **scores[1] | {"val_loss": 0.9, "val_cross_entropy": 0.2})
    write_metrics(tmp_path, metrics_line(1, **scores[0]), smoothed)
    assert "| 0.200 |" in ablation.row("a", [tmp_path], titles), "the loss without smoothing, in every row"
    assert ablation.row("b", [], titles) == "| b | 0 |  |  |  |  |"


def test_the_benchmark_of_a_gpu_goes_on_where_it_stopped(tmp_path, monkeypatch, capsys):
    measured = []
    row = {"what": "step", "way": "ours", "ms": 2.5, "clouds_per_second": 1234.5, "times_faster": 2.0, "mib": None}

    def stub(name, precision, *given):
        measured.append((name, precision))
        return [{"network": name, "precision": precision, **row}]

    monkeypatch.setattr(gpu, "rows", stub)
    monkeypatch.setattr(gpu, "printed", lambda *words: " ".join(words))
    command = ["--device", "cpu", "--out", str(tmp_path), "--networks", "dgcnn"]
    gpu.main([*command, "--minutes", "-1"])
    assert capsys.readouterr().out == "stopped before dgcnn, fp32; the same command continues there\n"
    gpu.Found(tmp_path, common.machine("cpu")).add("dgcnn, fp32", stub("dgcnn", "fp32"))
    gpu.main(command)
    assert measured == [("dgcnn", precision) for precision in gpu.PRECISIONS]
    table = (tmp_path / "gpu.md").read_text()
    assert "| dgcnn | bf16 | step | ours | 2.50 | 1,234 | 2.00 |  |" in table
    gpu.main([*command, "--root", "/data"])
    epoch = "an epoch of ModelNet40: benchmarks.epoch --root /data --device cpu"
    assert epoch in (tmp_path / "gpu.md").read_text().splitlines()
    with pytest.raises(ValueError, match="take another --out$"):
        gpu.Found(tmp_path, "another")


@pytest.mark.parametrize("benchmark", [gpu, speedrun], ids=["gpu", "speedrun"])
def test_without_a_gpu_its_benchmark_says_so(tmp_path, monkeypatch, capsys, benchmark):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    benchmark.main(["--out", str(tmp_path / "out")])
    assert capsys.readouterr().out == "no CUDA device: nothing was measured\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_benchmark_of_a_gpu_in_small(tmp_path, in_small, capsys):
    small = ["--networks", "pointnet", "--clouds", "2", "--num_points", "16", "--rounds", "1"]
    gpu.main(["--device", "cpu", "--out", str(tmp_path), *small])
    lines = re.findall(r"\| pointnet \| (\w+) \| (\w+) \| (\w+) \| [\d.]+ \|", capsys.readouterr().out)
    assert len(set(lines)) == len(lines) == 3 * 2 * 2


def test_a_speedrun_ends_with_the_epoch_whose_validation_is_at_the_target(tmp_path):
    train = two_shapes(per_class=12)
    seconds, epochs = speedrun.timed(tiny(tmp_path / "reached"), train, 0.0)
    assert (seconds > 0, epochs, len(read_metrics(tmp_path / "reached"))) == (True, 1, 1)
    assert speedrun.timed(tiny(tmp_path / "never", epochs=2), train, 2.0)[1] == 0


def test_a_speedrun_looks_at_the_test_split_once_at_its_end(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(speedrun.RECIPES, "fast", tiny("unused", batch_size=8))
    speedrun.main(["--root", SAMPLES, "--device", "cpu", "--target", "0", "--out", str(tmp_path / "out")])
    assert re.search(r"; [\d.]+ s to 0.0% on validation; [\d.]+% on test\n$", capsys.readouterr().out)
