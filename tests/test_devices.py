"""Threads: as many as there are free cores, unless somebody says otherwise, and waiting without spinning; bfloat16
where a processor has it."""

import os
import subprocess
import sys

import pytest
import torch

from pointnet import devices
from pointnet.training import fit
from pointnet.training.run_folder import read_config
from tests.helpers import ROOT, tiny, two_shapes
from tests.processors import PROCESSORS


@pytest.fixture(autouse=True)
def threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu.max": "250000 100000"}, 2),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        ({"cpu.max": "nonsense"}, 8),
        ({}, 8),
    ],
)
def test_free_cores_are_those_of_the_affinity_within_the_quota(tmp_path, monkeypatch, files, cores):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(devices, "CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    assert devices.free_cores() == cores


@pytest.mark.parametrize(("count", "variable", "wanted"), [(0, None, 3), (2, None, 2), (2, "1", 2), (0, "1", None)])
def test_a_count_wins_over_the_environment_and_that_over_the_free_cores(monkeypatch, count, variable, wanted):
    monkeypatch.setattr(devices, "free_cores", lambda: 3)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if variable:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    torch.set_num_threads(1)
    said = devices.use_threads(count)
    assert torch.get_num_threads() == (wanted or 1)
    assert said.startswith(f"{wanted or 1} thread")
    assert "3 free cores" in said


def test_a_negative_count_is_refused():
    with pytest.raises(ValueError, match="threads must be at least 0, got -1"):
        devices.use_threads(-1)


@pytest.mark.parametrize(
    ("processor", "has"), [("Intel", False), ("matrix units", True), ("AMD", True), ("ARM", True), ("unknown", True)]
)
def test_a_processor_without_instructions_for_bfloat16_computes_in_float32_and_says_so(monkeypatch, processor, has):
    monkeypatch.setattr(devices, "capabilities", lambda: PROCESSORS[processor])
    cpu, x, given = torch.device("cpu"), torch.randn(2, 3), torch.randn(3, 4)
    assert devices.precision_on(cpu, "fp32") == devices.precision_in_words(cpu, "fp32") == "fp32"
    assert devices.precision_on(cpu, "bf16") == ("bf16" if has else "fp32")
    words = "bf16" if has else "fp32, as this processor has no instructions for bf16"
    assert devices.precision_in_words(cpu, "bf16") == words
    with devices.autocast(cpu, "bf16"):
        assert (x @ given).dtype == (torch.bfloat16 if has else torch.float32)
    assert devices.precision_on(torch.device("meta"), "bf16") == "bf16"


@pytest.mark.parametrize("processor", ["Intel", "AMD"])
def test_what_bfloat16_was_computed_in_is_said_and_kept(tmp_path, monkeypatch, processor):
    monkeypatch.setattr(devices, "capabilities", lambda: PROCESSORS[processor])
    lines, taken = [], "fp32" if processor == "Intel" else "bf16"
    result = fit(tiny(tmp_path / "run", epochs=1, precision="bf16"), two_shapes(per_class=8), log=lines.append)
    assert f"cpu, {taken}" in lines[0]
    assert ("no instructions for bf16" in lines[0]) == (taken == "fp32")
    assert result["environment"]["precision"] == taken
    assert read_config(tmp_path / "run").precision == "bf16"


SPY = """
import atexit, os, sys
class Spy:
    def find_spec(self, name, *more):
        if name == "torch":
            print("policy", os.environ.get("OMP_WAIT_POLICY"), file=sys.stderr)
            sys.meta_path.remove(self)
sys.meta_path.insert(0, Spy())
atexit.register(lambda: print("policy", os.environ.get("OMP_WAIT_POLICY"), file=sys.stderr))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("entry", "given", "policy"),
    [
        (["train.py", "--help"], {}, "PASSIVE"),
        (["-m", "pointnet", "predict", "missing.off"], {}, "PASSIVE"),
        (["train.py", "--help"], {"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE"),
        (["-m", "pointnet", "--help"], {"GOMP_SPINCOUNT": "9"}, "None"),
    ],
)
def test_programs_let_threads_sleep_before_torch_is_loaded_unless_the_user_says_how(tmp_path, entry, given, policy):
    (tmp_path / "sitecustomize.py").write_text(SPY)
    clean = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    paths = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run([sys.executable, *entry], cwd=ROOT, env=clean | paths | given, capture_output=True, text=True)
    said = [line for line in done.stderr.splitlines() if line.startswith("policy")]
    assert said
    assert set(said) == {f"policy {policy}"}
