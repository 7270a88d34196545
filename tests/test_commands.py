"""python -m pointnet: each command as a user calls it, and what it says of a wrong word."""

import json
import os
import re
import subprocess
import sys

import pytest

import pointnet
from pointnet import __main__ as command_line
from pointnet import devices
from pointnet.commands.flags import COMMANDS, FLAGS, OneLineParser
from pointnet.commands.train_flags import training_parser
from pointnet.datasets import DATASETS_OF
from pointnet.datasets.blocks import MESH_POINTS
from pointnet.models import DEFAULTS
from pointnet.models.weights import WEIGHTS
from pointnet.points.sampling import KEPT
from pointnet.training.settings import FIELDS
from tests.helpers import ROOT, SAMPLES, error_of
from tests.processors import PROCESSORS


def help_of(capsys, *words: str) -> str:
    """The help that a command prints, with single spaces."""
    with pytest.raises(SystemExit) as stop:
        command_line.main([*words, "--help"])
    assert stop.value.code == 0
    return " ".join(capsys.readouterr().out.split())


# Evaluate.


def test_evaluate_repeats_the_number_of_the_run_exactly(sample_run, capsys):
    words = ["evaluate", str(sample_run), "--dataset", "modelnet40", "--root", SAMPLES, "--device", "cpu"]
    assert command_line.main([*words, "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    wanted = json.loads((sample_run / "result.json").read_text())["test"]
    assert {name: scores[name] for name in wanted} == wanted
    assert command_line.main(words) == 0
    where, *_, line = capsys.readouterr().out.splitlines()
    assert re.fullmatch(rf"modelnet40 in {re.escape(str(SAMPLES))}; \d+ threads? on \d+ free cores?", where)
    assert f"{wanted['overall_accuracy']:.2%} overall" in line
    assert command_line.main([*words, "--json", "--split", "train"]) == 0
    assert json.loads(capsys.readouterr().out)["count"] == 16


def test_evaluate_says_where_bfloat16_is_computed_in_float32(sample_run, capsys, monkeypatch):
    monkeypatch.setattr(devices, "capabilities", lambda: PROCESSORS["Intel"])
    words = ["evaluate", str(sample_run), "--dataset", "modelnet40", "--root", SAMPLES, "--device", "cpu"]
    assert command_line.main([*words, "--precision", "bf16"]) == 0
    assert "precision: fp32, as this processor has no instructions for bf16\n" in capsys.readouterr().err


def test_a_wrong_call_of_evaluate_is_one_line_and_exit_code_2(sample_run, capsys, tmp_path):
    main = command_line.main
    assert "no model here" in error_of(capsys, main, ["evaluate", str(tmp_path)])
    assert "did you mean 'sample'?" in error_of(capsys, main, ["evaluate", str(sample_run)[:-2]])
    assert "did you mean 'shapes'?" in error_of(capsys, main, ["evaluate", str(sample_run), "--dataset", "shape"])
    assert "threads must be at least 0" in error_of(capsys, main, ["evaluate", str(sample_run), "--threads", "-1"])


# Help.


@pytest.mark.parametrize("command", FLAGS)
def test_each_command_explains_itself(capsys, command):
    printed = help_of(capsys, command)
    assert printed.startswith(f"usage: python -m pointnet {command} ")
    assert not [word for word in ("None", "False", "(default: )") if word in printed]
    assert len(re.findall(r"(?<=\s)--\w+ ", printed)) >= 2


def test_help_names_every_command_and_the_exit_codes(capsys):
    printed = help_of(capsys)
    assert all(f"{name} {text}" in printed for name, text in COMMANDS.items())
    assert "exit codes: 0 done; 1 done, except" in printed
    assert [*COMMANDS] == ["train", *FLAGS]


@pytest.mark.parametrize("name", FLAGS)
def test_the_help_of_a_command_fits_a_terminal_and_is_in_groups(capsys, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "79")
    with pytest.raises(SystemExit):
        command_line.main([name, "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 79
    groups = [[]]
    for line in lines:  # a group's title ends in a colon; its flags are indented
        if line.endswith(":") and not line.startswith(" "):
            groups.append([])
        groups[-1] += re.findall(r"^  (--\w+)", line)
    assert max(map(len, groups)) <= 6, groups


def test_the_defaults_that_help_names_are_those_of_the_library(capsys):
    printed = help_of(capsys, "predict")
    assert all(text in printed for text in (*DEFAULTS.values(), f"parts {KEPT:,}", f"mesh {MESH_POINTS:,}"))
    printed = help_of(capsys, "evaluate")
    names = {name for known in DATASETS_OF.values() for name in known}
    assert {name for name in names if name not in printed} == {f"s3dis_area{i}" for i in (2, 3, 4, 5)}


def test_help_and_a_wrong_word_load_no_torch_and_a_command_only_its_own_modules():
    code = "import sys; from pointnet.__main__ import main; print(main([]), *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    code, *modules = done.stdout.split()
    assert code == "2"
    assert not {"torch", "numpy", "pointnet.training", "pointnet.commands.train"} & set(modules)


# Flags.


@pytest.mark.parametrize("command", FLAGS)
def test_the_words_of_a_flag_are_joined_by_either_sign(command):
    parser = OneLineParser()
    FLAGS[command](parser)
    needed = [
        word
        for each in parser._actions
        if each.required and each.option_strings
        for word in (*each.option_strings, "y")
    ]
    places = ["x" for each in parser._actions if not each.option_strings]
    for flag, action in parser._option_string_actions.items():
        value = [] if action.nargs == 0 else [next(iter(action.choices or "1"))]
        if "_" in flag:
            words = [[*places, *needed, each, *value] for each in (flag, flag.replace("_", "-"))]
            assert parser.parse_args(words[0]) == parser.parse_args(words[1])


def test_the_words_of_a_setting_are_joined_by_either_sign():
    for name in FIELDS:
        flag = f"--{name}"
        both = [training_parser().parse_args([each, "1"]) for each in (flag, flag.replace("_", "-"))]
        assert both[0] == both[1] == training_parser().parse_args([f"{flag.replace('_', '-')}=1"]), name
    words = ["--batch-size", "7", "--input-transform=false", "--out", "a-b", "--help-all-of-it"]
    assert vars(training_parser().parse_args(words[:-1])) == {
        "batch_size": "7",
        "input_transform": "false",
        "out": "a-b",
    }
    with pytest.raises(SystemExit):
        training_parser().parse_args(words)


@pytest.mark.parametrize("words", [["--version"], ["train", "--version"]])
def test_the_version_is_printed(capsys, words):
    with pytest.raises(SystemExit) as stop:
        command_line.main(words)
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith(f"pointnet-shared-mlp {pointnet.__version__}, Python 3.")


# Wrong words.


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], f"name a command, one of {', '.join(COMMANDS)}"),
        (["exprot"], "no command 'exprot'; did you mean 'export'?"),
        (["evaluate"], "evaluate: error: the following arguments are required: run"),
        (["evaluate", "x", "--root"], "evaluate: error: --root: expected one argument"),
        (["evaluate", "x", "--roots", "y"], "did you mean '--root'?"),
        (["predict", "x.off", "--num", "3"], "unrecognized arguments: --num 3; did you mean '--num_points'?"),
        (["show", "shapes", "x.off"], "error: 'shapes' is a data set; show it alone, with its folder as --root"),
        (["evaluate", "--model", "runs/a"], "--model; it is given without a flag: python -m pointnet evaluate RUN"),
        (["pack", "--root", "a", "--out", "b"], "; it is given without a flag: python -m pointnet pack ROOT OUT"),
        (["show", "--dataset", "shapes"], "--dataset; it is given without a flag: python -m pointnet show WHAT"),
        (["predict", "--input", "a.off"], "--input; it is given without a flag: python -m pointnet predict FILE"),
        (["train", "scans"], "unrecognized arguments: scans; the folder of a data set is given by --root"),
        (["predict", str(WEIGHTS / "pointnet_shapes"), "a.off"], "; it holds a model: --model "),
        (["convert", ""], "error: .: has no suffix to remove; --out must name the folder to write"),
        (["report", "nowhere"], "error: nowhere: no such folder; a report is of a run folder"),
        (["report", f"{SAMPLES}/files/cup.npy"], "cup.npy: is a file, not a folder; a report is of a run folder"),
        (
            ["evaluate", f"{SAMPLES}/files/cup.npy"],
            "cup.npy: is a file; give the folder of a model: a run folder holds",
        ),
        (["show", "modelnet10", "--root", "no"], "no: no such folder; --root must name the set's folder or its parent"),
        (["show", "modelnet10", "--root", "."], "holds no ModelNet10: looked for modelnet40_ply_hdf5_2048/ or"),
        (["show", "modelnet40", "--root", "."], "holds no ModelNet40: looked for modelnet40_ply_hdf5_2048/ or"),
        (["show", "folder", "--root", f"{SAMPLES}/files/cup.npy"], "cup.npy: is a file, not a folder; --root must"),
        (
            ["evaluate", "pointnet_modelnet40", "--dataset", "s3dis"],
            "the data set s3dis is not for the task classification, only shapes, modelnet40",
        ),
        (["train", "--dataset", "shapenetpart"], "obj_only, folder, packed; it is for the task part"),
        (
            ["train", "--dataset", "folder", "--root", "none"],
            "none: no such folder; --root must name one with a folder",
        ),
        (["train", "--config", "."], ".: is a folder, not a settings file"),
    ],
)
def test_a_wrong_word_is_one_line_and_exit_code_2(capsys, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    line = error_of(capsys, command_line.main, words)
    assert line.startswith("python -m pointnet")
    assert message in line
    assert not list(tmp_path.iterdir()), "half-written files"


def test_a_place_that_cannot_be_written_is_named_without_a_number(capsys, tmp_path):
    file, page = f"{SAMPLES}/files/stool.xyz", tmp_path / "stool.html"
    page.mkdir()
    assert error_of(capsys, command_line.main, ["show", file, "--out", file]).endswith(f"error: {file}: File exists")
    line = error_of(capsys, command_line.main, ["show", file, "--out", str(tmp_path)])
    assert line.endswith(f"error: {page}: Is a directory"), "the file that was asked for, not the one beside it"


def test_ctrl_c_is_exit_code_130(capsys, monkeypatch):
    def stop():
        raise KeyboardInterrupt

    monkeypatch.setattr(command_line, "command_parser", stop)
    assert command_line.main(["export", "x"]) == 130
    assert capsys.readouterr().err == "\nstopped\n"


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["-m", "pointnet", "--help"], marks=pytest.mark.slow),
        ["-c", "import signal; del signal.SIGPIPE; from pointnet.__main__ import main; exit(main(['--help']))"],
        pytest.param(["train.py", "--help_all"], marks=pytest.mark.slow),
        pytest.param(["-m", "pointnet", "show", f"{SAMPLES}/files", "--out", "{out}"], marks=pytest.mark.slow),
    ],
)
def test_a_reader_that_goes_ends_a_command_without_a_word(tmp_path, words):
    reading, writing = os.pipe()
    os.close(reading)  # as head does once it has its lines
    command = [sys.executable, *(word.format(out=tmp_path) for word in words)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(command, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, env=environment, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_output_that_cannot_be_written_is_one_line(tmp_path):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "pointnet", "predict", "--help"]
        done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0 or (done.returncode, len(done.stderr.splitlines())) == (2, 1)
