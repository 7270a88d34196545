"""Several seeds: the runs are those of one seed each, stopped and resumed too, and the summary is right."""

import dataclasses
import json
import statistics

import pytest

from pointnet.commands import train
from pointnet.commands.train_flags import parse_command
from pointnet.training import TrainConfig, fit
from pointnet.training.run_folder import read_config
from pointnet.training.seeds import run_seeds, seeds_table, summarize
from tests.helpers import ON_SAMPLES, error_of, quiet, tiny, two_shapes

SMALL = [*ON_SAMPLES, "--val_fraction", "0.25"]


def result(overall: float, mean_class: float, val: float | None = None) -> dict:
    """What a run returns."""
    return {
        "test": {"overall_accuracy": overall, "mean_class_accuracy": mean_class, "count": 10},
        "val": None if val is None else {"overall_accuracy": val, "mean_class_accuracy": val},
        "selected_epoch": 1,
    }


def lengths_of(config: TrainConfig, resume: bool) -> dict:
    """Stands in for a run: its accuracy tells its seed."""
    return result(config.seed / 10, config.seed / 20, config.seed / 40)


def test_the_summary_is_the_mean_and_the_sample_standard_deviation():
    runs = {3: result(0.8, 0.7, 0.5), 1: result(0.9, 0.5, 0.7), 8: result(0.7, 0.6, 0.6)}
    summary = summarize(runs)
    assert list(summary["seeds"]) == ["3", "1", "8"]
    assert summary["seeds"]["1"] == runs[1]
    test = summary["test"]
    assert test["overall_accuracy"] == pytest.approx({"mean": 0.8, "std": 0.1})
    assert test["mean_class_accuracy"]["std"] == pytest.approx(statistics.stdev([0.7, 0.5, 0.6]))
    assert summary["val"]["overall_accuracy"]["mean"] == pytest.approx(0.6)
    last = seeds_table(summary).splitlines()[-1]
    assert last.split("  ")[0].strip() == "mean ± std"
    assert "80.00 ± 10.00%" in last


def test_one_seed_has_no_spread_and_no_validation_part_no_figure():
    summary = summarize({0: result(0.75, 0.5)})
    assert summary["test"]["overall_accuracy"] == {"mean": 0.75, "std": None}
    assert summary["val"] is None
    table = seeds_table(summary)
    assert "validation" not in table
    assert "±" not in table.splitlines()[-1].replace("mean ± std", "")
    assert json.loads(json.dumps(summary)) == summary


def test_each_seeds_run_is_the_run_of_that_seed_alone(tmp_path):
    config = tiny(tmp_path / "both", epochs=1)
    train_part, test_part = two_shapes(per_class=6), two_shapes(per_class=4, seed=1)

    def run(one, resume):
        return fit(one, train_part, test_part, resume, quiet)

    summary = run_seeds(config, [4, 2], run, log=quiet)
    assert json.loads((tmp_path / "both" / "result.json").read_text()) == summary
    for seed in (4, 2):
        alone = tmp_path / f"alone-{seed}"
        wanted = fit(dataclasses.replace(config, seed=seed, out=str(alone)), train_part, test_part, log=quiet)
        assert summary["seeds"][str(seed)]["test"] == wanted["test"]
        folder = tmp_path / "both" / f"seed-{seed}"
        assert (folder / "model.safetensors").read_bytes() == (alone / "model.safetensors").read_bytes()
        assert read_config(folder).seed == seed


def test_resuming_goes_on_with_the_stopped_seed_and_leaves_the_finished(tmp_path):
    config, called = tiny(tmp_path / "x"), []

    def run(one, resume):
        called.append((one.seed, resume))
        folder = tmp_path / "x" / f"seed-{one.seed}"
        folder.mkdir(exist_ok=True)
        (folder / "checkpoint.pt").touch()
        if one.seed == 1 and len(called) == 2:
            raise KeyboardInterrupt
        done = lengths_of(one, resume)
        (folder / "result.json").write_text(json.dumps(done))
        return done

    with pytest.raises(KeyboardInterrupt):
        run_seeds(config, [0, 1, 2], run, log=quiet)
    assert not (tmp_path / "x" / "result.json").exists()
    said = []
    summary = run_seeds(config, [0, 1, 2], run, resume=True, log=said.append)
    assert called == [(0, False), (1, False), (1, True), (2, False)]
    assert "finished before" in said[0]
    assert summary == summarize({seed: lengths_of(tiny("", seed=seed), False) for seed in (0, 1, 2)})
    assert run_seeds(config, [0, 1, 2], run, resume=True, log=quiet) == summary
    assert len(called) == 4


