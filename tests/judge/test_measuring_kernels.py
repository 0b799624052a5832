"""Measurements of a kernel's errors at neighbours: what is asked, and what follows from it."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge import kernel_comparisons
from bptt_verifier.judge.kernel_cases import KernelCase, draw_neighbours
from bptt_verifier.judge.kernel_comparisons import OVERFLOW, measure_at
from bptt_verifier.reference.point_arrays import Pulled
from bptt_verifier.report import Mistake
from bptt_verifier.tolerance.scatter import DISTANCE
from tests.support.measurements import make_measurement

RIGHT, WRONG = make_measurement([0.0]), make_measurement([9.0])
OFFSET = 0.3  # on each gradient of w, which is then not linear in the cotangents


class Kernel:
    """A kernel of y = w² and z = v, its stated function, and what was asked of both.

    `verdicts(name, imitated, share, terms)` tells whether errors measured with these are wrong.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, dtype: Any = np.float32) -> None:
        self.dtype, self.asked, self.kept = dtype, list[Any](), ()
        self.verdicts: Any = lambda *_: False
        self.change: Any = lambda found: found
        self.outputs: Any = lambda found: found
        self.exact: Any = lambda gradients: gradients
        self.values: Any = None
        self.imitated: Any = {"w": np.full((2, 4, 3), 0.25), "v": np.full((2, 4, 2), 0.5)}
        self.scaled, self.rounding, self.share, self.terms = False, True, 0.0, 7.0
        for name, replaced in {
            "measure": self.measure,
            "may_be_rounding": lambda *_: self.rounding,
            "is_scaled": lambda *_: self.scaled,
            "list_shares": lambda *given: given,
            "choose_share": lambda shares, distance: self.share,
            "find_largest_terms": lambda *_: self.terms,
        }.items():
            monkeypatch.setattr(kernel_comparisons, name, replaced)

    def pull_back(self, points: Any, cotangents: Any) -> Pulled:
        """The exact outputs and gradients, of w with an offset."""
        pairs = list(zip(points, cotangents, strict=True))
        outputs = {
            "y": np.stack([p["w"].astype(np.float64) ** 2 for p, _ in pairs]),
            "z": np.stack([p["v"].astype(np.float64) for p, _ in pairs]),
        }
        gradients = {
            "w": np.stack([2.0 * p["w"] * c["y"] + OFFSET for p, c in pairs]),
            "v": np.stack([c["z"].astype(np.float64) for _, c in pairs]),
        }
        return Pulled(outputs, self.exact(gradients), self.kept)

    def confirm(self, points: Any, cotangents: Any, pulled: Pulled) -> Pulled:
        self.asked.append("confirm")
        return pulled

    def imitate_rounding(self, points: Any, cotangents: Any, dtype: Any) -> Any:
        self.asked.append(("imitate", dtype))
        if self.imitated is None:
            raise ValueError("the operations are unknown")
        return Pulled({}, self.imitated)

    def find_overflows(self, points: Any, cotangents: Any, largest: float) -> Any:
        raise ValueError("the operations are unknown")

    def ask(self, point: Any, cotangents: Any) -> Any:
        found = self.pull_back([point], [cotangents]).gradients
        return self.change({n: g[0].astype(self.dtype) for n, g in found.items()})

    def compute_values(self, point: Any) -> Any:
        zeros = {"y": np.zeros(3), "z": np.zeros(2)}
        found = self.pull_back([point], [zeros]).outputs
        return self.outputs({n: x[0].astype(self.dtype) for n, x in found.items()})

    def measure(
        self, errors: Any, exact: Any, dtype: Any, tests: int, uncertainty: Any, before: Any,
        imitated: Any, share: Any, terms: Any,
    ) -> Any:  # fmt: skip
        name = "w" if exact.shape[1] == 3 else "v"
        given = SimpleNamespace(**{n: v for n, v in locals().items() if n not in ("self", "given")})
        self.asked.append(given)
        wrong = self.verdicts(name, imitated is not None, share, terms)
        return (WRONG if wrong else RIGHT)._replace(visible=given)

    def run(self, nearer: Any = None, doubtful: Any = ()) -> Any:
        calls: Any = SimpleNamespace(
            pullback=self, ask=self.ask, values=self.values, compute_values=self.compute_values
        )
        point = {"w": np.arange(1, 4).astype(self.dtype), "v": np.ones(2, self.dtype)}
        self.case = KernelCase(0, 0, point, {"y": np.ones(3), "z": np.ones(2)})
        return measure_at(calls, self.case, DISTANCE, 100, 0, nearer, doubtful)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(monkeypatch)


