"""The package is light and explained, and what the README and the pages of docs/ say is true."""

import dataclasses
import importlib
import json
import re
import shutil
import subprocess
from types import SimpleNamespace

import pytest
import torch
import yaml

import pointnet
import pointnet.datasets
import pointnet.layers
from pointnet import __main__ as command_line
from pointnet.commands.flags import FLAGS
from pointnet.commands.train_flags import parse_command
from pointnet.evaluation.tasks import titles_of
from pointnet.extras import PACKAGES
from pointnet.models import MODELS
from pointnet.training import TrainConfig
from tests import conftest
from tests.helpers import ROOT, count_multiply_adds

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted(path.stem for path in (ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("module", [pointnet, pointnet.layers, pointnet.datasets], ids=lambda module: module.__name__)
def test_every_public_name_is_there_and_says_what_it_is(module):
    for name in module.__all__:
        assert getattr(getattr(module, name), "__doc__", None), name


def test_no_file_of_the_repository_is_large():
    if not (shutil.which("git") and (ROOT / ".git").exists()):
        pytest.skip("needs git and a clone")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    sizes = {name: path.stat().st_size for name in listed.stdout.split("\0") if (path := ROOT / name).is_file()}
    assert {name: size for name, size in sizes.items() if size > 10e6} == {}  # as a data set that a test has left


def test_the_version_is_the_packages():
    assert f'\nversion = "{pointnet.__version__}"\n' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f"## {pointnet.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    cited = yaml.safe_load(citation)
    assert cited["version"] == pointnet.__version__
    assert f"# {cited['title']}\n" in README
    assert f"title = {{{cited['title']}}}" in citation  # its BibTeX
    assert f"version = {{{cited['version']}}}" in citation


def test_the_script_is_the_command_line():
    described = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    module, name = re.search(r'^pointnet = "([\w.]+):(\w+)"$', described, re.MULTILINE).groups()
    assert getattr(importlib.import_module(module), name) is command_line.main


def test_what_is_printed_where_an_extra_is_missing_installs_what_the_extra_does():
    described = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for extra, packages in PACKAGES.items():
        (listed,) = re.findall(rf"^{extra} = \[(.*)\]$", described, re.MULTILINE)
        assert re.findall(r'"([\w-]+)>', listed) == packages.split(), extra


def test_every_setting_is_explained():
    for field in dataclasses.fields(TrainConfig):
        assert len(field.metadata["help"]) > 5, field.name


def commands(text: str) -> list[str]:
    return [line for block in re.findall(r"```(?:bash|sh)\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]


def flags_of(capsys, call, *words: str) -> set[str]:
    """The flags that a help text names."""
    with pytest.raises(SystemExit):
        call([*words])
    return set(re.findall(r"--\w+", capsys.readouterr().out))


def test_the_readmes_two_commands_install_with_the_constraints():
    installs = [line for line in commands(README) if "pip install" in line]
    assert len(installs) == 2
    assert all("-c constraints.txt" in line for line in installs)
    assert installs[0].endswith("python train.py --dataset shapes")
    assert installs[1].endswith("python -m pytest")


@pytest.mark.parametrize(
    "page", ["README.md", "data/README.md", *(f"docs/{name}.md" for name in PAGES), "docs/records/README.md"]
)
def test_every_flag_a_page_prints_exists(page, capsys):
    known = {"train.py": flags_of(capsys, parse_command, "--help_all")}
    known |= {f"pointnet {name}": flags_of(capsys, command_line.main, name, "--help") for name in FLAGS}
    text = (ROOT / page).read_text(encoding="utf-8")
    for line in commands(text) + re.findall(r"`((?:python|pip) [^`\n]+)`", text):
        for command, words in known.items():
            if f"{command} " in line:
                assert set(re.findall(r"(?<!\S)--\w+", line.split(command, 1)[1])) <= words, line
    torchrun = {"--max_restarts", "--nnodes", "--rdzv_backend", "--rdzv_endpoint", "--rdzv_id"}
    # A wrong one, two former ones, two of tools, one of TensorBoard, six of benchmarks.
    elsewhere = {"--epoch", "--mix", "--cuda_graph", "--meshes", "--las", "--logdir"}
    elsewhere |= {"--clouds", "--renormalize", "--networks", "--only", "--count", "--frames"}
    others = torchrun.union(elsewhere, *known.values())
    assert set(re.findall(r"`(--\w+)", text)) <= others


def test_every_extra_that_a_page_installs_exists():
    described = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    pages = README + "".join((ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in PAGES)
    listed = re.findall(r"'\.\[([\w,]+)\]'", pages)
    assert "tensorboard" in listed
    for extra in ",".join(listed).split(","):
        assert f"\n{extra} = [" in described, extra


@pytest.mark.parametrize("path", [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")], ids=lambda path: path.name)
def test_every_file_and_test_a_page_names_exists(path):
    text = path.read_text(encoding="utf-8")
    for file in re.findall(r"`((?:pointnet|tests|docs|data|benchmarks)/[\w/.]+)`", text):
        assert (ROOT / file).exists(), file
    suite = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").glob("*.py"))
    for test in re.findall(r"\btest_\w+\b(?!\.py)", text):
        assert f"def {test}(" in suite, test
    for module in re.findall(r"python -m ((?:benchmarks|tests|tools)\.\w+)", text):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


@pytest.mark.parametrize(
    "page", ["README.md", *(f"docs/{name}.md" for name in ("files", "identities", "tnet", "training"))]
)
def test_the_python_of_a_page_runs(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    for name, value in (("OMP_WAIT_POLICY", "PASSIVE"), ("GOMP_SPINCOUNT", "10000")):  # what docs/training.md sets
        monkeypatch.setenv(name, value)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    names = {}
    for block in blocks:
        if "onnxruntime" not in block:  # tests/test_export.py runs those
            exec(compile(block, page, "exec"), {} if page == "README.md" else names)


def test_the_pages_and_the_records_quote_their_results():
    records, figures, training = (ROOT / "docs" / name for name in ("records", "benchmarks.md", "training.md"))
    for result in records.glob("*/result.json"):
        test = json.loads(result.read_text(encoding="utf-8"))["test"]
        first, second, *_ = titles_of(test)
        shown = figures if "overall_accuracy" in test else training
        for page in (path.read_text(encoding="utf-8") for path in (shown, records / "README.md")):
            assert f"**{test[first]:.2%}".replace("%", " %**") in page, result
            assert f"{test[second]:.2%}".replace("%", " %") in page, result


@pytest.mark.parametrize(
    ("source", "worker", "wanted"), [("TESTPATHS", False, "auto"), ("TESTPATHS", True, None), ("ARGS", False, None)]
)
def test_the_whole_suite_alone_starts_workers_and_workers_start_none(source, worker, wanted):
    kinds = pytest.Config.ArgsSource
    config = SimpleNamespace(args_source=kinds[source], ArgsSource=kinds, option=SimpleNamespace(numprocesses=None))
    config.pluginmanager = SimpleNamespace(hasplugin=lambda name: name == "xdist")
    if worker:
        config.workerinput = {}
    conftest.pytest_cmdline_main(config)
    assert config.option.numprocesses == wanted


@pytest.mark.slow
def test_the_table_of_models_holds_their_parameters_and_multiply_adds():
    table = (ROOT / "README.md").read_text(encoding="utf-8").partition("| `--model` |")[2].partition("\n\n")[0]
    rows = [row.strip("|").split("|")[:3] for row in table.splitlines()[2:]]
    shown = [(re.findall(r"`(\w+)`", names), *(cell.strip().split(", ") for cell in more)) for names, *more in rows]
    cloud = 0.01 * torch.randn(1, 3, 1024)  # so dense that every ball is full
    assert sum(len(names) for names, *_ in shown) == 6
    for names, parameters, multiply_adds in shown:
        for name, count, adds in zip(names, parameters, multiply_adds, strict=True):
            model = MODELS[name](num_classes=40)
            assert count == f"{sum(each.numel() for each in model.parameters()) / 1e6:.2f} M", name
            assert adds == f"{count_multiply_adds(model, cloud) / 1e6:,.0f} M", name
