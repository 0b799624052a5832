"""Which of several explanations is given of a kernel's wrong gradients, and what is reported."""

from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier.judge import kernel_operations, vjp
from bptt_verifier.judge.kernel_calls import KernelCalls
from bptt_verifier.judge.kernel_operations import find_wrong_operation
from bptt_verifier.judge.kernel_path import describe_unnamed
from bptt_verifier.judge.vjp import PullbackJudgement, assert_vjp_verified, prepare, verify_vjp
from bptt_verifier.mistakes.effort import find_effort
from bptt_verifier.program.arguments import read_settings
from bptt_verifier.reference.stated_pullbacks import StatedPullback
from bptt_verifier.report import Mistake
from bptt_verifier.tolerance.comparison import find_symbol
from tests.support.modules import ROOT

INDICES, FACTOR = (Mistake(name, "", {}) for name in ("wrong-indices", "constant-factor"))
OPERATION, KEPT, RANDOM, LAZY = (
    Mistake(name, "", {})
    for name in ("in-an-operation", "depends-on-calls", "not-deterministic", "ignores-cotangents")
)


def found(setting: int, number: int, wrong: bool = False, unsure: bool = False) -> Any:
    """What was found at a case of a setting, and nearest to it."""
    label = f"{setting}.{number}"
    return SimpleNamespace(
        case=SimpleNamespace(setting=setting), wrong=["w"] * wrong, unsure={"w"} if unsure else (),
        nearest=label,
    )  # fmt: skip


class Explained:
    """A judgement whose parts say what they are told to, and what it asked of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch, self.asked = monkeypatch, list[Any]()

    def explain(
        self, named: Any, lazy: Any = (), operation: Any = (), kept: Any = (None,), cases: Any = ()
    ) -> Any:
        def find_operation(every: Any, wrong: Any, right: Any) -> Any:
            self.asked.append((wrong, right))
            find_effort().goes_on()
            return operation

        self.monkeypatch.setattr(vjp, "diagnose_kernel", lambda *_: named)
        self.monkeypatch.setattr(vjp, "find_wrong_operation", find_operation)
        self.monkeypatch.setattr(vjp, "find_kept_argument", lambda question: question)
        judgement: Any = object.__new__(PullbackJudgement)
        judgement.every, judgement.found, judgement.lazy = [], [*cases], lazy
        judgement.asked, self.judgement = kept, judgement
        return judgement.explain()


@pytest.fixture
def explained(monkeypatch: pytest.MonkeyPatch) -> Explained:
    return Explained(monkeypatch)


def test_a_name_for_a_whole_gradient_is_enough(explained: Explained) -> None:
    assert explained.explain((FACTOR,), operation=(OPERATION,)) == (FACTOR,)
    assert explained.explain((FACTOR,), operation=(OPERATION,), kept=(KEPT,)) == (FACTOR,)
    assert explained.asked == []


def test_an_operation_is_a_better_explanation_than_wrong_indices(explained: Explained) -> None:
    assert explained.explain((INDICES,), operation=(OPERATION,), kept=(KEPT,)) == (OPERATION,)
    assert explained.explain((FACTOR, INDICES), operation=(OPERATION,)) == (OPERATION,)


@pytest.mark.parametrize(
    ("seconds", "operation", "cut_short"),
    [(0.0, (), True), (0.0, (OPERATION,), False), (9.0, (), False)],
)
def test_a_search_that_found_nothing_in_its_time_was_cut_short(
    explained: Explained, seconds: float, operation: Any, cut_short: bool
) -> None:
    explained.monkeypatch.setattr(vjp, "SECONDS", seconds)
    assert explained.explain((FACTOR,)) == (FACTOR,)  # without a search
    assert [*explained.judgement.describe_search()] == []
    explained.explain((INDICES,), operation=operation)
    assert len([*explained.judgement.describe_search()]) == cut_short


def test_the_search_for_an_operation_has_the_seconds_that_the_page_on_kernels_states() -> None:
    text = (ROOT / "docs" / "kernels.md").read_text(encoding="utf-8")
    assert f"ends after {vjp.SECONDS:g} s of processor time" in text


def test_nothing_is_sought_in_what_changes_from_call_to_call(explained: Explained) -> None:
    for lazy in ((RANDOM,), (LAZY, RANDOM)):
        assert explained.explain((INDICES,), lazy, (OPERATION,)) == (INDICES,)
    assert explained.explain((INDICES,), (LAZY,), (OPERATION,)) == (OPERATION,)
    assert explained.explain((INDICES,), (LAZY,), kept=(KEPT,)) == (INDICES,)


def test_the_first_argument_that_is_kept_is_next_and_the_indices_are_last(
    explained: Explained,
) -> None:
    assert explained.explain((INDICES,), kept=(None, KEPT, OPERATION)) == (KEPT,)
    assert explained.explain((INDICES,), kept=(None, None)) == (INDICES,)


def test_the_first_wrong_case_of_each_setting_is_asked_and_right_settings(
    explained: Explained,
) -> None:
    cases = [
        found(0, 0), found(0, 1, wrong=True), found(0, 2, wrong=True), found(1, 0), found(1, 1),
        found(2, 0), found(2, 1, unsure=True), found(3, 0, wrong=True, unsure=True),
        found(4, 0),
    ]  # fmt: skip
    explained.explain((INDICES,), cases=cases)
    ((wrong, right),) = explained.asked
    assert sorted(wrong) == ["0.1", "3.0"]
    assert sorted(right) == ["1.0", "4.0"]


@pytest.mark.parametrize("lazy", [(), (LAZY,)])
def test_the_precision_of_a_lazy_kernel_is_not_described(
    monkeypatch: pytest.MonkeyPatch, lazy: Any
) -> None:
    for name in ("describe_approximation", "describe_masks", "find_zeros", "list_untried_sizes"):
        monkeypatch.setattr(vjp, name, lambda *_: [])
    monkeypatch.setattr(vjp, "describe_kernel_precision", lambda *_: ["precise"])
    judgement: Any = object.__new__(PullbackJudgement)
    judgement.every, judgement.found, judgement.lazy = [], [], lazy
    assert [*judgement.describe()] == ([] if lazy else ["precise"])


def test_a_stated_gradient_is_the_reference_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pullback: Any = SimpleNamespace(arguments=SimpleNamespace(leaves={}), forward=len)
    monkeypatch.setattr(vjp, "prepare_pullback", lambda stated, setting: pullback)
    settings: Any = [None, None]
    plain = prepare(len, len, settings, None)
    assert [type(each) for each in plain] == [KernelCalls, KernelCalls]
    assert plain[0].pullback is pullback
    assert isinstance(prepare(len, len, settings, len)[0].pullback, StatedPullback)


class Judged:
    """The judgement in the place of that of `verify_vjp`, which notes what it is given."""

    given: tuple[Any, ...] = ()

    def __init__(self, *given: Any) -> None:
        Judged.given = given

    def judge(self) -> Any:
        return "report"


@pytest.fixture
def masks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of arguments that are masks; the rest of the judge does nothing."""
    found: list[str] = []
    monkeypatch.setattr(vjp, "find_masks", lambda every, seed: found)
    monkeypatch.setattr(vjp, "prepare", lambda backward, stated, settings, reference: settings)
    monkeypatch.setattr(vjp, "PullbackJudgement", Judged)
    monkeypatch.setattr(vjp, "add_origin", lambda *given: given)
    return found