def test_errors_and_their_uncertainty_are_measured_at_the_neighbours(kernel: Kernel) -> None:
    kernel.change = lambda found: found | {"w": found["w"] + np.float32(0.5)}
    found = kernel.run()
    near = draw_neighbours(kernel.case, DISTANCE, 0)
    assert kernel.asked[0] == "confirm"
    of_w, of_v = (found.gradients[name].visible for name in "wv")
    assert (of_w.dtype, of_w.tests, of_w.before, of_w.imitated) == (np.float32, 100, None, None)
    np.testing.assert_allclose(of_w.errors, 0.5, rtol=1e-5)
    np.testing.assert_allclose(of_w.uncertainty, OFFSET - OFFSET / 3)  # times three, and a third
    np.testing.assert_allclose(of_v.uncertainty, 0, atol=1e-15)
    assert found.submitted["w"].dtype == np.float32
    expected = kernel.pull_back(near.points, near.cotangents).gradients
    np.testing.assert_array_equal(found.exact["w"], expected["w"])
    assert found.case is kernel.case
    assert (found.outputs, found.wrong, found.unsure, found.doubts) == ({}, [], set(), {})
    assert found.keeps_zeros is False
    kernel.kept = (1,)  # type: ignore[assignment]
    assert kernel.run().keeps_zeros is True


def test_the_errors_at_nearer_neighbours_are_beside_them(kernel: Kernel) -> None:
    nearer: Any = SimpleNamespace(measured=lambda name: name * 2)
    found = kernel.run(nearer)
    assert [found.gradients[name].visible.before for name in "wv"] == ["ww", "vv"]


def test_an_exact_gradient_that_is_not_finite_is_told(kernel: Kernel) -> None:
    kernel.exact = lambda gradients: gradients | {"v": np.array([[1.0, np.inf]])}
    found = kernel.run()
    assert (found.name, found.details) == ("not-finite", {"gradients": ["v"], OVERFLOW: True})
    said = "the exact gradient for v is not finite near the arguments given."
    assert found.explanation == said


def test_own_outputs_are_compared_beside_the_gradients(kernel: Kernel) -> None:
    kernel.values = "known"
    kernel.verdicts = lambda name, *_: False
    found = kernel.run()
    assert [*found.outputs] == ["y", "z"]
    assert [*found.gradients] == ["w", "v"]
    assert np.all(found.outputs["y"].visible.uncertainty == 0)
    assert found.submitted["y"].dtype == np.float32


def test_outputs_of_other_names_or_shapes_differ(kernel: Kernel) -> None:
    kernel.values = "known"
    for change, said in (
        (lambda found: {"y": found["y"]}, r"it returns {'y': (3,)}, and the stated function"),
        (lambda found: found | {"z": found["z"][:1]}, "it returns {'y': (3,), 'z': (1,)}, and"),
        (lambda found: found | {"u": found["z"]}, "'u': (2,)}, and"),
    ):
        kernel.outputs = change
        found = kernel.run()
        assert (found.name, found.details) == ("forward-differs", {})
        assert said in found.explanation
        assert found.explanation.endswith("and the stated function {'y': (3,), 'z': (2,)}.")


def test_what_a_kernel_raises_is_returned(kernel: Kernel) -> None:
    raised = Mistake("raised", "It was raised.", {"exception": "OSError"})
    kernel.change = lambda found: raised
    found = kernel.run()
    assert found == raised._replace(explanation="It was raised. With the arguments given.")
    kernel.values, kernel.outputs = "known", lambda found: raised
    assert kernel.run() is raised


def test_a_result_that_is_not_finite_is_returned_and_outputs_are_left_out(kernel: Kernel) -> None:
    kernel.change = lambda found: found | {"v": np.array([1, np.nan], np.float32)}
    assert kernel.run().details["gradients"] == ["v"]
    kernel.change, kernel.values, kernel.dtype = lambda found: found, "known", np.float16
    kernel.outputs = lambda found: found | {"y": np.array([1, 1, np.inf], np.float16)}
    wide = kernel.pull_back
    kernel.pull_back = lambda points, c: (  # type: ignore[method-assign, assignment]
        wide(points, c)._replace(
            outputs=wide(points, c).outputs | {"y": np.full((len(points), 3), 9e3)}
        )
    )
    found = kernel.run()
    assert found.overflowing == {"y"}
    assert not found.submitted["y"].any()  # whose operations are unknown: all entries
    assert not found.exact["y"].any()
    assert found.exact["z"].all()


# What is wrong is asked whether rounding every operation explains it.


