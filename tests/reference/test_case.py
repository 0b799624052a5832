"""A case knows the precision and the shapes of its arguments."""

import numpy as np

from bptt_verifier.reference.case import Case


def test_a_case_is_single_if_any_argument_is_float32() -> None:
    wide, single = np.ones(1), np.ones(1, np.float32)
    for arrays, expected in [((wide, wide), False), ((wide, single), True), ((), False)]:
        arguments = {str(number): array for number, array in enumerate(arrays)}
        assert Case("", arguments, 0, None).single is expected


def test_a_case_has_the_shapes_of_its_arguments() -> None:
    case = Case("", {"a": np.ones((2, 3)), "b": np.ones(())}, 0, None)
    assert case.shapes == {"a": (2, 3), "b": ()}
