"""Verify somebody's gradients of their own model, in any layout.

They bring parameters by name, a loss that is written once for NumPy and JAX, and the gradients
that they derived. Nothing is assumed of what lies between. The contract comes first, then the
numbers, then the diagnosis.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from bptt_verifier.mistakes.own_search import Evidence, diagnose
from bptt_verifier.reference.own_loss import (
    CASES,
    FLOAT32,
    FLOAT64,
    Case,
    Failure,
    Loss,
    Oracle,
    called,
    case_at,
    copies,
    drawn,
    kind,
    precise,
    prepared,
    usable,
)
from bptt_verifier.report.report import (
    Counterexample,
    DerivationError,
    Mistake,
    ParameterResult,
    Report,
)
from bptt_verifier.tolerance.comparison import Comparison, Verdict, coarsest, compare

Array = np.ndarray[Any, np.dtype[Any]]
Gradients = Callable[[dict[str, Any]], Any]

WITNESSES = 4  # failing cases that a named mistake must reproduce
SIMPLE = 20  # cases with one-digit values that are tried for the simplest failing one
SHOWN = 400  # entries of all parameters that a report repeats


def verify_own_model(
    gradients: Gradients,
    loss: Loss,
    params: Mapping[str, Any],
    *,
    seed: int = 0,
    cases: int = CASES,
    progress: Callable[[int, int], None] = lambda done, total: None,
    subject: str = "your model",
) -> Report:
    """Hold `gradients(params)` against jax.grad of `loss(params, xp)`.

    `params` are float arrays by name, in any layout; `loss` computes a scalar with the namespace it
    is given, numpy or jax.numpy; `gradients` returns arrays of the same names and shapes, and may
    add "loss". The parameters given are the first of `cases`; the others are drawn from `seed`.
    What they raise, return or modify is a verdict. Raises TypeError or ValueError where `params`
    holds no float arrays, `cases` is no integer from 1, or `seed` none from 0.
    """
    oracle = prepared(loss, params, seed=seed, cases=cases, progress=progress)
    return judged(gradients, oracle, subject=subject)


def assert_own_model_verified(
    gradients: Gradients, loss: Loss, params: Mapping[str, Any], **options: Any
) -> None:
    """Raise DerivationError, with the report, unless `verify_own_model` says that they agree."""
    report = verify_own_model(gradients, loss, params, **options)
    if report.verdict is not Verdict.AGREES:
        raise DerivationError(report)


def answered(gradients: Gradients, params: Mapping[str, Array]) -> dict[str, Array] | Mistake:
    """Their gradients as arrays of their own, or which part of the contract is broken."""
    if not callable(gradients):
        return broken("wrong-shape", f"gradients: expected a function, found {kind(gradients)}.")
    given = copies(params)
    answer = called(gradients, given)
    if isinstance(answer, Failure):
        return broken(
            "raised",
            f"Your gradients raised {answer.what} at {answer.where}.",
            file_line=answer.where,
            exception=answer.what,
        )
    if not isinstance(answer, Mapping):
        return broken(
            "wrong-shape", f"gradients(params): expected a mapping by name, found {kind(answer)}."
        )
    missing = [name for name in params if name not in answer]
    if missing:
        found = ", ".join(map(str, answer)) or "none"
        return broken(
            "wrong-shape",
            f"gradients(params): expected the names {', '.join(params)}, found {found}.",
            missing=missing,
        )
    result = {}
    for name in [*params, *({"loss"} & answer.keys() - params.keys())]:
        shape = params[name].shape if name in params else ()
        # A copy at once, since it may be a view of an array that they change later.
        value = called(lambda one=answer[name]: np.array(one))
        if isinstance(value, Failure) or value.dtype.kind not in "fiu":
            what = kind(answer[name]) if isinstance(value, Failure) else f"dtype {value.dtype}"
            return broken(
                "wrong-shape",
                f"gradients(params)[{name!r}]: expected an array of floats, found {what}.",
                gradient=name,
            )
        if value.dtype.kind in "iu":
            value = value.astype(params[name].dtype if name in params else np.float64)
        if name == "loss" and value.size == 1:
            value = value.reshape(())
        if value.shape != shape:
            return broken(
                "wrong-shape",
                f"gradients(params)[{name!r}]: expected shape {shape}, found {value.shape}.",
                gradient=name,
                expected=list(shape),
                found=list(value.shape),
            )
        result[name] = value
    changed = [
        name
        for name in params
        if name not in given or not np.array_equal(given[name], params[name], equal_nan=True)
    ]
    if changed:
        return broken(
            "inputs-modified",
            f"gradients(params): expected params to be left alone, found {changed[0]!r} modified.",
            gradients=changed,
        )
    return result


def broken(name: str, sentence: str, **details: Any) -> Mistake:
    """A breach of the contract."""
    return Mistake(name, sentence, details)


def roundoff(case: Case, name: str, yours: Array) -> tuple[Array, float]:
    """What is allowed of this gradient, by the precision it was computed in; and its roundoff."""
    form = np.finfo(coarsest(case.params[name], yours))
    wide, single = (allowed[name] for allowed in case.allowed)
    unit = float(form.eps) / 2
    floor = 16 * float(form.tiny)  # what underflows is lost whole
    return scaled(wide, single, unit) + wide + floor, unit


def scaled(wide: Any, single: Any, unit: float) -> Any:
    """What is allowed in a precision, from what is in float64 and in float32.

    What is coarser than these is not measured: errors are taken to grow with the unit.
    """
    return wide if unit <= FLOAT64 else single * max(1.0, unit / FLOAT32)


# The verdict.


def judged(
    gradients: Gradients,
    oracle: Oracle,
    named: Callable[[], tuple[tuple[Mistake, ...], Counterexample | None]] = lambda: ((), None),
    *,
    subject: str = "your model",
) -> Report:
    """The verdict on these gradients, with everything else about the model known.

    `named` is asked for their mistakes, and for a small failing case, before the judge looks for
    them itself.
    """
    breach = contract(gradients, oracle)
    if breach is not None:
        return Report(subject, Verdict.DISAGREES, (breach,), cases=1, notes=raised_note(breach))
    if oracle.refusal is not None:
        other_forward = forward_differs(gradients, oracle) if oracle.losses_differ else None
        if other_forward is not None:
            return Report(
                subject, Verdict.DISAGREES, (other_forward,), cases=1, notes=(oracle.refusal,)
            )
        return Report(subject, Verdict.INCONCLUSIVE, notes=(*oracle.notes, oracle.refusal))
    comparisons: dict[str, list[Comparison]] = {name: [] for name in oracle.params}
    answers = []
    for case in oracle.cases:
        answer = answered(gradients, case.params)
        if isinstance(answer, dict):
            answer = not_finite(answer, case) or other_loss(answer, case) or answer
        if isinstance(answer, Mistake):
            answer.details["case"] = case.number
            return Report(
                subject,
                Verdict.DISAGREES,
                (answer,),
                parameters=table(comparisons),
                cases=case.number + 1,
                notes=(*oracle.notes, *raised_note(answer)),
            )
        answers.append(answer)
        for name, found in compared(answer, case).items():
            comparisons[name].append(found)
    parameters = table(comparisons)
    verdicts = {result.verdict for result in parameters.values()}
    notes = list(oracle.notes)
    if Verdict.DISAGREES in verdicts:
        mistakes, case_shown = diagnosed(gradients, oracle, answers, comparisons, named)
        return Report(
            subject,
            Verdict.DISAGREES,
            mistakes,
            parameters=parameters,
            cases=len(oracle.cases),
            counterexample=case_shown,
            notes=tuple(notes),
        )
    notes += [
        undecided(name, oracle)
        for name, result in parameters.items()
        if result.verdict is Verdict.INCONCLUSIVE
    ]
    verdict = Verdict.AGREES if verdicts == {Verdict.AGREES} else Verdict.INCONCLUSIVE
    return Report(
        subject, verdict, parameters=parameters, cases=len(oracle.cases), notes=tuple(notes)
    )


def contract(gradients: Gradients, oracle: Oracle) -> Mistake | None:
    """What is broken before any number is compared: at the parameters given, asked twice."""
    first = answered(gradients, oracle.params)
    if isinstance(first, Mistake):
        return first
    second = answered(gradients, oracle.params)
    if isinstance(second, Mistake):
        return second
    case = next((case for case in oracle.cases if case.number == 0), None)
    for name, yours in first.items():
        again = second.get(name, yours)
        if np.array_equal(yours, again, equal_nan=True):
            continue
        # Threads that add up in another order are no mistake; more than rounding is.
        if case is not None and name in case.reference:
            allowed, _ = roundoff(case, name, yours)
            if bool(np.all(np.abs(yours - again) <= allowed)):
                continue
        return broken(
            "not-deterministic",
            f"gradients(params): expected the same answer twice, found two for {name!r}.",
            gradient=name,
        )
    return None


def raised_note(mistake: Mistake) -> tuple[str, ...]:
    """An exception of theirs, once more as a note."""
    if mistake.name != "raised":
        return ()
    return (f"{mistake.details['file_line']}: {mistake.details['exception']}",)


def not_finite(answer: Mapping[str, Array], case: Case) -> Mistake | None:
    """NaN or infinity where autodiff has a number."""
    for name, yours in answer.items():
        if not np.isfinite(yours).all():
            entry = tuple(int(i) for i in np.argwhere(~np.isfinite(yours))[0])
            return broken(
                "not-finite",
                f"gradients(params)[{name!r}]: expected finite numbers as autodiff finds, found "
                f"{yours[entry]} at entry {list(entry)}.",
                gradient=name,
                entry=list(entry),
            )
    return None


def other_loss(answer: Mapping[str, Array], case: Case) -> Mistake | None:
    """A loss that is not the stated one: the forward pass is another."""
    if "loss" not in answer or "loss" in case.params:
        return None
    yours = answer["loss"]
    # A loss may be returned as a Python number, whatever it was computed in.
    form = np.finfo(coarsest(*answer.values(), *case.params.values()))
    wide, single = case.loss_allowed
    allowed = scaled(wide, single, float(form.eps) / 2) + wide + 16 * float(form.tiny)
    if abs(float(yours) - case.loss) <= allowed:
        return None
    return broken(
        "forward-differs",
        f"Your forward pass differs: you return the loss {float(yours):.12g} where loss(params) is "
        f"{case.loss:.12g}.",
        yours=float(yours),
        stated=case.loss,
    )


def forward_differs(gradients: Gradients, oracle: Oracle) -> Mistake | None:
    """The same at the parameters given, where the two losses of their own already differ."""
    answer = answered(gradients, oracle.params)
    case = oracle.cases[0]
    if isinstance(answer, Mistake) or case.number != 0:
        return None
    return other_loss(answer, case)


def compared(answer: Mapping[str, Array], case: Case) -> dict[str, Comparison]:
    """Every gradient against autodiff's."""
    found = {}
    for name, reference in case.reference.items():
        allowed, _ = roundoff(case, name, answer[name])
        found[name] = compare(name, answer[name], reference, allowed)
    return found