def test_errors_that_are_no_rounding_are_not_imitated(kernel: Kernel) -> None:
    kernel.verdicts, kernel.rounding = lambda *_: True, False
    found = kernel.run()
    assert found.wrong == ["w", "v"]
    assert found.doubts == {}
    assert not any(each[0] == "imitate" for each in kernel.asked if isinstance(each, tuple))


def test_in_16_bits_all_that_is_wrong_is_imitated_and_what_is_doubtful(kernel: Kernel) -> None:
    kernel.dtype, kernel.rounding, kernel.share = np.float16, False, 0.5
    kernel.verdicts = lambda name, imitated, *_: name == "v" and not imitated
    found = kernel.run(doubtful="w")
    assert ("imitate", np.float16) in kernel.asked
    assert [*found.doubts] == ["v", "w"]
    assert found.unsure == set()
    assert [found.gradients[name].explained for name in "wv"] == [False, True]
    errors, exact, imitated, tests, dtype = found.doubts["v"].shares
    assert imitated is not None
    np.testing.assert_array_equal(imitated, kernel.imitated["v"])
    assert (tests, dtype, found.doubts["v"].distance) == (100, np.float16, DISTANCE)
    np.testing.assert_array_equal(exact, found.exact["v"])
    assert errors.shape == exact.shape
    again = found.doubts["v"].measure(0.75).visible
    assert (again.name, again.share, again.terms) == ("v", 0.75, None)
    assert again.imitated is not None
    assert [*kernel.run().doubts] == ["v"]
    kernel.verdicts = lambda *_: False
    assert [*kernel.run(doubtful="u").doubts] == []


def test_doubts_are_of_16_bits_alone_where_nothing_is_wrong(kernel: Kernel) -> None:
    assert kernel.run(doubtful="wv").doubts == {}


def test_without_an_imitation_what_is_wrong_stays_so(kernel: Kernel) -> None:
    kernel.verdicts, kernel.imitated = lambda name, *_: name == "w", None
    found = kernel.run()
    assert found.wrong == ["w"]
    assert (found.unsure, found.doubts) == (set(), {})


@pytest.mark.parametrize(
    ("share", "wrong_with_share", "unsure"),
    [(0.5, False, False), (0.5, True, True), (0.0, False, False), (0.0, True, True)],
)
def test_what_imitated_errors_explain_is_unsure_unless_the_share_shows(
    kernel: Kernel, share: float, wrong_with_share: bool, unsure: bool
) -> None:
    kernel.share = share
    kernel.verdicts = lambda name, imitated, part, terms: (
        name == "w" and (not imitated or (part is not None and wrong_with_share))
    )
    found = kernel.run()
    assert found.unsure == (set("w") if unsure else set())
    assert found.gradients["w"].explained
    assert not found.gradients["w"].wrong
    assert found.gradients["w"].visible.share == (None if unsure else share)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_in_16_bits_a_share_that_does_not_show_leaves_a_doubt(kernel: Kernel, share: float) -> None:
    kernel.dtype, kernel.share = np.float16, share
    kernel.verdicts = lambda name, imitated, *_: name == "w" and not imitated
    found = kernel.run()
    assert found.unsure == (set() if share else set("w"))
    assert found.gradients["w"].visible.share == (share or None)


@pytest.mark.parametrize(
    ("scaled", "terms_explain", "wrong", "unsure"),
    [(True, True, "w", ""), (False, True, "", "w"), (False, False, "w", "")],
)
def test_another_formula_may_explain_what_is_no_multiple(
    kernel: Kernel, scaled: bool, terms_explain: bool, wrong: str, unsure: str
) -> None:
    kernel.scaled = scaled
    kernel.verdicts = lambda name, imitated, part, terms: (
        name == "w" and not (terms == 7.0 and terms_explain)
    )
    found = kernel.run()
    assert found.wrong == [*wrong]
    assert found.unsure == set(unsure)
    assert found.gradients["w"].explained == bool(unsure)
    assert found.gradients["w"].visible.imitated is not None


def test_each_gradient_is_explained_by_itself(kernel: Kernel) -> None:
    kernel.scaled = True
    kernel.verdicts = lambda name, imitated, *_: name == "w" or not imitated
    found = kernel.run()
    assert found.wrong == ["w"]
    assert found.gradients["v"].explained
    kernel.scaled = False
    kernel.verdicts = lambda name, imitated, part, terms: (
        terms is None and (name == "w" or not imitated)
    )
    found = kernel.run()
    assert found.unsure == set("w")
    assert found.gradients["w"].explained is found.gradients["v"].explained is True
