"""Model folders that are damaged, cut short, or of something else: each is refused in one line that names the file."""

import json
import os
import pickle
import random
import re
import shutil
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pointnet import PointNetClassifier, load_model
from pointnet.models.weights import digest
from tests.helpers import SMALL, before_long, described


@pytest.fixture
def folder(tmp_path) -> Path:
    """A shared model."""
    described(PointNetClassifier(3, **SMALL)).save_pretrained(tmp_path / "shared")
    return tmp_path / "shared"


def assert_refused(folder, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        load_model(folder)
    assert str(caught.value).isprintable()
    assert str(folder) in str(caught.value)


def test_a_flipped_bit_in_the_weights_is_noticed_every_time(folder):
    path, flips = folder / "model.safetensors", random.Random(0)
    good, config = path.read_bytes(), json.loads((folder / "config.json").read_text())
    for in_config in (True, False):  # a run folder has its sha256 in the weights' header alone
        (folder / "config.json").write_text(json.dumps({n: v for n, v in config.items() if in_config or n != "sha256"}))
        start = len(good) if in_config else 4096  # here, half of the flips are in the header
        for _ in range(100):
            damaged = bytearray(good)
            damaged[flips.randrange(start)] ^= 1 << flips.randrange(8)
            path.write_bytes(damaged)
            assert_refused(folder, r"model.safetensors: (damaged|not|does not)")
        path.write_bytes(good)
        load_model(folder)


def test_a_truncated_file_is_one_clear_line(folder):
    path = folder / "model.safetensors"
    good = path.read_bytes()
    for size in (0, 1, 7, 8, 100, 5000, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:size])
        assert_refused(folder, "model.safetensors: not a readable safetensors file")
    path.write_bytes(good + b"\0")
    assert_refused(folder, "model.safetensors: not a readable safetensors file")


def test_a_pickle_is_not_opened(folder, tmp_path, monkeypatch):
    def opened(*arguments, **settings):
        raise AssertionError("a pickle was opened")

    torch.save({"x": torch.zeros(3)}, tmp_path / "zip")
    torch.save({"x": torch.zeros(3)}, tmp_path / "legacy", _use_new_zipfile_serialization=False)
    (tmp_path / "pickle").write_bytes(pickle.dumps({"x": 3}))
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, opened)
    monkeypatch.setattr(torch, "load", opened)
    for name in ("zip", "legacy", "pickle"):
        shutil.copy(tmp_path / name, folder / "model.safetensors")
        assert_refused(folder, "model.safetensors: a pickle, which may hold code and is not opened; see python -m poi")


def write_state(folder, state, metadata):
    save_file(state, folder / "model.safetensors", metadata)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({name: v for name, v in config.items() if name != "sha256"}))


def test_weights_of_another_library_or_another_model_are_one_clear_line(folder, tmp_path):
    state = load_model(folder).state_dict()
    write_state(folder, state, {"format": "pt"})
    assert_refused(folder, "model.safetensors: not written by this library: there is no sha256 in its header")
    described(PointNetClassifier(3)).save_pretrained(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "model.safetensors", folder)
    misfit = r"mlp1.layers.0.conv.weight must be \(8, 3, 1\) torch.float32, got \(64, 3, 1\) torch.float32$"
    assert_refused(folder, rf"model.safetensors: does not fit the model in config.json: encoder.{misfit}")
    write_state(folder, state, {"sha256": 64 * "0"})
    assert_refused(folder, "damaged: its content does not match the sha256 stored with it")


@pytest.mark.parametrize(
    ("change", "misfit"),
    [
        (lambda state: state.pop("logits.bias"), "there is no logits.bias"),
        (lambda state: state.update(more=torch.zeros(2)), "it has no more"),
        (lambda state: state.update({"more\x1b[2J": torch.zeros(2)}), "it has no more�[2J"),
        (lambda state: state["logits.bias"].fill_(float("nan")), "logits.bias holds numbers that are not finite"),
        (lambda state: state["head.1.norm.running_var"].neg_(), "head.1.norm.running_var holds variances below 0"),
        (lambda state: state.update({"logits.bias": torch.zeros(3, dtype=torch.int64)}), "got (3,) torch.int64"),
    ],
)
def test_a_state_that_is_not_the_models_is_one_short_line(folder, change, misfit):
    state = load_model(folder).state_dict()
    change(state)
    write_state(folder, state, {"sha256": digest(state)})
    assert_refused(folder, f"does not fit the model in config.json: .*{re.escape(misfit)}$")


def test_a_clone_without_its_large_files_is_told_from_damage(folder):
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    assert_refused(folder, "model.safetensors: a pointer of Git LFS, not the weights themselves; git lfs pull fetches")


@pytest.mark.parametrize(
    "content",
    [
        '{"model_type": "bert", "architectures": ["BertModel"]}',
        '{"model": "resnet", "arguments": {}}',
        "[" * 100_000,
        {"model": ["pointnet"]},
        {"arguments": None},
        {"arguments": {"num_classes": 3, "widths": [[], [4]]}},
        {"arguments": {"num_classes": 3, "tnet_widths": 3}},
        {"arguments": {"num_classes": 3, "wide": True}},
        {"arguments": {"num_classes": 3, "wide\x1b[2J": True}},
        {"arguments": {"num_classes": 10**30}},
        {"classes": ["a", "b"]},
        {"classes": ["a", "b", "a"]},
        {"preprocessing": {"num_points": "many"}},
        {"preprocessing": {"num_points": 0}},
    ],
    ids=lambda content: str(content)[:40],
)
def test_a_config_that_describes_no_model_is_one_clear_line(folder, content):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(content if isinstance(content, str) else json.dumps(config | content))
    assert_refused(folder, "config.json: (does not describe a model of this library|not a model's config)")


@pytest.mark.parametrize(
    "arguments",
    [
        {"widths": [[10**6], [10**6, 16]]},  # 4 TB
        {"widths": [[8], [8] * 20_000]},
        {"head_widths": [8] * 20_000},
    ],
    ids=["wide", "deep", "deep head"],
)
def test_a_config_that_asks_for_more_than_the_weights_hold_is_refused_at_once(folder, arguments):
    config = json.loads((folder / "config.json").read_text())
    config["arguments"] |= arguments
    (folder / "config.json").write_text(json.dumps(config))
    started = time.process_time()
    assert_refused(folder, "config.json: does not describe a model of this library: it asks for more (wide )?layers")
    assert time.process_time() - started < 2, "a network of 20,000 layers takes half a minute"


def test_what_is_no_file_is_refused_and_never_waited_for(folder):
    for name in ("model.safetensors", "config.json"):
        path = folder / name
        path.unlink()
        os.mkfifo(path)
        with before_long():
            assert_refused(folder, "file: is a pipe, not a file|config.json: no model here")
        path.unlink()
        path.mkdir()
        assert_refused(folder, "file: is a folder, not a file|config.json: no model here")
        path.rmdir()
        path.symlink_to("/dev/zero")
        assert_refused(folder, "file: is a device, not a file|config.json: no model here")