def table(comparisons: Mapping[str, Sequence[Comparison]]) -> dict[str, ParameterResult]:
    """The worst entry of every gradient over all cases."""
    results = {}
    for name, found in comparisons.items():
        if not found:
            continue
        worst = max(found, key=lambda comparison: comparison.error)
        verdict = Verdict.INCONCLUSIVE
        if worst.verdict is Verdict.DISAGREES:
            verdict = Verdict.DISAGREES
        elif any(comparison.conclusive for comparison in found):
            verdict = Verdict.AGREES
        results[name] = ParameterResult(
            verdict,
            worst.error,
            worst.entry,
            worst.yours,
            worst.reference,
            worst.allowed,
            len(found),
        )
    return results


def undecided(name: str, oracle: Oracle) -> str:
    """Why nothing could be shown of one gradient."""
    largest = max(float(np.max(np.abs(case.reference[name]))) for case in oracle.cases)
    if largest == 0:
        return f"∂L/∂{name} is zero in every case: nothing could be shown of it."
    ratio = min(
        float(np.max(case.allowed[0][name]) / np.max(np.abs(case.reference[name])))
        for case in oracle.cases
        if case.reference[name].any()
    )
    return (
        f"∂L/∂{name}: rounding alone may move it by {ratio:.2g} of its largest entry in float64, "
        "beyond 2⁻⁶ or what your precision can show: nothing could be shown of it."
    )


