import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

if not torch.cuda.is_available():  # kernels are interpreted, which is decided as Triton is imported
    os.environ.setdefault("TRITON_INTERPRET", "1")

from pointnet import devices
from pointnet.commands import train
from pointnet.datasets import packed, packing
from tests.helpers import ON_SAMPLES, SHARED_DATA
from tests.packs import EACH
from tests.processors import PROCESSORS

if "PYTEST_XDIST_WORKER" in os.environ:  # processes that share the cores; threads of each would wait for the others'
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"


def pytest_addoption(parser):
    parser.addoption(
        "--slow",
        action="store_true",
        help="run the tests marked slow too: further forms, and what takes long",
    )


def pytest_configure(config):
    """Deterministic: the same examples every time. No deadline: a loaded machine is not a failure."""
    examples = 60 if config.getoption("--slow") else 10
    settings.register_profile("suite", derandomize=True, deadline=None, database=None, max_examples=examples)
    settings.load_profile("suite")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """The whole suite runs on all cores, unless -n says otherwise; files that are named run in one process."""
    whole = config.args_source is config.ArgsSource.TESTPATHS and not hasattr(config, "workerinput")
    if whole and config.pluginmanager.hasplugin("xdist") and config.option.numprocesses is None:
        config.option.numprocesses, config.option.dist = "auto", "loadfile"


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--slow"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="marked slow; --slow runs it"))


def pytest_collectstart(collector):
    """What a module of tests draws as it is imported is the same in every run, whichever modules came before it."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def bfloat16(monkeypatch) -> None:
    """A processor with instructions for it, whichever this is."""
    monkeypatch.setattr(devices, "capabilities", lambda: PROCESSORS["AMD"])


@pytest.fixture(scope="session")
def sample_run(tmp_path_factory) -> Path:
    """A run on the sample of ModelNet40, by the command line."""
    out = tmp_path_factory.mktemp("runs") / "sample"
    assert train.main([*ON_SAMPLES, "--out", str(out)]) == 0
    return out


@pytest.fixture
def opened(monkeypatch) -> list[str]:
    """The splits that train.py opens, in order."""
    splits, open_dataset = [], train.open_dataset

    def counting(name, root, split, *more, **options):
        splits.append(split)
        return open_dataset(name, root, split, *more, **options)

    monkeypatch.setattr(train, "open_dataset", counting)
    return splits


@pytest.fixture
def real_modelnet() -> Path:
    """The folder of real ModelNet40 shapes, where there is one."""
    folder = SHARED_DATA / "modelnet40_dev"
    if not folder.is_dir():
        pytest.skip(f"needs {folder}")
    return folder


@pytest.fixture
def small_shards(monkeypatch):
    """Five clouds a shard, three shards mixed at a time."""
    monkeypatch.setattr(packing, "SHARD_BYTES", 5 * EACH)
    monkeypatch.setattr(packed, "WINDOW", 3)


@pytest.fixture(scope="module")
def one_thread():
    """A forked process cannot use its parent's thread pool, and sums differ with the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
