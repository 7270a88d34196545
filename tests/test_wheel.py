"""The wheel alone, outside the checkout: it trains, predicts and reports."""

import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

import pointnet
from pointnet.models import shipped
from tests.helpers import ON_SAMPLES, ROOT, SAMPLES


@pytest.fixture
def installed(tmp_path) -> Path:
    """The folder of programs of an environment that holds the wheel, and what the suite's own has, but no checkout."""
    pytest.importorskip("hatchling", reason="needs hatchling, of the extra dev")
    pip = [sys.executable, "-m", "pip"]
    build = [*pip, "wheel", "--quiet", "--no-build-isolation", "--no-deps", "--wheel-dir", tmp_path / "out", ROOT]
    subprocess.run(build, check=True, cwd=tmp_path)
    (wheel,) = (tmp_path / "out").iterdir()
    assert wheel.stat().st_size <= 30e6
    venv.create(tmp_path / "env", symlinks=True)
    (site,) = (tmp_path / "env").glob("lib/python3*/site-packages")
    # As a path among others: what an editable install has written beside the packages is not followed.
    (site / "others.pth").write_text(sysconfig.get_path("purelib"))
    programs = tmp_path / "env" / "bin"
    install = [*pip, "--python", programs / "python", "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True, cwd=tmp_path)
    return programs


@pytest.mark.slow
def test_the_wheel_alone_trains_predicts_and_reports(installed, tmp_path):
    away = tmp_path / "away"
    away.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def printed(*words: str) -> str:
        run = subprocess.run(words, cwd=away, env=environment, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        return run.stdout

    python, script = str(installed / "python"), str(installed / "pointnet")
    code = "import pointnet; print(pointnet.__file__); print(*pointnet.models.shipped())"
    where, names = printed(python, "-c", f"import pointnet.models; {code}").splitlines()
    assert Path(where).is_relative_to(tmp_path / "env")
    assert names.split() == shipped()
    assert printed(script, "--version") == printed(python, "-m", "pointnet", "--version")
    assert f"pointnet-shared-mlp {pointnet.__version__}, " in printed(script, "--version")
    ended = printed(script, "train", *ON_SAMPLES, "--out", "runs/x")
    assert "test: " in ended
    for command in re.findall(r"python -m pointnet (?:report|evaluate) \S+", ended):
        printed(python, *command.split()[1:])
    assert (away / "runs" / "x" / "report" / "index.html").exists()
    for more in ([], ["--model", "runs/x"], ["--task", "part"]):
        assert "chair.off" in printed(script, "predict", f"{SAMPLES}/files/chair.off", *more)
    printed(script, "show", f"{SAMPLES}/files/chair.off")
    assert sorted(path.name for path in away.iterdir()) == ["labels", "runs", "show"]