def diagnosed(
    gradients: Gradients,
    oracle: Oracle,
    answers: Sequence[Mapping[str, Array]],
    comparisons: Mapping[str, Sequence[Comparison]],
    named: Callable[[], tuple[tuple[Mistake, ...], Counterexample | None]],
) -> tuple[tuple[Mistake, ...], Counterexample]:
    """The mistakes, and the simplest failing case."""
    failing = [
        i
        for i in range(len(oracle.cases))
        if any(found[i].verdict is Verdict.DISAGREES for found in comparisons.values())
    ]
    # float32 hides more than float64 does; the parameters given may be small.
    failing.sort(
        key=lambda i: (
            any(value.dtype == np.float32 for value in oracle.cases[i].params.values()),
            oracle.cases[i].number == 0,
        )
    )
    evidence = [
        Evidence(
            oracle.cases[i].params,
            {name: answers[i][name].astype(np.float64) for name in oracle.params},
            oracle.cases[i].reference,
            {name: roundoff(oracle.cases[i], name, answers[i][name])[0] for name in oracle.params},
        )
        for i in failing[:WITNESSES]
    ]
    mistakes, shown = named()
    if not mistakes:
        with precise():
            assert oracle.program is not None
            mistakes = diagnose(oracle.program, evidence)
    if shown is None:
        simple = simplest(gradients, (simple_case(oracle, number) for number in range(SIMPLE)))
        case, answer = simple or (oracle.cases[failing[0]], answers[failing[0]])
        shown = counterexample(oracle, case, answer, 1 if simple else None)
    return mistakes, shown


