"""The proof that a shared MLP is one Linear applied to every point: `python -m pytest tests/test_proof.py`.

The laws are in `laws.py`, each a short function. Here they are held against blocks and batches of every kind, and
then (last test) against blocks that were broken on purpose, which they must notice.
"""

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from tests.laws import CASES, LAWS, PAGE, Case, assert_close, page_rows, point_by_point
from tests.mutations import MUTATIONS, caught_by, table

cases = st.builds(
    Case,
    widths=st.lists(st.integers(1, 9), min_size=2, max_size=5).map(tuple),
    clouds=st.integers(1, 4),
    points=st.integers(1, 9),
    norm=st.sampled_from(["batch", None]),
    bias=st.sampled_from([None, True, False]),
    activation=st.sampled_from(["relu", "leaky_relu", "gelu", "silu", "tanh", None]),
    last_activation=st.booleans(),
    layout=st.sampled_from(["contiguous", "channels last", "every second point"]),
    seed=st.integers(0, 2**16),
)


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_a_shared_mlp_keeps_the_law(law, case):
    law(case)


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
@given(case=cases)
@example(case=Case(clouds=1, points=1))
@example(case=Case(widths=(3, 64, 64), clouds=2, points=257))
def test_whatever_the_widths_sizes_and_settings(law, case):
    law(case)


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
@pytest.mark.parametrize("norm", ["batch", None])
def test_the_law_holds_in_single_precision(law, norm):
    law(Case(clouds=4, points=17, norm=norm, dtype=torch.float32))


@pytest.mark.parametrize("norm", ["batch", None])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("autocast", [True, False], ids=["autocast", "bfloat16"])
def test_half_precision_errs_by_its_rounding_and_no_more(norm, training, autocast):
    exact = Case(clouds=4, points=33, norm=norm).block().train(training)
    rounded = Case(clouds=4, points=33, norm=norm).block().train(training).to(torch.bfloat16)
    exact.load_state_dict({name: tensor.double() for name, tensor in rounded.state_dict().items()})
    x = Case(clouds=4, points=33).batch().bfloat16()
    truth = point_by_point(exact, x.double())
    if autocast:
        with torch.autocast("cpu", torch.bfloat16):
            y = rounded.float()(x.float())
    else:
        y = rounded(x)
    assert y.dtype == torch.bfloat16
    # Each layer rounds its inputs, its sum and its norm to 8 bits; the errors of four layers add up.
    unit = torch.finfo(torch.bfloat16).eps
    error = ((y.double() - truth).abs().max() / truth.abs().max()).item()
    assert 0 < error <= 2 * len(exact) * unit, f"off by {error / unit:.1f} units"


def test_the_tolerances_are_tight_enough_to_tell_precisions_apart():
    x = Case().batch()
    single = Case().block().float()(x.float()).double()
    with pytest.raises(AssertionError, match="off by"):
        assert_close(single, point_by_point(Case().block(), x), "output")


def test_the_page_lists_every_mutation_and_every_law():
    assert [title for title, _ in page_rows()] == [title for title, *_ in MUTATIONS]
    for number, law in enumerate(LAWS.values(), 1):
        assert f"{number}. {law.__doc__}" in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("title", [title for title, *_ in MUTATIONS])
def test_a_broken_block_is_caught_by_the_laws_the_page_names(title):
    expected = dict(page_rows())[title]
    assert expected, "no law caught it"
    assert caught_by(title, expected) == expected


@pytest.mark.slow
def test_the_page_shows_what_the_command_prints():
    printed = [line for line in table().splitlines() if line]
    assert [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line in printed] == printed