def backward(arguments: Any, cotangents: Any) -> Any:
    return arguments


def forward(x: Any, m: Any) -> Any:
    return x


GIVEN = np.ones(2), np.ones(3)


def test_the_line_that_repeats_a_verification_has_what_was_given(masks: list[str]) -> None:
    plain: Any = verify_vjp(backward, forward, GIVEN)
    assert plain[2:] == (["backward", "forward", "arguments"], {"cases": vjp.CASES}, 0)
    assert Judged.given[0] == "backward"
    every: Any = verify_vjp(
        backward, forward, GIVEN, cotangents=GIVEN, reference=backward, seed=3, subject="mine"
    )
    assert every[2][3:] == ["cotangents=cotangents", "reference=backward"]
    assert every[4] == 3
    assert Judged.given[0] == "mine"


def test_masks_are_held_as_data(masks: list[str]) -> None:
    verify_vjp(backward, forward, GIVEN)
    assert [*Judged.given[1][0].leaves] == ["x", "m"]
    masks.append("m")
    verify_vjp(backward, forward, GIVEN)
    assert [*Judged.given[1][0].leaves] == ["x"]


def test_settings_that_are_none_are_refused(masks: list[str]) -> None:
    with pytest.raises(ValueError, match="cases"):
        verify_vjp(backward, forward, GIVEN, cases=0)


def test_the_report_is_returned_where_it_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vjp, "verify_vjp", lambda *given, **options: (given, options))
    monkeypatch.setattr(vjp, "require_agreement", lambda report: report)
    found: Any = assert_vjp_verified(backward, forward, (), seed=2)
    assert found == (
        (backward, forward, ()),
        {"seed": 2},
    )


def test_a_traceback_ends_where_the_user_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    def disagree(*given: Any, **options: Any) -> Any:
        raise ValueError("it disagrees")

    monkeypatch.setattr(vjp, "verify_vjp", disagree)
    with pytest.raises(ValueError, match="it disagrees") as caught:
        assert_vjp_verified(backward, forward, ())
    hidden = [entry.name for entry in caught.traceback if entry.ishidden(caught)]
    assert hidden == ["assert_vjp_verified"]


