"""Which of one's own files are for testing, and what is said where they cannot be judged fairly."""

import re

from pointnet import __main__ as command_line
from tests.helpers import error_of
from tests.own_points import write_yards


def test_show_takes_the_settings_that_a_set_of_ones_own_is_trained_with(tmp_path, capsys):
    root = write_yards(tmp_path / "set", 2, size=1500)
    words = ["show", "scenes", "--root", str(root), "--num_points", "512", "--out", str(tmp_path / "out"), "--block"]
    heights = {}
    for up in ("z", "y"):
        assert command_line.main([*words, "50", "--up", up]) == 0
        printed = capsys.readouterr().out
        assert "each file is one block of 50, of 4,096 points" in printed
        heights[up] = 50 * float(re.search(r"extent z +([\d.]+)", printed)[1])
    assert heights["z"] < 2.6 < 2.9 < heights["y"], "a yard is 2.5 high, and 3 deep or more"
    assert "give a larger --block" in error_of(capsys, command_line.main, [*words, "0.001"])
    assert "has no colours" in error_of(capsys, command_line.main, [*words, "50", "--features", "rgb"])
