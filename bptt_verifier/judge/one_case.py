"""One case of an own model, compared again: both gradients, without a search for a mistake."""

from collections.abc import Callable, Sequence
from typing import Any

from bptt_verifier.judge.comparisons import ask_at, compare_at, find_forward_difference
from bptt_verifier.judge.conclusion import (
    list_gradients,
    make_counterexample,
    summarise_parameters,
)
from bptt_verifier.judge.judgement import is_counted
from bptt_verifier.judge.narrow_draws import doubt_narrow, doubt_overflow
from bptt_verifier.judge.neighbours import settle
from bptt_verifier.judge.own_model import OwnSubject
from bptt_verifier.judge.subject import Compared
from bptt_verifier.judge.submission import Breach, Submission
from bptt_verifier.judge.unconverged import allow_unconverged, count_telling
from bptt_verifier.judge.undecided import accept_zeros, withhold
from bptt_verifier.judge.unguarded import list_doubts
from bptt_verifier.program.attempt import use_own_settings
from bptt_verifier.program.lone_arrays import name_lone_array
from bptt_verifier.reference.case import Case, Loss
from bptt_verifier.reference.own_loss import prepare
from bptt_verifier.reference.points import read_point
from bptt_verifier.report import Report, shortest
from bptt_verifier.report.numbers import write_numbers
from bptt_verifier.report.versions import find_versions
from bptt_verifier.tolerance.comparison import Verdict, overall

WRITTEN = 40  # entries of parameters that a report writes out


def compare_case(
    gradients: Callable[[Any], Any],
    loss: Loss,
    params: Any,
    case: str,
    *,
    seed: int = 0,
    subject: str | None = None,
) -> Report:
    """Compare `gradients(params)` with autodiff at one case, which a report names.

    `case` is its name there, such as "7,digits=1", and `seed` that of the report; the other
    arguments are those of `verify_own_model`. The verdict is that of this case alone. An iteration
    of the loss that ends early is allowed for, but not left out, since nothing else is compared.
    Raises ValueError, with one sentence, where `case` names none, or nothing can be compared.
    """
    point = read_point(case)
    gradients, loss, params = name_lone_array(gradients, loss, params)
    with use_own_settings():
        model = prepare(loss, params, seed=seed, cases=1)
        if model.refusal is not None:
            raise ValueError(
                f"case: expected one that can be compared, found none: {model.refusal}"
            )
        own, submission = OwnSubject(model, gradients, loss), Submission(gradients)
        wanted = model.make_case(point)
        answer = ask_at(submission, own, wanted)
        submission = own.follow_loss(submission, wanted, answer) or submission
        found = compare_at(submission, own, wanted)

        def attempt(case: Case) -> Compared | None:
            other = compare_at(submission, own, case)
            return None if isinstance(other, Breach) else other

        kept = None if isinstance(found, Breach) else allow_unconverged(attempt, own, [found])
        if kept is not None:
            (found,) = kept.settled
        elif not isinstance(found, Breach):
            (found,) = settle(attempt, own, [found], [*found.gradients], ())
    name, sizes = subject or "your model", own.find_largest_sizes([wanted])
    if isinstance(found, Breach):
        overflows = doubt_overflow(submission, own, wanted) if found.dtype is not None else []
        return Report(
            name,
            Verdict.INCONCLUSIVE if overflows else found.verdict,
            () if overflows else found.mistakes,
            notes=(*count_telling(own, []), *overflows, *found.sentences), seed=seed,
            versions=find_versions(), largest_sizes=sizes,
        )  # fmt: skip
    parameters = accept_zeros(summarise_parameters(found.comparisons), own.zeros)
    verdict = overall(parameters[each].verdict for each in list_gradients([found]))
    differs = find_forward_difference(own, found)
    values, notes = found.case.arguments.items(), list[str](() if kept is None else kept.notes)
    notes += [] if is_counted(notes) else count_telling(own, [found])
    if sum(value.size for _, value in values) <= WRITTEN:
        written = (f"{n} = {write_numbers(shortest(v).tolist(), 9)}" for n, v in values)
        notes += [f"At {', '.join(written)}."]
    report = Report(
        name,
        verdict if differs is None else Verdict.DISAGREES,
        () if differs is None else (differs,),
        parameters=parameters,
        cases=1,
        counterexample=make_counterexample(own, found),
        notes=tuple(notes),
        seed=seed,
        versions=find_versions(),
        largest_sizes=sizes,
    )
    doubts: Sequence[str] = () if kept is None else kept.doubts
    if verdict is Verdict.DISAGREES and differs is None:
        doubts = list_doubts(own, [found]) or doubt_narrow(attempt, own, found)
    return withhold(report, doubts) if doubts else report
