"""train.py and python -m pointnet, as a user runs them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pointnet import __main__ as command_line
from pointnet.commands import train
from pointnet.commands.parser import OneLineParser
from pointnet.commands.train_flags import parse_command
from pointnet.training.run_folder import read_config
from pointnet.training.settings import FIELDS
from tests.helpers import QUICK, ROOT, SAMPLES, error_of

QUICK += ["--input_transform", "false", "--feature_transform", "false"]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run on the embedded sample of ModelNet40, by the command line."""
    out = tmp_path_factory.mktemp("runs") / "sample"
    assert train.main(["--dataset", "modelnet40", "--root", SAMPLES, "--out", str(out), *QUICK]) == 0
    return out


def test_training_ends_with_where_everything_is_and_what_to_run_next(run, capsys, tmp_path):
    out = tmp_path / "again"
    assert train.main(["--config", str(run / "config.yaml"), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    for name in ("model.safetensors", "result.json", "metrics.jsonl", "config.yaml", "checkpoint.pt"):
        assert name in printed
    wanted = f"""next: python -m pointnet report {out}
      python -m pointnet predict FILE --model {out}
      python -m pointnet evaluate {out} --dataset modelnet40 --root {SAMPLES}
"""
    assert printed.endswith(wanted)
    assert (out / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()


def test_evaluate_repeats_the_number_of_the_run_exactly(run, capsys):
    arguments = ["evaluate", str(run), "--dataset", "modelnet40", "--root", SAMPLES, "--device", "cpu"]
    assert command_line.main([*arguments, "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    wanted = json.loads((run / "result.json").read_text())["test"]
    assert {name: scores[name] for name in wanted} == wanted
    assert command_line.main(arguments) == 0
    assert f"{wanted['overall_accuracy']:.2%} overall" in capsys.readouterr().out
    assert command_line.main([*arguments, "--json", "--split", "train"]) == 0
    assert json.loads(capsys.readouterr().out)["count"] == 16


def test_resuming_a_finished_run_trains_no_further(run, capsys):
    before = (run / "model.safetensors").read_bytes()
    assert train.main(["--resume", "--out", str(run)]) == 0
    assert (run / "model.safetensors").read_bytes() == before
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 1


def test_resume_takes_the_runs_settings_and_cannot_change_them(run, capsys, tmp_path):
    config, resume, *_ = parse_command(["--resume", "--out", str(run)])
    assert resume
    assert config.epochs == 1
    assert config == read_config(run)
    line = error_of(capsys, train.main, ["--resume", "--out", str(run), "--epochs", "9"])
    assert "--epochs 9 differs from the run's own 1; resume cannot change it" in line
    moved, *_ = parse_command(["--resume", "--out", str(run), "--root", "elsewhere", "--device", "cuda:3"])
    assert (moved.root, moved.device) == ("elsewhere", "cuda:3")
    assert parse_command(["--resume", "--out", str(run), "--epochs", "1"])[0] == config
    again = ["--resume", "--out", str(run), "--dataset", "modelnet40", "--num_points", "64"]
    assert parse_command(again)[0] == config
    assert parse_command(["--resume", "--out", str(run), "--download"])[0].download
    assert "leave out --config" in error_of(
        capsys, train.main, ["--resume", "--out", str(run), "--config", str(run / "config.yaml")]
    )
    assert "--resume needs --out" in error_of(capsys, train.main, ["--resume"])
    assert "no run to resume here" in error_of(capsys, train.main, ["--resume", "--out", str(tmp_path)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epoch", "3"], "did you mean '--epochs'?"),
        (["--dataset", "shape"], "no dataset 'shape'; did you mean 'shapes'?"),
        (["--model", "pointnets"], "no model 'pointnets'; did you mean 'pointnet'?"),
        (["--epochs", "many"], "epochs"),
        (["--epochs", "0"], "epochs must be at least 1, got 0"),
        (["--optimizer", "adan"], "optimizer"),
        (["--device", "gpu"], "device must be auto, cpu, cuda or cuda:N, got 'gpu'"),
        (["--dataset", "modelnet40", "--root", "nowhere"], "nowhere: no such folder; --root must name"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--device", "cpu:0"], "device must be auto, cpu, cuda or cuda:N, got 'cpu:0'"),
        (["--seed", "20240101123456"], "seed must be from 0 to 8796093022207, got 20240101123456"),
        (["--seeds", "1", "20240101123456"], "from 0 to 8796093022207, got 1, 20240101123456"),
        (["--device", "mps"], "device must be auto, cpu, cuda or cuda:N, got 'mps'"),
        (["--input_transform"], "input_transform"),
    ],
)
def test_a_wrong_flag_is_one_line_and_exit_code_2(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    small = ["--dataset", "modelnet40", "--root", SAMPLES, *QUICK]
    line = error_of(capsys, train.main, [*small, *arguments])
    assert line.startswith("train.py: error: ")
    assert message in line
    assert line.count("did you mean") <= 1
    assert not list(tmp_path.iterdir()), "half-written files"


def test_a_settings_file_that_is_not_one_is_one_line(capsys, tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("epoch: 3\n")
    assert "did you mean 'epochs'?" in error_of(capsys, train.main, ["--config", str(path)])
    path.write_bytes(b"\xff\x00\x80")
    assert "a settings file must be UTF-8 text" in error_of(capsys, train.main, ["--config", str(path)])


def test_a_wrong_call_of_evaluate_is_one_line_and_exit_code_2(run, capsys, tmp_path):
    main = command_line.main
    assert "no model here" in error_of(capsys, main, ["evaluate", str(tmp_path)])
    assert "did you mean 'shapes'?" in error_of(capsys, main, ["evaluate", str(run), "--dataset", "shape"])
    line = error_of(capsys, main, ["evaluate", str(run), "--dataset", "modelnet10", "--root", SAMPLES])
    assert "its classes are not those of modelnet10 in " in line
    assert "did you mean '--root'?" in error_of(capsys, main, ["evaluate", str(run), "--roots", SAMPLES])
    assert "evaluate" in error_of(capsys, main, [])


def test_stopping_by_ctrl_c_says_how_to_go_on(capsys, monkeypatch, tmp_path):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "fit", stop)
    out = str(tmp_path / "x")
    assert train.main(["--dataset", "modelnet40", "--root", SAMPLES, "--out", out, *QUICK]) == 130
    assert "stopped; nothing was saved yet" in capsys.readouterr().err
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "checkpoint.pt").touch()
    assert train.main(["--dataset", "modelnet40", "--root", SAMPLES, "--out", out, *QUICK]) == 130
    assert f"python train.py --resume --out {out}" in capsys.readouterr().err


def test_a_run_without_out_gets_a_folder_of_its_own(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    config, *_ = parse_command([])
    assert train.new_run_folder(config) == "runs/shapes-1"
    (tmp_path / "runs" / "shapes-1").mkdir(parents=True)
    assert train.new_run_folder(config) == "runs/shapes-2"


def test_help_explains_every_flag(capsys):
    with pytest.raises(SystemExit):
        parse_command(["--help"])
    printed = capsys.readouterr().out
    assert "--early_points" not in printed
    assert "the run's folder" in " ".join(printed.split())


def test_the_module_runs_as_a_command():
    done = subprocess.run(
        [sys.executable, "-m", "pointnet", "evaluate", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "the run's folder" in done.stdout


def test_download_is_a_switch_that_may_be_given_a_value():
    for words, wanted in (([], False), (["--download"], True), (["--download", "false"], False)):
        assert parse_command([*words, "--epochs", "3"])[0].download is wanted


def test_a_run_from_before_a_setting_was_there_is_resumed(run, tmp_path):
    lines = (run / "config.yaml").read_text().splitlines()
    assert "download: false" in lines
    (tmp_path / "config.yaml").write_text("\n".join(line for line in lines if not line.startswith("download")))
    config, *_ = parse_command(["--resume", "--out", str(tmp_path)])
    assert not config.download


def test_a_message_of_several_lines_becomes_one(capsys):
    line = error_of(capsys, OneLineParser(prog="x").error, "a:\n  - b\n  - c")
    assert " ".join(line.split()) == "x: error: a: - b - c"


def test_an_unknown_command_is_one_line_with_the_nearest(capsys):
    line = error_of(capsys, command_line.main, ["exprot"])
    assert line.startswith("python -m pointnet: error: ")
    assert line.endswith("; did you mean 'export'?")
    assert "did you mean" not in error_of(capsys, command_line.main, ["fly"])


@pytest.mark.parametrize("command", ["predict", "evaluate", "report", "show", "export", "convert"])
def test_each_command_explains_itself_and_not_its_parser(capsys, command):
    with pytest.raises(SystemExit) as stop:
        command_line.main([command, "--help"])
    assert stop.value.code == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.startswith(f"usage: python -m pointnet {command} ")
    assert not [word for word in ("null", "type:", "(default: )", "(required)", "[options]") if word in printed]
    assert len(re.findall(r"(?<=\s)--\w+ ", printed)) >= 2


def test_a_command_is_needed_and_what_it_needs_is_named(capsys):
    line = error_of(capsys, command_line.main, [])
    commands = "predict, evaluate, report, show, export, convert"
    assert line == f"python -m pointnet: error: name a command, one of {commands}"
    line = error_of(capsys, command_line.main, ["evaluate"])
    assert line == "python -m pointnet evaluate: error: the following arguments are required: run"
    line = error_of(capsys, command_line.main, ["evaluate", "x", "--root"])
    assert line == "python -m pointnet evaluate: error: --root: expected one argument"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["predict", "x.off", "--num_points", "many"],
            "predict: error: --num_points: must be a whole number, got 'many'",
        ),
        (["evaluate", "x", "--votes", "1.5"], "evaluate: error: --votes: must be a whole number, got '1.5'"),
        (["predict", "x.off", "--num", "3"], "unrecognized arguments: --num 3; did you mean '--num_points'?"),
        (["show", "shapes", "x.off"], "error: 'shapes' is a data set; show it alone"),
        (["convert", ""], "error: .: its name has no suffix to leave out; --out must name the folder to write"),
        (["convert", "x.pth", "--classes", "names.txt"], "error: names.txt: No such file or directory"),
        (["report", "nowhere"], "error: nowhere: no such folder; a report is of a run folder"),
    ],
)
def test_a_wrong_word_is_told_in_the_words_of_the_user(capsys, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    assert error_of(capsys, command_line.main, words).endswith(message)


def test_a_place_that_cannot_be_written_is_named_without_a_number(capsys, tmp_path):
    file, page = f"{SAMPLES}/files/stool.xyz", tmp_path / "stool.html"
    page.mkdir()
    assert error_of(capsys, command_line.main, ["show", file, "--out", file]).endswith(f"error: {file}: File exists")
    line = error_of(capsys, command_line.main, ["show", file, "--out", str(tmp_path)])
    assert line.endswith(f"error: {page}: Is a directory"), "the file that was asked for, not the one beside it"


def test_a_word_of_the_wrong_kind_is_told_by_training_too(capsys):
    for words, wanted in (
        (["--epochs", "many"], "epochs must be a whole number, got 'many'"),
        (["--lr", "fast"], "lr must be a number, got 'fast'"),
        (["--normals", "maybe"], "normals must be true or false, got 'maybe'"),
    ):
        assert error_of(capsys, train.main, words) == f"train.py: error: {wanted}"


def test_a_run_that_is_nearly_named_is_suggested(run, capsys):
    line = error_of(capsys, command_line.main, ["report", str(run)[:-2]])
    assert line.endswith("a report is of a run folder; did you mean 'sample'?")


def test_all_flags_are_explained_with_their_defaults_and_0_is_one(capsys):
    with pytest.raises(SystemExit):
        parse_command(["--help_all"])
    printed = " ".join(capsys.readouterr().out.split())
    for name in FIELDS:
        assert f"--{name} " in printed
    assert "passes over the training split (default: 20)" in printed
    assert "onecycle has its own (default: 0.0)" in printed


def test_help_names_every_command_and_the_exit_codes(capsys):
    with pytest.raises(SystemExit) as stop:
        command_line.main(["--help"])
    assert stop.value.code == 0
    printed = " ".join(capsys.readouterr().out.split())
    for words in (
        "predict say",
        "evaluate measure",
        "show say",
        "export write",
        "convert read",
        "exit codes: 0 done; 1 done, but",
    ):
        assert words in printed
