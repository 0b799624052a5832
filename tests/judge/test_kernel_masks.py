"""Masks among floating arguments: those that are multiplied, and those that are added to scores."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier import Verdict, verify_vjp
from bptt_verifier.problems.kernel_draws import displace, draw_near, find_excluded, is_additive_mask
from bptt_verifier.program.arguments import read_arguments
from bptt_verifier.reference.pullbacks import prepare_pullback

BFLOAT16: Any = jnp.bfloat16
LOWEST = [-np.inf, -1e9, -1e38, float(np.finfo(np.float32).min), -1e4]


def attention(q: Any, k: Any, v: Any, mask: Any) -> Any:
    return jax.nn.softmax(q @ k.T + mask, -1) @ v


def attend_back(of_mask: str = "right", masked: bool = True) -> Any:
    def backward(arguments: Any, d: Any) -> Any:
        q, k, v, mask = (np.asarray(each, np.float32) for each in arguments)
        d = np.asarray(d, np.float32)
        scores = q @ k.T + (mask if masked else 0)
        p = np.exp(scores - scores.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        ds = p * (d @ v.T - (d * (p @ v)).sum(-1, keepdims=True))
        of = {"right": ds, "None": None, "zeros": np.zeros_like(ds)}[of_mask]
        found = ds @ k, ds.T @ q, p.T @ d, of
        pairs = zip(found, arguments, strict=True)
        return tuple(None if g is None else g.astype(a.dtype) for g, a in pairs)

    return backward


def draw(mask: Any, dtype: Any = np.float32) -> Any:
    rng = np.random.default_rng(0)
    drawn = (rng.normal(size=(len(mask), 5)).astype(dtype) for _ in range(3))
    return *drawn, mask.astype(dtype)


def look_back(T: int, lowest: float) -> Any:
    return np.where(np.tri(T) > 0, 0, lowest)


@pytest.mark.parametrize("lowest", LOWEST)
@pytest.mark.parametrize("of_mask", ["right", "None", "zeros"])
def test_a_mask_that_is_added_is_data_or_has_its_gradient(lowest: float, of_mask: str) -> None:
    given = draw(look_back(6, lowest))
    report = verify_vjp(attend_back(of_mask), attention, given, cases=2)
    assert report.verdict is Verdict.AGREES, report
    assert ("mask" in report.parameters) == (of_mask == "right")
    assert ("is taken for a mask" in str(report)) == (of_mask != "right")


@pytest.mark.parametrize("dtype", [np.float16, BFLOAT16])
def test_an_added_mask_in_16_bits_stays_as_it_is(dtype: Any) -> None:
    given = draw(look_back(6, -np.inf), dtype)
    assert verify_vjp(attend_back("None"), attention, given, cases=2)


@pytest.mark.table(5)
@pytest.mark.parametrize("lowest", LOWEST)
def test_a_kernel_that_ignores_an_added_mask_is_wrong(lowest: float) -> None:
    given = draw(look_back(6, lowest))
    report = verify_vjp(attend_back("None", masked=False), attention, given, cases=1)
    assert report.verdict is Verdict.DISAGREES, report


def test_an_added_mask_may_be_empty_in_one_setting() -> None:
    given = [draw(look_back(T, -np.inf)) for T in (1, 5)]
    assert verify_vjp(attend_back("zeros"), attention, given, cases=1)


@pytest.mark.parametrize("lowest", [-np.inf, -1e9])
def test_a_bias_of_scores_is_drawn_and_what_stands_for_infinity_stays(lowest: float) -> None:
    slopes = -0.3 * np.abs(np.arange(6)[:, None] - np.arange(6))
    bias = np.where(np.tri(6) > 0, slopes, lowest)
    assert verify_vjp(attend_back(), attention, draw(bias), cases=2)
    for moved in (draw_near(bias, np.random.default_rng(0), excludes=True),
                  displace(bias, 2.0**-4, np.random.default_rng(0), excludes=True)):  # fmt: skip
        kept = np.tri(6) == 0
        assert (moved[kept] == lowest).all()
        assert (np.abs(moved[~kept]) < 10).all()
        assert (moved[~kept] != bias[~kept]).any()


def test_zeros_for_a_mask_that_is_multiplied_are_a_wrong_gradient() -> None:
    """Numbers of 0 and 1 may be spikes, of which there is a gradient."""

    def backward(arguments: Any, d: Any) -> Any:
        spikes = arguments[1]
        return d * spikes, np.zeros_like(spikes)

    x = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    spikes = (np.arange(15).reshape(3, 5) % 2).astype(np.float32)
    report = verify_vjp(backward, lambda x, spikes: x * spikes, (x, spikes), cases=1)
    assert [mistake.name for mistake in report.mistakes] == ["zero-gradient"]


def test_large_numbers_that_stand_for_nothing_are_no_mask() -> None:
    for values in ([0, 0, -50], [-2000, 300, 0], [-5000, -5000, -5000], [1e9, 0, 0]):
        assert not is_additive_mask(np.array(values, float))
        assert not find_excluded(np.array(values, float)).any()
    assert is_additive_mask(np.array([0, -np.inf, 0]))


def test_a_list_of_arrays_is_an_argument_and_a_list_of_tuples_are_settings() -> None:
    def forward(x: Any, weights: Any) -> Any:
        for W in weights:
            x = jnp.tanh(x @ W)
        return x

    def backward(arguments: Any, d: Any) -> Any:
        x, weights = arguments
        assert isinstance(weights, list)
        h = [x]
        for W in weights:
            h.append(np.tanh(h[-1] @ W))
        found = []
        for k in reversed(range(len(weights))):
            da = d * (1 - h[k + 1] ** 2)
            found.append(h[k].T @ da)
            d = da @ weights[k].T
        return d, found[::-1]

    rng = np.random.default_rng(0)
    x, U, W = (rng.normal(size=(4, 4)).astype(np.float32) for _ in range(3))
    for given in ((x, [U, W]), [x, [U, W]], [(x, [U, W]), (x[:3], [W])]):
        report = verify_vjp(backward, forward, given, cases=1)
        assert report.verdict is Verdict.AGREES, report
        assert {"x", "weights[0]"} <= {*report.parameters}


def hold_one(lowest: float, dtype: Any = np.float32) -> Any:
    """Draw x, and zeros with one other number."""
    x, s = np.random.default_rng(0).normal(size=(3, 5)), np.zeros((3, 5))
    s[0, 0] = lowest
    return x.astype(dtype), s.astype(dtype)


OFFSETS: dict[str, Any] = {
    "factor": (lambda x, s: jnp.tanh(x) * (s + 1), lambda x, s: (s + 1) * (1 - np.tanh(x) ** 2)),
    "sum": (lambda x, s: jnp.tanh(x) + s, lambda x, s: 1 - np.tanh(x) ** 2),
    "logarithm": (
        lambda x, s: jax.nn.log_sigmoid(x) + jax.nn.softplus(-s), lambda x, s: 1 / (1 + np.exp(x)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("lowest", [-1000, -5e3, -1e9, -1e20])
@pytest.mark.parametrize("name", OFFSETS)
def test_zeros_for_a_large_number_that_counts_are_a_wrong_gradient(
    name: str, lowest: float
) -> None:
    forward, slope = OFFSETS[name]

    def backward(arguments: Any, d: Any) -> Any:
        x, s = arguments
        return (d * slope(x, s)).astype(x.dtype), np.zeros_like(s)

    report = verify_vjp(backward, forward, hold_one(lowest), cases=1)
    assert "zero-gradient" in {mistake.name for mistake in report.mistakes}, report


def test_a_large_number_that_counts_moves_between_cases_and_neighbours() -> None:
    def forward(x: Any) -> Any:
        return jnp.sin(0.01 * x)

    x = 8 * np.random.default_rng(0).normal(size=12)
    x[3] = -2000
    seen = set[float]()

    def backward(arguments: Any, d: Any) -> Any:
        seen.add(float(arguments[0][3]))
        return (0.01 * np.cos(0.01 * arguments[0]) * d,)

    assert verify_vjp(backward, forward, (x,), cases=2)
    assert len(seen) > 10


@pytest.mark.parametrize("lowest", [-2000, -1e4, -1e9, -1e38, LOWEST[3]])
def test_scores_that_are_all_excluded_leave_a_mask_a_mask(lowest: float) -> None:
    """A query of padding has no other scores."""
    mask = look_back(6, lowest)
    mask[4:] = lowest
    prepared = prepare_pullback(attention, read_arguments(draw(mask)))
    assert prepared.excluding == {"arguments[3]"}


def test_what_changes_an_output_excludes_no_score() -> None:
    for forward, _ in OFFSETS.values():
        for lowest in (-1000.0, -1e9, -1e20):
            given = read_arguments(hold_one(lowest))
            assert prepare_pullback(forward, given).excluding == frozenset(), lowest


def stop_at_lengths(p: Any, tokens: Any, lengths: Any) -> Any:
    """An RNN over tokens, of which a selection of the results keeps the state beyond a length."""
    x, h, states = p["E"][tokens], jnp.zeros((len(tokens), 4)), []
    for t in range(tokens.shape[1]):
        h = jnp.where((t < lengths)[:, None], jnp.tanh(x[:, t] + h @ p["W"].T), h)
        states.append(h)
    return {"states": jnp.stack(states, 1), "last": h}


@pytest.mark.slow
def test_nan_is_not_put_where_autodiff_of_the_stated_function_multiplies_it_by_zero() -> None:
    rng = np.random.default_rng(5)
    p = {"E": rng.normal(size=(7, 4)), "W": 0.4 * rng.normal(size=(4, 4))}
    tokens, lengths = np.arange(12).reshape(2, 6) % 7, np.array([3, 4])

    def backward(arguments: Any, cotangents: Any, beyond: int = 0) -> Any:
        p, tokens, lengths = arguments
        states = lambda p: stop_at_lengths(p, tokens, lengths + beyond)  # noqa: E731
        return jax.vjp(states, p)[1](cotangents)[0], None, None

    given = p, tokens, lengths  # rows 3, 4 and 5 of E are those of padding alone
    with jax.enable_x64(True):
        report = verify_vjp(backward, stop_at_lengths, given, cases=1)
        assert report.verdict is Verdict.AGREES, str(report)
        padded = verify_vjp(lambda a, c: backward(a, c, 2), stop_at_lengths, given, cases=1)
    assert padded.verdict is Verdict.DISAGREES
    assert padded.mistakes[0].name == "padding-leaks"
    assert padded.mistakes[0].explanation.startswith("other numbers in the padding of p.E")
