"""The package is light and explained, and what the README and the pages of docs/ say is true."""

import dataclasses
import importlib
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

import pointnet
import pointnet.datasets
import pointnet.layers
from pointnet import __main__ as command_line
from pointnet.commands.flags import FLAGS
from pointnet.commands.parser import OneLineParser
from pointnet.commands.train_flags import parse_command
from pointnet.evaluation.tasks import titles_of
from pointnet.training import TrainConfig

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_importing_the_package_pulls_torch_and_numpy_and_nothing_heavier():
    heavy = ["trimesh", "h5py", "jsonargparse", "safetensors", "yaml", "tqdm", "scipy"]
    heavy += ["huggingface_hub", "onnx", "onnxruntime"]
    code = f"import sys; import torch; before = set(sys.modules); import pointnet; print([m for m in {heavy} "
    code += "if m in set(sys.modules) - before])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("module", [pointnet, pointnet.layers, pointnet.datasets], ids=lambda module: module.__name__)
def test_every_public_name_is_there_and_says_what_it_is(module):
    for name in module.__all__:
        assert getattr(getattr(module, name), "__doc__", None), name


def test_the_version_is_the_packages():
    assert f'\nversion = "{pointnet.__version__}"\n' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f"## {pointnet.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_script_is_the_command_line():
    described = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    module, name = re.search(r'^pointnet = "([\w.]+):(\w+)"$', described, re.MULTILINE).groups()
    assert getattr(importlib.import_module(module), name) is command_line.main


def test_every_setting_is_explained():
    for field in dataclasses.fields(TrainConfig):
        assert len(field.metadata["help"]) > 5, field.name


def test_what_a_walk_through_the_docs_leaves_behind_is_not_for_git():
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    assert {"runs/", "/show/", ".cache/"} <= set(ignored)  # the last beside meshes, data/samples among them


def test_the_readme_has_no_gaps():
    assert not re.search(r"\b(FIGURES|TODO|TBD|LAWS_AND_TABLE)\b", README)


def commands(text: str) -> list[str]:
    return [line for block in re.findall(r"```(?:bash|sh)\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]


def test_the_readmes_two_commands_install_with_the_constraints():
    installs = [line for line in commands(README) if "pip install" in line]
    assert len(installs) == 2
    assert all("-c constraints.txt" in line for line in installs)
    assert installs[0].endswith("python train.py --dataset shapes")
    assert installs[1].endswith("python -m pytest")


@pytest.mark.parametrize("page", ["README.md", "docs/training.md", "docs/tour.md"])
def test_every_flag_a_page_prints_exists(page):
    known = {f"--{field.name}" for field in dataclasses.fields(TrainConfig)}
    known |= {"--resume", "--config", "--recipe", "--help", "--help_all", "--seeds", "--dry_run", "--profile"}
    text = (ROOT / page).read_text(encoding="utf-8")
    in_a_line = re.findall(r"`((?:python|pip) [^`\n]+)`", text)
    assert commands(text)
    for line in commands(text) + in_a_line:
        if "train.py" in line:
            flags = re.findall(r"(?<!\S)--\w+", line.split("train.py")[1])
            assert set(flags) <= known, line
        for command, add_flags in FLAGS.items():
            if f"-m pointnet {command}" in line:
                flags = re.findall(r"(?<!\S)--\w+", line.split(command, 1)[1])
                parser = OneLineParser()
                add_flags(parser)
                assert set(flags) <= set(parser.format_help().split()), line
    others = {
        "--epoch",
        "--meshes",
        "--logdir",
        "--votes",
        "--json",
        "--up",
        "--model",
        "--category",
    }  # of other commands
    others |= {"--max_restarts", "--nnodes", "--rdzv_backend", "--rdzv_endpoint", "--rdzv_id"}  # of torchrun
    named = set(re.findall(r"`(--\w+)", text))
    assert named <= known | others, named - known - others


def test_every_command_of_the_training_page_is_accepted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    ours = [line.split()[2:] for line in commands(text) if line.startswith("python train.py")]
    assert len(ours) >= 8
    for words in ours:
        if "--resume" not in words:
            assert parse_command(words).config
    extras = re.findall(r"'\.\[(\w+)\]'", text)
    for extra in extras:
        assert f"\n{extra} = [" in (ROOT / "pyproject.toml").read_text(encoding="utf-8"), extra


def test_the_training_page_quotes_the_defaults_and_the_records():
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    config = TrainConfig()
    for name in ("weight_decay", "lr"):
        quoted = re.findall(rf"`--{name} ([\d.e-]+)`", text)
        assert quoted, name
        assert all(float(value) == getattr(config, name) for value in quoted), name
    assert (config.epochs, config.early_points, config.early_share, config.num_points) == (20, 256, 0.8, 1024)
    assert (config.scale, config.shift, config.label_smoothing, config.val_fraction) == (1.25, 0.1, 0.2, 0.1)
    record = ROOT / "docs" / "records" / "modelnet40_dev_seed0"
    lines = [json.loads(line) for line in (record / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    early, late = (
        statistics.median(line["seconds"] for line in lines if line["num_points"] == count) for count in (256, 1024)
    )
    assert f"an epoch took {early:.0f} s on 256 points and {late:.0f} s on 1,024" in text
    result = json.loads((record / "result.json").read_text(encoding="utf-8"))["test"]
    assert f"{result['overall_accuracy']:.2%}".replace("%", " %") in text
    seeds = [90.25, 92.75, 90.25, 90.50]
    assert f"**{statistics.fmean(seeds):.2f} ± {statistics.stdev(seeds):.2f} %**" in text


def test_every_file_the_readme_names_exists():
    named = re.findall(r"\]\((?!http)([^)#]+)", README) + re.findall(
        r"`((?:pointnet|tests|docs|data|benchmarks)/[\w/.]+)`", README
    )
    assert named
    for path in named:
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize(
    "page",
    [
        "CONTRIBUTING.md",
        "docs/benchmarks.md",
        "docs/identities.md",
        "docs/proof.md",
        "docs/shared_mlp.md",
        "docs/tour.md",
        "docs/training.md",
        "docs/records/README.md",
    ],
)
def test_every_file_and_test_a_page_names_exists(page):
    path = ROOT / page
    text = path.read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!http)([^)#]+)", text):
        assert (path.parent / link).exists(), link
    suite = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").glob("*.py"))
    for test in re.findall(r"\btest_\w+\b(?!\.py)", text):
        assert f"def {test}(" in suite, test
    for module in re.findall(r"python -m ((?:benchmarks|tests|tools)\.\w+)", text):
        assert (ROOT / (module.replace(".", "/") + ".py")).exists(), module


def test_every_module_the_readme_runs_exists():
    for line in commands(README):
        for module in re.findall(r"python -m ((?:tests|benchmarks|pointnet)[\w.]*)", line):
            base = ROOT / module.replace(".", "/")
            assert base.with_suffix(".py").exists() or (base / "__main__.py").exists(), line


def test_the_readmes_python_runs(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


def test_the_pages_and_the_records_quote_their_results():
    records, figures, training = (ROOT / "docs" / name for name in ("records", "benchmarks.md", "training.md"))
    for result in records.glob("*/result.json"):
        test = json.loads(result.read_text(encoding="utf-8"))["test"]
        first, second, *_ = titles_of(test)
        shown = figures if "overall_accuracy" in test else training
        for page in (path.read_text(encoding="utf-8") for path in (shown, records / "README.md")):
            assert f"**{test[first]:.2%}".replace("%", " %**") in page, result
            assert f"{test[second]:.2%}".replace("%", " %") in page, result
