"""The adjoint that a loop over the steps carries is the gradient of the state before the first."""

from pathlib import Path

import pytest

from bptt_verifier.program.carried_adjoints import read_adjoint, read_state
from tests.support.readings import read, require_comparison

STEPS = """
    hs, loss = [START], 0.0
    for each, target in zip(x, y):
        hs.append(np.tanh(U @ each + W @ hs[-1]))
        loss += np.sum((hs[-1] - target) ** 2) / 2
    dU, dW, dh = 0 * U, 0 * W, np.zeros(4)
    for t in reversed(range(len(x))):
        da = (dh + hs[t + 1] - y[t]) * (1 - hs[t + 1] ** 2)
        dU, dW, dh = dU + np.outer(da, x[t]), dW + np.outer(da, hs[t]), W.T @ da
    dh_next = dh * FACTOR
    RETURN
"""
GIVEN = "draw(4, 3), 0.5 * draw(4, 4)"
DATA = "draw(5, 3), draw(5, 4)"
IN_DICT = f"""
def both(x, y, h_prev, parameters):
    U, W = parameters["U"], parameters["W"]{STEPS}
both({DATA}, draw(4), dict(zip("UW", ({GIVEN}))))
"""
ARGUMENTS = f"""
def both(x, y, a0, U, W):{STEPS}
both({DATA}, draw(4), {GIVEN})
"""
GLOBALS = f"""
U, W = {GIVEN}
def both(x, y, hprev):{STEPS}
both({DATA}, draw(4))
"""
PAIR = f"""
def forward(x, y, h_init, U, W):
    hs, loss = [h_init], 0.0
    for each, target in zip(x, y):
        hs.append(np.tanh(U @ each + W @ hs[-1]))
        loss += np.sum((hs[-1] - target) ** 2) / 2
    return loss, (x, y, hs, U, W)
def backward(cache):
    x, y, hs, U, W = cache
{STEPS[STEPS.index("    dU") :]}
loss, cache = forward({DATA}, draw(4), {GIVEN})
backward(cache)
"""


@pytest.mark.table(7)
@pytest.mark.parametrize(
    ("name", "text", "start", "returns", "said"),
    [
        ("both", IN_DICT, "h_prev", "return loss, {'dU': dU, 'dW': dW, 'dh_next': dh_next}",
         "dh_next is taken for the gradient of h_prev"),
        ("both", IN_DICT, "h_prev", "return loss, {'U': dU, 'W': dW}, dh_next", "dh_next is taken"),
        ("both", IN_DICT, "h_prev", "dh_prev = dh_next; return loss, {'U': dU, 'W': dW}, dh_prev",
         "dh_prev is taken for the gradient of h_prev"),
        ("both", ARGUMENTS, "a0", "da_next = dh_next; return loss, dU, dW, da_next",
         "da_next is taken for the gradient of a0, the state before the first step"),
        ("both", ARGUMENTS, "a0", "dprev = dh_next; return loss, dU, dW, dprev", "gradient of a0"),
        ("both", GLOBALS, "hprev", "dhnext = dh_next; return loss, dU, dW, dhnext", "of hprev"),
        ("forward,backward", PAIR, "", "return dU, dW, dh_next", "gradient of h_init"),
    ],
)  # fmt: skip
def test_a_carried_adjoint_is_compared_as_the_gradient_of_the_initial_state(
    name: str, text: str, start: str, returns: str, said: str, tmp_path: Path
) -> None:
    require_comparison(tmp_path, name, text.replace("START", start), returns, said)


@pytest.mark.parametrize(
    ("text", "start"),
    [
        (IN_DICT, "np.zeros(4)"),  # the loss does not depend on the argument
        (IN_DICT.replace("h_prev", "c0"), "c0"),  # another letter
        (IN_DICT.replace("h_prev", "h0, h_init").replace("(4), ", "(4), draw(4), "), "h_init"),
    ],
)
def test_one_of_no_such_state_is_listed_as_not_compared(
    text: str, start: str, tmp_path: Path
) -> None:
    returns = "return loss, {'dU': dU, 'dW': dW, 'dh_next': dh_next}"
    found = read(tmp_path, "both", text.replace("START", start), returns)
    assert {*found.params} == {"U", "W"}
    assert "returned, and not compared: item 1['dh_next']" in found.said


def test_names_of_adjoints_and_states() -> None:
    assert all(read_adjoint(n) == {"h"} for n in ("dh_next", "dhnext", "dh_prev", "dL_dh0"))
    assert read_adjoint("dC_next") == {"c"}
    assert read_adjoint("dprev") == {""}
    assert not any(map(read_adjoint, ("dh", "dW0", "db_next", "next", "dx_prev")))
    assert all(read_state(n) == "h" for n in ("h0", "h_prev", "hprev", "h_init", "init_hidden"))
    assert all(read_state(n) == "" for n in ("state0", "prev_state", "initial_state"))
    assert all(read_state(n) is None for n in ("W0", "b_prev", "h", "x0", "theta_init"))