def simple_case(oracle: Oracle, number: int) -> Case:
    """A case whose values have one digit."""
    assert oracle.program is not None
    assert oracle.reference is not None
    params = drawn(oracle.params, seed=oracle.seed, case=number, digits=1, held=oracle.held)
    with precise():
        return case_at(oracle.program, oracle.reference, params, number)


def simplest(gradients: Gradients, cases: Iterable[Case]) -> tuple[Case, dict[str, Array]] | None:
    """The first case that fails, and what they gave; if there is one."""
    for case in cases:
        answer = answered(gradients, case.params)
        if not usable(case) or isinstance(answer, Mistake) or not_finite(answer, case):
            continue
        if any(found.verdict is Verdict.DISAGREES for found in compared(answer, case).values()):
            return case, answer
    return None


def counterexample(
    oracle: Oracle, case: Case, answer: Mapping[str, Array], digits: int | None
) -> Counterexample:
    """One case as the report shows it: of a large gradient, the row with its worst entry."""
    found = compared(answer, case)
    name = max(found, key=lambda key: found[key].error)
    yours, reference = answer[name], case.reference[name]
    allowed, _ = roundoff(case, name, yours)
    with np.errstate(all="ignore"):
        error = np.where(yours == reference, 0.0, np.abs(yours - reference) / allowed)
    row = ""
    if yours.size > SHOWN // 4 and yours.ndim > 1:
        first = found[name].entry[0]
        yours, reference, error = yours[first], reference[first], error[first]
        row = f", row {first} of {name}"
    arrays = case.params if sum(value.size for value in case.params.values()) <= SHOWN else {}
    sizes = " ".join(f"{key}={value.shape}" for key, value in case.params.items())
    option = "" if digits is None else f", digits={digits}"
    return Counterexample(
        sizes=f"case {case.number}, {sizes}{row}",
        arrays={key: value.tolist() for key, value in arrays.items()},
        gradient=name,
        yours=yours.ravel().tolist() if yours.ndim == 0 else yours.tolist(),
        autodiff=reference.ravel().tolist() if reference.ndim == 0 else reference.tolist(),
        error_over_bound=error.ravel().tolist() if error.ndim == 0 else error.tolist(),
        reproduce=(
            "from bptt_verifier.judge.own_model import drawn; "
            f"gradients(drawn(params, seed={oracle.seed}, case={case.number}{option}))"
        ),
    )
