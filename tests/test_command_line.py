"""train.py, as a user runs it."""

import shlex

import pytest

from pointnet import __main__ as command_line
from pointnet.commands import train
from pointnet.commands.train_flags import parse_command
from pointnet.pages.report import write_report
from pointnet.training import run_folder
from pointnet.training.run_folder import read_config
from pointnet.training.settings import FIELDS, TrainConfig
from tests.forms import forms
from tests.helpers import ON_SAMPLES, QUICK, error_of
from tests.own_points import make_object, save


def test_training_ends_with_where_everything_is_and_what_to_run_next(sample_run, capsys, tmp_path):
    out = tmp_path / "again"
    assert train.main(["--config", str(sample_run / "config.yaml"), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    for name in ("model.safetensors", "result.json", "metrics.jsonl", "config.yaml", "checkpoint.pt"):
        assert name in printed
    wanted = f"""next: python -m pointnet report {out}
      python -m pointnet predict FILE --model {out}
      python -m pointnet evaluate {out}
      python train.py --config {out / "config.yaml"} --out runs/again
"""
    assert printed.endswith(wanted)
    assert (out / "model.safetensors").read_bytes() == (sample_run / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_the_command_that_repeats_a_run_names_a_folder_that_does_not_exist(sample_run, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["--config", str(sample_run / "config.yaml"), "--out", "runs/again"]
    for folder in ("runs/again-2", "runs/again-3"):
        assert train.main(command) == 0
        command = shlex.split(capsys.readouterr().out.splitlines()[-1])[2:]
        assert command[-1] == folder
    assert write_report("runs/again", device="cpu").page.read_text().count(" --out runs/again-3\n") == 1


@pytest.mark.parametrize("held_out", forms(["0.25", "0"], "0"))
def test_a_run_without_a_test_split_ends_with_steps_that_work(tmp_path, monkeypatch, capsys, held_out):
    for name in ("pin", "box"):
        for i in range(4):
            save(tmp_path / "set" / "train" / name / f"{i}.txt", make_object("pin", i)[:, :3])
    monkeypatch.chdir(tmp_path)
    words = ["--dataset", "folder", "--root", "set", *QUICK, "--out", "run"]
    assert train.main([*words, "--test", "false", "--val_fraction", held_out]) == 0
    *_, after = capsys.readouterr().out.split("next: ")
    commands = [line.split()[3] for line in after.splitlines()]
    assert commands[:-1] == ["report"] * (held_out != "0") + ["predict"]
    line = error_of(capsys, command_line.main, ["evaluate", "run"])
    assert line.endswith("; --test false trains without it, and evaluate takes --split train")
    assert command_line.main(["evaluate", "run", "--split", "train"]) == 0
    assert "report" not in commands or command_line.main(["report", "run"]) == 0


def test_resuming_a_finished_run_trains_no_further(sample_run, capsys):
    before = (sample_run / "model.safetensors").read_bytes()
    assert train.main(["--resume", "--out", str(sample_run)]) == 0
    assert (sample_run / "model.safetensors").read_bytes() == before
    assert len((sample_run / "metrics.jsonl").read_text().splitlines()) == 1


def test_resume_takes_the_runs_settings_and_cannot_change_them(sample_run, capsys, tmp_path):
    config, resume, *_ = parse_command(["--resume", "--out", str(sample_run)])
    assert resume
    assert config.epochs == 1
    assert config == read_config(sample_run)
    line = error_of(capsys, train.main, ["--resume", "--out", str(sample_run), "--epochs", "9"])
    assert "--epochs 9 differs from the run's own 1; resume cannot change it" in line
    moved, *_ = parse_command(["--resume", "--out", str(sample_run), "--root", "elsewhere", "--device", "cuda:3"])
    assert (moved.root, moved.device) == ("elsewhere", "cuda:3")
    assert parse_command(["--resume", "--out", str(sample_run), "--epochs", "1"])[0] == config
    again = ["--resume", "--out", str(sample_run), "--dataset", "modelnet40", "--num_points", "64"]
    assert parse_command(again)[0] == config
    assert parse_command(["--resume", "--out", str(sample_run), "--download"])[0].download
    assert "leave out --config" in error_of(
        capsys, train.main, ["--resume", "--out", str(sample_run), "--config", str(sample_run / "config.yaml")]
    )
    assert "--resume needs --out" in error_of(capsys, train.main, ["--resume"])
    assert "no run to resume here" in error_of(capsys, train.main, ["--resume", "--out", str(tmp_path)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epoch", "3"], "did you mean '--epochs'?"),
        (["--dataset", "shape"], "no dataset 'shape'; did you mean 'shapes'?"),
        (["--epochs", "many"], "epochs must be a whole number, got 'many'"),
        (["--lr", "fast"], "lr must be a number, got 'fast'"),
        (["--epochs", "0"], "epochs must be at least 1, got 0"),
        (["--device", "gpu"], "device must be auto, cpu, cuda or cuda:N, got 'gpu'"),
        (["--dataset", "modelnet40", "--root", "nowhere"], "nowhere: no such folder; --root must name"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--seed", "20240101123456"], "seed must be from 0 to 8796093022207, got 20240101123456"),
        (["--input_transform"], "input_transform"),
        (["--warmup", "0.1"], "--warmup is for the other schedules, as onecycle has its own; it would change nothing"),
        (["--overlap", "0.5"], "--overlap is for --task part, not classification; it would change nothing"),
        (["--task", "scene", "--dataset", "s3dis", "--restrict", "false"], "--restrict is for --task part, not scene;"),
        (["--distill", "0.7"], "--distill is for --teacher; it would change nothing"),
        (["--decay_rate", "0.5"], "--decay_rate is for --schedule step, not onecycle; it would change nothing"),
        (["--decay_epochs", "5"], "--decay_epochs is for --schedule step, not onecycle, or for --norm_decay_rate; it"),
        (["--early_points", "0", "--early_share", "0.5"], "--early_share is for --early_points above 0; it"),
        (["--feature_transform", "false", "--regularization_weight", "1"], "--regularization_weight is for --model"),
    ],
)
def test_a_wrong_flag_is_one_line_and_exit_code_2(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    line = error_of(capsys, train.main, [*ON_SAMPLES, *arguments])
    assert line.startswith("train.py: error: ")
    assert message in line
    assert line.count("did you mean") <= 1
    assert not list(tmp_path.iterdir()), "half-written files"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"epoch: 3", "no setting 'epoch'; did you mean 'epochs'?"),
        (b"epochs: 1.5", "epochs must be a whole number, got 1.5"),
        (b"test: 1", "test must be true or false, got 1"),
        (b"lr: null", "lr must be a number, got None"),
        (b"optimizer: adan", "did you mean 'adam'?"),
        (b"teacher: runs/a", "teacher must be a list of words, got 'runs/a'"),
        (b"seeds: [a]", "seeds must be a list of whole numbers"),
        (b"- epochs", "must hold settings"),
        (b"a: &a [*a]", "no setting 'a'"),
        (b"\xff\x00\x80", "'utf-8' codec can't decode byte 0xff"),
    ],
)
def test_a_wrong_settings_file_is_one_line(capsys, tmp_path, content, message):
    path = tmp_path / "settings.yaml"
    path.write_bytes(content)
    line = error_of(capsys, train.main, ["--config", str(path)])
    assert str(path) in line
    assert message in line


def test_flags_win_over_a_file_of_some_settings_wherever_they_stand(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("lr: 1e-3\nclip: 2\nepochs: 7\nteacher: [runs/a, runs/b c]\n")
    config = parse_command(["--epochs", "9", "--config", str(path), "--mirror"]).config
    assert config == TrainConfig(lr=1e-3, clip=2.0, epochs=9, mirror=True, teacher=("runs/a", "runs/b c"))


def test_stopping_by_ctrl_c_says_how_to_go_on(capsys, monkeypatch, tmp_path):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "fit", stop)
    out = str(tmp_path / "x")
    assert train.main([*ON_SAMPLES, "--out", out]) == 130
    assert "stopped; nothing was saved yet" in capsys.readouterr().err
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "checkpoint.pt").touch()
    assert train.main([*ON_SAMPLES, "--out", out]) == 130
    assert f"python train.py --resume --out {out}" in capsys.readouterr().err


def test_a_run_without_out_gets_a_folder_of_its_own(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    config, *_ = parse_command([])
    assert run_folder.placed(config).out == "runs/shapes-1"
    (tmp_path / "runs" / "shapes-1").mkdir(parents=True)
    assert run_folder.placed(config).out == "runs/shapes-2"


def test_the_help_is_short_and_the_long_one_explains_all_flags_with_their_defaults(capsys):
    printed = []
    for flag in ("--help", "--help_all"):
        with pytest.raises(SystemExit):
            parse_command([flag])
        printed.append(" ".join(capsys.readouterr().out.split()))
    short, long = printed
    assert len(short) < len(long) / 2
    assert short.endswith("All flags: train.py --help_all")
    assert all(f"--{name} " in long for name in FIELDS)
    assert "passes over the training split (default: 20)" in long


def test_download_is_a_switch_that_may_be_given_a_value():
    for words, wanted in (([], False), (["--download"], True), (["--download", "false"], False)):
        assert parse_command([*words, "--epochs", "3"])[0].download is wanted
