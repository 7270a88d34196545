"""The six programs of docs/extending.md, each run."""

import re
import sys
import types

import numpy as np
import pytest

from pointnet import __main__ as command_line
from pointnet.datasets import DATASETS_OF
from pointnet.evaluation.tasks import TASKS
from pointnet.models import MODELS
from tests.forms import forms
from tests.helpers import ROOT

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
PROGRAMS = dict(re.findall(r"^## ([^\n]*)\n.*?```python\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE))
QUICK = ["--epochs", "1", "--num_points", "32", "--early_points", "0", "--width", "0.1", "--device", "cpu"]


@pytest.fixture(autouse=True)
def away(tmp_path, monkeypatch):
    """A folder to write to, with the samples, and the names that were known before."""
    (tmp_path / "data").symlink_to(ROOT / "data")
    monkeypatch.chdir(tmp_path)
    known = MODELS, TASKS["classification"].networks, DATASETS_OF["classification"]
    kept = [dict(each) for each in known]
    yield
    for each, before in zip(known, kept, strict=True):
        each.clear()
        each.update(before)


def run(title: str) -> dict:
    """The names that a program leaves."""
    names = {"__name__": "my_program"}
    exec(compile(PROGRAMS[title], f"docs/extending.md: {title}", "exec"), names)
    return names


def commands_of(title: str) -> list[list[str]]:
    """The words behind the program's name of each command that the section prints."""
    section = PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]
    return [line.split()[2:] for line in re.findall(r"^python my_\w+\.py .*", section, re.MULTILINE)]


def test_there_are_six_programs_and_each_has_a_test():
    assert len(PROGRAMS) == 6


def test_a_network_of_ones_own_is_trained_evaluated_and_asked(capsys):
    main = run("Your own network by the flags")["main"]
    train, evaluate, predict = commands_of("Your own network by the flags")
    words = [word.replace("shapes", "modelnet40") for word in train]
    assert main([*words, "--root", "data/samples", *QUICK]) == 0
    assert main(evaluate) == main(predict) == 0
    assert "chair.off" in capsys.readouterr().out


def test_a_data_set_of_ones_own_is_trained_on(capsys):
    main = run("Your own data set")["main"]
    (train,) = commands_of("Your own data set")
    assert main([*train, *QUICK]) == 0
    assert "solids" in (ROOT / "docs" / "extending.md").read_text()


@pytest.mark.parametrize("title", forms(["A pose with the encoder", "An autoencoder"], "An autoencoder"))
def test_a_loop_of_ones_own_learns(title):
    losses = run(title)["losses"]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5]), losses


@pytest.mark.slow
def test_metrics_are_logged_by_the_callback(monkeypatch, capsys):
    begun, logged = [], []
    wandb = types.SimpleNamespace(init=lambda **settings: begun.append(settings), log=logged.append)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    names = run("Your own module and loss, and a callback")
    assert begun[0]["config"]["epochs"] == len(logged) == 10
    assert {"epoch", "train_loss", "val_overall_accuracy"} <= set(logged[0])
    assert "a loss of your own" in capsys.readouterr().out
    assert names["result"]["test"]["overall_accuracy"] > 0.9


class NearestMean:
    """Stands for scikit-learn's classifier where that is not installed."""

    def fit(self, x, y):
        self.classes = sorted(set(y))
        self.means = np.stack([x[np.array(y) == name].mean(0) for name in self.classes])
        return self

    def score(self, x, y):
        nearest = ((x[:, None] - self.means) ** 2).sum(2).argmin(1)
        return np.mean([self.classes[i] == name for i, name in zip(nearest, y, strict=True)])


def test_features_are_classified_by_scikit_learn(monkeypatch):
    try:
        import sklearn.svm  # noqa: F401
    except ImportError:
        monkeypatch.setitem(sys.modules, "sklearn", types.ModuleType("sklearn"))
        monkeypatch.setitem(sys.modules, "sklearn.svm", types.SimpleNamespace(LinearSVC=NearestMean))
    assert run("Features for scikit-learn")["accuracy"] > 0.5


def test_the_command_that_embeds_runs(capsys):
    (line,) = re.findall(r"^python -m pointnet embed .*", PAGE, re.MULTILINE)
    assert command_line.main(line.split()[3:]) == 0
    assert "wrote features.npz" in capsys.readouterr().out
