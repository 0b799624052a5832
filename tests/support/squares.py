"""A subject for the steps of a judgement: a loss whose gradient is its parameter."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from bptt_verifier.judge.path import SubjectJudgement
from bptt_verifier.judge.subject import Compared, Copy, Subject, Try
from bptt_verifier.judge.submission import Call, Expected, Submission
from bptt_verifier.program.attempt import copies
from bptt_verifier.reference.case import Case
from bptt_verifier.report import Mistake, Size
from bptt_verifier.report.findings import COUNTED
from tests.support.stated_cases import state_case

UNKNOWN = Mistake("unknown", "It is wrong.", {})


def case_at(value: float, label: str = "a case", allowed: float = 1e-9, dtype: Any = float) -> Case:
    """The case of two equal parameters, whose loss is half the sum of their squares."""
    w = np.full(2, value, dtype)
    true = {"w": w, "loss": value * value}
    limits = {"w": np.full(2, allowed), "loss": allowed}
    return state_case(true, limits, {"w": w})._replace(label=label)


class Squares(Subject):
    """The sum of squares, at stated cases."""

    def __init__(
        self,
        cases: Sequence[Case] = (case_at(1.0),),
        contract: Sequence[Case] = (),
        extreme: Sequence[Case] = (),
        smaller: Callable[[Case, Sequence[float]], Iterable[Case]] = lambda case, factors: (),
    ) -> None:
        self.cases, self.contract, self.extreme, self.smaller = cases, contract, extreme, smaller
        self.notes, self.doubts = ("a note", f"24 of 24 cases {COUNTED}"), dict[int, str]()

    stated = "the model"
    total = 7

    def call(self, case: Case, copy: Copy = copies) -> Call:
        given = copies(case.arguments)
        return Call((given["w"],), {}, lambda: given)

    def expect(self, case: Case) -> Expected:
        return Expected(("w",), {}, {"w": (2,), "loss": ()}, np.float64)

    def draw_contract_cases(self) -> Iterable[Case]:
        return self.contract

    def draw_cases(self) -> Iterable[Case]:
        return self.cases

    def draw_extreme_cases(self) -> Iterable[Case]:
        return self.extreme

    def contradict(self, number: int, case: Case) -> str | None:
        return self.doubts.get(number)

    def displace(self, case: Case, number: int, distance: float) -> Case:
        return case

    def scale_values(self, case: Case, factors: Sequence[float]) -> Iterable[Case]:
        return self.smaller(case, factors)

    def find_largest_sizes(self, cases: Iterable[Case]) -> dict[str, Size]:
        return {"cases": len([*cases])}

    def describe_unseen(self, compared: Sequence[Compared]) -> Iterable[str]:
        return ["unseen"]

    def describe_failing(self, compared: Sequence[Compared]) -> Iterable[str]:
        return [f"failing: {', '.join(each.case.label for each in compared if each.fails)}"]

    def shrink(self, attempt: Try, failing: Compared) -> Compared:
        return failing

    def describe_sizes(self, found: Compared) -> str:
        return found.case.label

    def reproduce(self, found: Compared) -> str:
        return ""

    def diagnose(self, *given: Any) -> tuple[Mistake, ...]:
        return (UNKNOWN,)


def begin(gradients: Callable[..., Any], *given: Any, **more: Any) -> SubjectJudgement:
    """The judgement of a function, before its first step."""
    return SubjectJudgement(
        Submission(gradients), Squares(*given, **more), "", lambda done, total: None
    )


def right(w: Any) -> Any:
    return {"w": w}


def wrong_at_two(w: Any) -> Any:
    return {"w": w * (1.5 if w[0] == 2 else 1)}


def infinite_from_two_on(w: Any) -> Any:
    return {"w": np.where(w < 2, w, np.inf)}


def fail(w: Any) -> Any:
    raise ValueError("no")
