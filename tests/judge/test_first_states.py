"""How a submission takes its first states."""

import pytest

from bptt_verifier.judge.first_states import TakenStates, find_states

STATES = {
    "in order": (lambda p, x, y, h0, c0: 0, TakenStates(("h0", "c0"))),
    "or omitted": (
        lambda p, x, y, h0=0, c0=0: 0, TakenStates(("h0", "c0"), (), ("h0", "c0"))
    ),
    "in order alone": (lambda p, x, y, h0, c0=0, /: 0, TakenStates(("h0", "c0"))),
    "by name": (lambda p, x, y, *, h0, c0: 0, TakenStates((), ("h0", "c0"))),
    "by name or omitted": (
        lambda p, x, y, *, h0, c0=0: 0, TakenStates((), ("h0", "c0"), ("c0",))
    ),
    "in the other order": (lambda p, x, y, c0, h0: 0, TakenStates(("c0",), ("h0",))),
    "under other names": (lambda p, x, y, h, c: 0, TakenStates(("h0", "c0"))),
    "after an option": (lambda p, x, y, clip=0, h0=0: 0, TakenStates((), ("h0",), ("h0",))),
    "none": (lambda p, x, y, clip=0: 0, TakenStates()),
}  # fmt: skip


@pytest.mark.parametrize("kind", STATES)
def test_the_states_that_a_submission_takes_are_found(kind: str) -> None:
    gradients, expected = STATES[kind]
    assert find_states(gradients, ("h0", "c0")) == expected


def test_states_after_one_that_is_left_out_go_by_name() -> None:
    taken = TakenStates(("h0",), ("c0",), ("h0",))
    assert taken.select({"h0", "c0"}) == TakenStates(("h0",), ("c0",))
    assert taken.select({"c0"}) == TakenStates((), ("c0",))
    assert taken.select({"h0"}) == TakenStates(("h0",))
    in_order = TakenStates(("h0", "c0"))
    assert in_order.select({"c0"}) == TakenStates((), ("c0",))
    assert in_order.all == ("h0", "c0")


def test_of_a_function_without_a_signature_no_states_are_known() -> None:
    assert find_states(dict.update) == TakenStates()