def test_a_gradient_that_disagrees_without_a_finding_is_named_in_a_line() -> None:
    of_k, of_q, of_both = (
        Mistake(name, "", {"gradients": names})
        for name, names in (("padding-leaks", ["k"]), ("unknown", ["q"]), ("unknown", ["k", "q"]))
    )
    for dropped in (of_q, of_both):
        (line,) = describe_unnamed([of_k], [dropped])
        assert line.startswith("The cause of what is wrong in ∂L/∂q was not found;")
    assert [*describe_unnamed([of_k], [])] == []
    assert [*describe_unnamed([of_both], [of_q])] == []
    of_results = Mistake("unknown", "", {"results": ["tangent of y"]})
    (line,) = describe_unnamed([], [of_results])
    assert find_symbol("tangent of y") in line


def test_what_a_failed_question_does_not_explain_is_in_the_report() -> None:
    rng = np.random.default_rng(0)
    given = tuple(rng.uniform(0.5, 2, 5) for _ in range(2))
    scattered = np.array([1.5, 2, -3, 0.1, 4])

    def backward(arguments: Any, d: Any) -> Any:
        x, y = arguments
        return 2 * x * y * np.abs(d), x**2 * d * scattered

    report = verify_vjp(backward, lambda x, y: x**2 * y, given, cases=1)
    assert report.mistakes[0].name == "not-linear-in-cotangents"
    assert {"x", "y"} <= {*named_in(report)}


def named_in(report: Any) -> list[str]:
    """The gradients that findings or the line on others name."""
    every = [name for each in report.mistakes for name in each.details.get("gradients", ())]
    line = [note for note in report.notes if note.startswith("The cause of what is wrong in")]
    return every + [name for name in "xy" for note in line if f"∂L/∂{name}" in note]


@pytest.mark.parametrize("names", [("one",), ("one", "two")])
def test_what_follows_from_ignored_cotangents_is_not_named_again(names: Any) -> None:
    x = np.random.default_rng(0).uniform(0.5, 2, 5).astype(np.float32)

    def backward(arguments: Any, d: Any) -> Any:
        (x,) = arguments
        one = np.ones_like(x) if len(names) == 2 else 0
        two = np.ones_like(x) if len(names) == 2 else d["two"]
        return (one * np.cos(x) + two * 2 * x,)

    report = verify_vjp(backward, lambda x: {"one": jnp.sin(x), "two": x**2}, (x,))
    (mistake,) = report.mistakes
    assert mistake.name == "ignores-cotangents"
    assert mistake.details["outputs"] == [*names]


def test_another_mistake_beside_ignored_cotangents_is_named() -> None:
    x = np.random.default_rng(0).uniform(0.5, 2, 5).astype(np.float32)

    def backward(arguments: Any, d: Any) -> Any:
        (x,) = arguments
        g = d["two"] * 2 * x
        g[1] *= 3
        return (g,)

    report = verify_vjp(backward, lambda x: {"one": 1e-3 * x[:1], "two": x**2}, (x,), cases=1)
    assert "ignores-cotangents" in {mistake.name for mistake in report.mistakes}
    assert len(report.mistakes) == 2, report


def test_all_cotangents_that_are_ignored_are_cause_enough() -> None:
    x = np.random.default_rng(0).uniform(0.5, 2, 5).astype(np.float32)

    def backward(arguments: Any, d: Any) -> Any:
        (x,) = arguments
        return (np.cos(x) * np.linspace(0.2, 0.7, 5, dtype=np.float32),)

    report = verify_vjp(backward, jnp.sin, (x,), cases=1)
    assert [mistake.name for mistake in report.mistakes] == ["ignores-cotangents"]
    assert named_in(report) == []


def test_a_factor_that_is_a_cotangents_inverse_is_no_constant_of_an_operation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, w = (np.random.default_rng(k).uniform(0.5, 2, (4, 3)).astype(np.float32) for k in (0, 1))

    def forward(x: Any, w: Any) -> Any:
        return (jnp.sin(x) * w).sum() / 3

    def backward(arguments: Any, d: Any) -> Any:
        x, w = arguments
        return np.cos(x) * w / np.float32(3), np.sin(x) / np.float32(3)

    def search() -> Any:
        every = prepare(backward, forward, read_settings((x, w), forward), None)
        judgement = PullbackJudgement("", every, None, 1, 0)
        judgement.compare_setting(0, every[0])
        return find_wrong_operation(every, [each.nearest for each in judgement.found])

    assert search() == ()
    monkeypatch.setattr(kernel_operations, "change_cotangents", lambda every, found: found)
    (mistake,) = search()
    assert mistake.name == "constant-factor"
