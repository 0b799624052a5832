"""Which floating arguments of a kernel are masks, told by what it returns for them."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge.kernel_calls import KernelCalls
from bptt_verifier.judge.kernel_masks import describe_masks, find_added, find_masks, is_left_out
from bptt_verifier.program.arguments import read_arguments

X, MASK, ADDED = np.array([1.0, 2, 3]), np.array([0.0, 1, 1]), np.array([0.0, -1e4, 0])
NONE, ZEROS = (X, None), (X, np.zeros(3))


def call(result: Any, excluding: Any = (), **leaves: Any) -> KernelCalls:
    """A setting of a kernel that returns the same gradients at every call, or raises."""

    def backward(arguments: Any, cotangents: Any) -> Any:
        assert len(arguments) == len(leaves)
        assert cotangents.shape == (2,)
        if isinstance(result, Exception):
            raise result
        return result

    pullback: Any = SimpleNamespace(
        arguments=read_arguments(tuple(leaves.values()), [*leaves]),
        excluding=frozenset(excluding),
        structure=np.ones(2),
        outputs={"output": np.ones(2)},
    )
    return KernelCalls(backward, pullback)


def find(*every: KernelCalls) -> set[str]:
    return {*find_masks(every, 0)}


def test_a_mask_without_a_gradient_is_data() -> None:
    assert find(call(NONE, x=X, m=MASK)) == {"m"}
    assert find(call(NONE, x=X, m=5 * MASK)) == {"m"}
    assert find(call(ZEROS, x=X, m=MASK)) == set()
    assert find(call((X, X), x=X, m=MASK)) == set()
    assert find(call((None, X), x=X, m=MASK)) == set()
    assert find(call((None, None), x=X, m=X)) == set()


def test_zeros_are_the_gradient_of_a_mask_that_is_added() -> None:
    for result, found in ((NONE, {"m"}), (ZEROS, {"m"}), ((X, X), set())):
        assert find(call(result, ["m"], x=X, m=ADDED)) == found
    assert find(call(ZEROS, x=X, m=ADDED)) == set()  # which no score shows
    assert find(call(NONE, x=X, m=ADDED)) == {"m"}


def test_a_mask_has_one_number_in_every_setting_and_a_gradient_in_none() -> None:
    right = call(NONE, x=X, m=MASK)
    for other in (MASK, 0 * MASK, 0 * MASK + 1):
        assert find(right, call(NONE, x=X, m=other)) == {"m"}
        assert find(call(NONE, x=X, m=other), right) == {"m"}
    for other in (X, X - 1):
        assert find(right, call(NONE, x=X, m=other)) == set()
    assert find(right, call((X, X), x=X, m=MASK)) == set()
    assert find(call((X, X), x=X, m=MASK), right) == set()
    assert find(right, call((X,), x=X)) == {"m"}  # of which the second has none


def test_no_mask_is_found_where_the_kernel_gives_no_answer() -> None:
    right = call(NONE, x=X, m=MASK)
    for other in (
        call(ValueError("no"), x=X, m=MASK),
        call((X, X, X, X, X), x=X, m=MASK),
    ):
        assert find(other) == find(right, other) == set()


def test_arguments_that_are_all_masks_are_none() -> None:
    assert find(call((None, None), m=MASK, n=MASK)) == set()
    assert find(call((None, None, X), m=MASK, n=MASK, x=X)) == {"m", "n"}
    assert (
        find(call((None, None, X), m=MASK, n=MASK, x=X), call((None, None), m=MASK, n=MASK))
        == set()
    )


def test_a_kernel_without_masks_is_not_called() -> None:
    assert find(call(AssertionError("called"), x=X)) == set()


def test_a_mask_is_added_if_it_excludes_scores_in_every_setting_that_has_one() -> None:
    added, other = call(NONE, ["m"], x=X, m=ADDED), call(NONE, x=X, m=ADDED)
    empty, absent = call(NONE, x=X, m=0 * ADDED), call((X,), x=X)
    assert find_added([added], ["m", "n"]) == {"m"}
    assert find_added([added, empty, absent], ["m"]) == {"m"}
    assert find_added([added, other], ["m"]) == set()
    assert find_added([empty], ["m"]) == set()
    assert find_added([added], ["x"]) == set()


class Unreadable:
    def __array__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("no array")


@pytest.mark.parametrize("added", [True, False])
def test_what_is_left_out_is_none_or_zero(added: bool) -> None:
    assert is_left_out(None, added) is True
    assert is_left_out(np.zeros(2), added) is added
    for other in (np.array([0, 1e-9]), np.array([None]), Unreadable()):
        assert is_left_out(other, added) is False


def test_masks_that_are_data_are_named_once() -> None:
    every = [call(NONE, x=X, m=MASK), call(NONE, x=X, m=MASK)]
    for each in every:
        each.arguments = each.arguments.hold({"m"})
        each.arguments.data["n"] = np.array([1, 2])
    (said,) = describe_masks(every)
    assert said.startswith("Your gradient for m is None, or zero, and m holds zeros")