def test_seeds_that_are_added_are_trained_on_the_data_of_the_others(tmp_path):
    config, parts = tiny(tmp_path / "x", epochs=1), [two_shapes(per_class=6, seed=seed) for seed in (0, 1)]

    def run_on(part, seeds, resume):
        def run(one, go_on):
            return fit(one, part, None, go_on, quiet)

        return run_seeds(config, seeds, run, resume, quiet, part.fingerprint())

    run_on(parts[0], [0], False)
    before = (tmp_path / "x" / "config.yaml").read_bytes()
    with pytest.raises(ValueError, match="seed 0: was trained on other data; all seeds need the same: another --out"):
        run_on(parts[1], [0, 1], True)
    assert (tmp_path / "x" / "config.yaml").read_bytes() == before
    assert not (tmp_path / "x" / "seed-1").exists()
    assert len(run_on(parts[0], [0, 1], True)["seeds"]) == 2


@pytest.mark.parametrize("content", ["{", "3", "{}", '{"test": {"overall_accuracy": 1}, "val": null}'])
def test_a_damaged_result_is_one_clear_line(tmp_path, content):
    (tmp_path / "seed-0").mkdir()
    (tmp_path / "seed-0" / "result.json").write_text(content)
    with pytest.raises(ValueError, match="seed 0: .*result.json: damaged") as caught:
        run_seeds(tiny(tmp_path), [0], lengths_of, resume=True, log=quiet)
    assert "\n" not in str(caught.value)


def test_what_a_run_refuses_is_said_with_its_seed_and_leaves_nothing(tmp_path):
    def refuse(config, resume):
        raise ValueError("the loss is nan")

    with pytest.raises(ValueError, match="seed 5: the loss is nan"):
        run_seeds(tiny(tmp_path / "x"), [5], refuse, log=quiet)
    assert not (tmp_path / "x").exists()


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """The folder of a finished call of train.py with two seeds, and how often each part of the data was opened."""
    out, opened = tmp_path_factory.mktemp("runs") / "several", []
    open_dataset = train.open_dataset

    def counting(name, root, split, *more, **options):
        opened.append(split)
        return open_dataset(name, root, split, *more, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "open_dataset", counting)
        assert train.main([*SMALL, "--seeds", "3", "1", "--out", str(out)]) == 0
    return out, opened


def test_the_command_ends_with_all_seeds_and_takes_them_up_again(several, capsys):
    out, opened = several
    assert opened == ["train", "test"], "once for all seeds"
    before = (out / "result.json").read_bytes()
    assert list(json.loads(before)) == ["seeds", "test", "val"]
    assert train.main(["--resume", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("finished before") == 2
    assert (out / "result.json").read_bytes() == before
    lines = printed.strip().splitlines()
    assert [each.split()[0] for each in lines[-4:]] == ["seed", "3", "1", "mean"]
    assert f"next: python -m pointnet report {out}\n" in printed
    assert f"python -m pointnet evaluate {out}/seed-3\n" in printed


def test_the_settings_hold_the_seeds_and_make_the_same_runs_again(several, tmp_path):
    out, _ = several
    config, resume, seeds, *_ = parse_command(["--config", str(out / "config.yaml"), "--out", str(tmp_path)])
    assert (resume, seeds) == (False, [3, 1])
    assert config == dataclasses.replace(read_config(out), out=str(tmp_path))
    assert parse_command(["--resume", "--out", str(out)]).seeds == [3, 1]
    assert parse_command(["--resume", "--out", str(out), "--seeds", "1", "3", "9"]).seeds == [1, 3, 9]
    assert parse_command(["--resume", "--out", str(out / "seed-3")]).seeds == []
    assert parse_command(["--epochs", "7"]).config.epochs == 7


def test_wrong_seeds_are_one_line_and_exit_code_2(several, capsys, tmp_path):
    out, new = str(several[0]), ["--out", str(tmp_path / "new")]
    for words, message in (
        (["--seeds", "1", "2", "1"], "seeds must be different whole numbers"),
        (["--seeds", "0", "-3"], "from 0 to 8796093022207, got 0, -3"),
        (["--seeds", "one"], "--seeds: must be a whole number, got 'one'"),
        (["--seeds", "1", "2", "--seed=3"], "--seed and --seeds exclude each other"),
    ):
        said = error_of(capsys, train.main, [*SMALL, *words, *new])
        assert message in said, words
        assert "did you mean" not in said, words
    assert not (tmp_path / "new").exists()
    taken = "already holds a run; continue it with --resume"
    assert taken in error_of(capsys, train.main, [*SMALL, "--seeds", "5", "6", "--out", out])
    assert "holds runs of several seeds" in error_of(capsys, train.main, [*SMALL, "--out", out])
    resume = ["--resume", "--out", out]
    assert "--seeds leaves out 3 of the run" in error_of(capsys, train.main, [*resume, "--seeds", "1", "9"])
    single = ["--resume", "--out", f"{out}/seed-3", "--seeds", "3", "4"]
    assert "holds one run, of seed 3; it cannot resume with --seeds" in error_of(capsys, train.main, single)
