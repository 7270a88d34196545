"""What runs where there is no CPU, on one: in a copy of the package every branch on the device goes the other way."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.helpers import ROOT

BRANCHES = {  # in ops/ and layers/
    r'device\.type == "cpu"': 'device.type == "none"',
    r'device\.type != "cpu"': 'device.type != "none"',
    r"\.get\([\w.]+\.device\.type,": '.get("cuda",',  # of a table of sizes
}
FILES = "pointnet2 pointnext dgcnn edgenet edges bins pooled".split()
# Elsewhere what is repeated is computed, and no index is looked at; sums of float32 go in an order that a CPU takes one
# after another, and then err by a few of its last places more. Products of pairs are not rounded to bfloat16, and
# blocks have any size.
OF_A_CPU = (
    "hardly_computed or an_index_of_no_point_is_refused or structure_of_larger_clouds or errs_at and Groups-0.0"
    " or under_autocast_neighbourhoods or few_sizes_on_a_cpu"
)


@pytest.mark.slow
def test_the_branches_of_other_devices_give_the_same(tmp_path):
    for name in ("pointnet", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("benchmarks", "data", "docs", "tools", "train.py", "pyproject.toml", "README.md"):
        (tmp_path / name).symlink_to(ROOT / name)
    turned = 0
    for path in (*tmp_path.glob("pointnet/ops/*.py"), *tmp_path.glob("pointnet/layers/*.py")):
        text = path.read_text()
        for branch, other in BRANCHES.items():
            text, count = re.subn(branch, other, text)
            turned += count
        path.write_text(text)
    assert turned >= 20
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", f"not ({OF_A_CPU})"]
    command += [f"tests/test_{name}.py" for name in FILES]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTEST_ADDOPTS": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
