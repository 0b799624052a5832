"""The path from a submission to a report, the same for every subject."""

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np

from bptt_verifier.judge.comparisons import (
    ask_at,
    ask_twice,
    compare_at,
    find_forward_difference,
    find_wrong_loss,
)
from bptt_verifier.judge.conclusion import (
    Progress,
    conclude,
    describe_hidden,
    describe_precision,
    list_comparisons,
    list_gradients,
    separate_steps,
    summarise_parameters,
)
from bptt_verifier.judge.far_values import describe_overflow
from bptt_verifier.judge.half_precision import (
    choose_extreme,
    decide_by_scatter,
    doubt_format,
    excuse_one_sided,
    find_new_difference,
    hold_to_one_rounding,
    specify_format,
)
from bptt_verifier.judge.judgement import Judgement, is_counted
from bptt_verifier.judge.narrow_draws import is_finite, is_finite_as_given, leave_out_narrow
from bptt_verifier.judge.neighbours import (
    DECISIVE,
    ENTRIES,
    are_numbers_of,
    find_formats_inside,
    find_precision,
    is_half,
    is_half_precision,
    is_lost,
    is_within,
    list_excused,
    list_failing,
    list_rounded,
    may_be_rounded,
    moves_smoothly,
    settle,
    weigh,
)
from bptt_verifier.judge.raised_draws import (
    ask_at_zeros,
    describe_raised,
    describe_zeroed,
    doubt_few,
    doubt_missing,
)
from bptt_verifier.judge.repetition import find_dependence, find_stale
from bptt_verifier.judge.rounded_gradients import find_rounded
from bptt_verifier.judge.subject import Compared, Copy, Subject
from bptt_verifier.judge.submission import Breach, Submission
from bptt_verifier.judge.unconverged import (
    Kept,
    allow_unconverged,
    count_telling,
    describe_early,
    is_left_out,
)
from bptt_verifier.judge.undecided import state_excused_resolutions, state_resolutions_of_formats
from bptt_verifier.judge.unguarded import leave_out_guarded, list_doubts
from bptt_verifier.program.attempt import copies
from bptt_verifier.reference.case import Case
from bptt_verifier.report import Mistake, Report
from bptt_verifier.report.findings import COUNTED
from bptt_verifier.tolerance.comparison import Verdict

LEARNING = 4  # cases at which a format may be learnt while all errors scatter like rounding
SCALES_NEARER_ZERO = 2.0**-10, 2.0**-12  # times the values at which results are not finite


def judge(
    gradients: Callable[..., Any],
    subject: Subject,
    name: str,
    progress: Progress = lambda done, total: None,
    timeout: float | None = None,
) -> Report:
    """Judge a function, and report whatever it does, with notes on its calls.

    The contract, the loss, the gradients and single steps are checked. If something disagrees, the
    mistake is diagnosed and the smallest failing case found. If every bound is too large to decide,
    exact values are compared. The search for a mistake's name takes `timeout` seconds at most.
    """
    judgement = SubjectJudgement(Submission(gradients), subject, name, progress, timeout)
    report = judgement.judge()
    return report._replace(notes=(*report.notes, *judgement.submission.notes))


class SubjectJudgement(Judgement):
    """The judgement of one submission: what has been compared, and what is known of its precision.

    `precision` is the format in which the submission computes, if it is coarser than that of its
    results, and `inferred` where errors alone say so; the results in `rounded` are numbers of half
    precision, and those `inside` are computed in it by parts. `confirmed` are the gradients known
    to be wrong. `overflows` are breaches by results that are not finite at large values alone, or
    in half precision; `doubtful` are those found before the precision is known. In those `raised`
    it raised an exception, as outside of a formula's domain, and in those `zeroed`, with zeros, it
    broke the contract. `differs` is a forward pass that is another one where an iteration of the
    loss has not converged. `learnt` counts the cases from which the precision was to be learnt.
    `extreme` are the cases of extreme sizes and values, and `called` those of all calls until now.
    `settled` has what scatter has decided of a case, by the identity of what was found there, and
    `sided` what it leaves open as rounding to one side.
    """

    def __init__(
        self,
        submission: Submission,
        subject: Subject,
        name: str,
        progress: Progress,
        timeout: float | None = None,
    ) -> None:
        self.submission, self.subject, self.name = submission, subject, name
        self.progress, self.timeout = progress, timeout
        self.compared, self.probes = list[Compared](), list[Compared]()
        self.precision: Any = subject.precision
        self.rounded, self.inside = frozenset[str](), dict[str, Any]()
        self.precision_known, self.inferred = subject.precision is not None, False
        self.fails, self.learnt, self.halves = False, 0, 0
        self.confirmed, self.sided = list[str](), list[str]()
        self.overflows, self.doubtful = list[Breach](), list[Breach]()
        self.raised, self.zeroed = list[Breach](), list[Breach]()
        self.differs: Mistake | None = None
        self.extreme: list[Case] = []
        self.called: list[Case] = []
        self.settled: dict[int, tuple[Compared, Compared]] = {}

    @property
    def steps(self) -> Sequence[Callable[[], Report | None]]:
        """The contract, the cases, the probes of single steps, and extreme cases."""
        return (
            self.check_contract, self.compare_cases, self.compare_probes,
            self.compare_extreme_cases,
        )  # fmt: skip

    def report(self, verdict: Verdict, *mistakes: Mistake, notes: tuple[str, ...] = ()) -> Report:
        """Report a verdict that needs no more cases."""
        compared, subject = self.compared, self.subject
        raised = subject.raised or any(mistake.name == "raised" for mistake in mistakes)
        parameters = summarise_parameters(list_comparisons(compared))
        stated = [note for note in subject.notes if not note.endswith(COUNTED)]  # not compared
        return Report(
            self.name, verdict, mistakes, parameters=parameters,
            cases=len(compared), notes=(*stated, *count_telling(subject, compared), *notes),
            largest_sizes=subject.find_largest_sizes(self.called),
            raised=raised,
        )  # fmt: skip

    def refuse(self, breach: Breach) -> Report:
        """Report a breach of the contract, or that results cannot be read in one way alone."""
        return self.report(breach.verdict, *breach.mistakes, notes=breach.sentences)

    def compare_at(self, case: Case, copy: Copy = copies) -> Compared | Breach:
        """Call the submission at a case, and compare its results with the reference."""
        return self.compare_with(self.submission, case, copy)

    def compare_with(
        self, submission: Submission, case: Case, copy: Copy = copies
    ) -> Compared | Breach:
        """Call another submission, whose results have the formats of this one."""
        known: Any = {"precision": self.precision, "rounded": self.rounded, "inside": self.inside}
        return compare_at(submission, self.subject, case, copy, **known)

    def attempt(self, case: Case) -> Compared | None:
        """Compare at a case; None where the submission breaks the contract."""
        found = self.compare_at(case)
        return None if isinstance(found, Breach) else found

    def advance(self, found: Compared) -> None:
        """Report progress, and let the subject compute ahead while everything agrees."""
        self.fails = self.fails or found.fails
        if not self.fails:  # else there will be no extreme cases
            self.subject.compute_ahead()
        self.progress(len(self.compared) + len(self.probes), self.subject.total)

    def check_contract(self) -> Report | None:
        """Call the submission twice at some cases before numbers are compared."""
        subject = self.subject
        for case in subject.draw_contract_cases():
            self.called.append(case)
            answer = ask_twice(self.submission, subject, case)
            followed = subject.follow_loss(self.submission, case, answer)
            if followed is not None:
                self.submission = followed
                if subject.refusal is not None:
                    break  # what such a loss keeps decides nothing
                answer = ask_twice(followed, subject, case)
            if isinstance(answer, Breach):
                return self.refuse(answer)
            differs = find_wrong_loss(subject, case, answer)
            if differs is not None:
                return self.report(Verdict.DISAGREES, differs, notes=(subject.refusal or "",))
        if subject.refusal is not None:
            return self.report(Verdict.INCONCLUSIVE, notes=(subject.refusal,))
        return None

    def compare_cases(self) -> Report | None:
        """Compare the gradients at random cases, after the reference has been confirmed."""
        with closing(case for case in self.subject.draw_cases()) as cases:  # and its workers
            for number, case in enumerate(cases):
                doubt = self.subject.contradict(number, case)
                if doubt is not None:
                    return self.report(Verdict.INCONCLUSIVE, notes=(doubt,))
                ended = self.compare_case(case)
                if ended is not None:
                    return ended
        for breach in self.doubtful:
            if not (self.precision_known and is_half(breach.dtype)):
                return self.refuse(breach)
        self.overflows = [*self.doubtful, *self.overflows]
        return None

    def compare_extreme_cases(self) -> Report | None:
        """Compare the gradients at extreme cases, unless another case shows that one is wrong.

        Errors beyond the bound may be rounding: whoever computes by other formulas is asked, too.
        """
        compared = [*self.compared, *self.probes]
        if any(each.fails for each in compared) and any(e.fails for e in self.settle(compared)):
            return None
        ordinary = len(self.compared)
        ended = map(self.compare_case, self.subject.draw_extreme_cases())
        report = next((report for report in ended if report is not None), None)
        self.extreme = choose_extreme(self.subject, self.compared, ordinary)
        return report

    def compare_case(self, case: Case) -> Report | None:
        """Compare at one case, the results of the forward pass before the gradients."""
        self.called.append(case)
        found = ask_at_zeros(self.submission, self.subject, case) or self.compare_at(case)
        if isinstance(found, Breach):
            return self.excuse(found, case)
        telling = not case.single or self.subject.format_given == np.float32
        if self.precision is None and self.learnt < LEARNING and telling:
            found = self.learn_precision(found)
        found = self.settle_forward(found)
        differs = find_forward_difference(self.subject, found)
        if differs is not None and not is_left_out(self.subject, found):
            return self.report(Verdict.DISAGREES, differs)
        self.differs = self.differs or differs
        self.compared.append(found)
        self.advance(found)
        return None

    def settle_forward(self, found: Compared) -> Compared:
        """Decide by scatter on the loss and the prediction, as on gradients, but at once."""
        forward = [name for name in found.submitted if name not in found.gradients]
        halves = [name for name in forward if is_half_precision(name, found)]
        decisive = halves if self.halves < DECISIVE else []
        failing = [n for n in list_failing(found) if n in forward and n not in decisive]
        if failing:
            found = weigh(self.attempt, self.subject, found, failing, ENTRIES)
        if decisive:
            self.halves += 1
            found = weigh(self.attempt, self.subject, found, decisive, ENTRIES, decisive=True)
        return found

    def excuse(self, breach: Breach, case: Case) -> Report | None:
        """Leave a case out where a right function may raise or overflow, or refuse the submission.

        Where values are drawn, a function may guard the domain of its formula: it raises there,
        and has not raised at the parameters given. A number that underflows may be an exception
        under settings of its own. In half precision (e^a − e^−a) / (e^a + e^−a) overflows at values
        that are ordinary in float64, and in any precision a softmax with one shift for all columns
        is 0/0 at large ones. Until the precision is known, it may be half precision. Where a
        parameter is drawn as zero, right code may divide by it, or have nothing to loop over.
        """
        by_settings = breach.by_settings and self.compared
        if breach.of_values and (by_settings or self.subject.may_be_outside(case)):
            self.raised.append(breach)
            return None
        if self.subject.draws_zeros(case):
            self.zeroed.append(breach._replace(notes=(f"With {case.label}.",)))
            return None
        if breach.dtype is None:
            return self.refuse(breach)
        if (self.precision_known and is_half(breach.dtype)) or self.is_finite_elsewhere(case):
            self.overflows.append(breach)
        elif self.precision_known:
            return self.refuse(breach)
        else:
            self.doubtful.append(breach)
        return None

    def is_finite_elsewhere(self, case: Case) -> bool:
        """True if the submission is finite at smaller values, or in the format of those given.

        It may overflow at these, or in float32.
        """
        smaller = self.subject.scale_values(case, SCALES_NEARER_ZERO)
        answers = [ask_at(self.submission, self.subject, each) for each in smaller]
        if answers and all(map(is_finite, answers)):
            return True
        return is_finite_as_given(self.submission, self.subject, case)

    def learn_precision(self, found: Compared) -> Compared:
        """Find the precision and wrong gradients from the first cases in float64 that can tell.

        Where no error shows, a coarser format may be exact if it holds the numbers. Where all
        scatter like rounding and none is typical of a format, they may be small by chance. Where
        the scatter explains errors as large as the result, it is the loss that scatters. Where a
        saturated result is rounded, it does not scatter, and another case has to tell. A submission
        written for parameters of a coarser format may have constants that are rounded to it. What
        moves smoothly between the numbers of a format was not computed in it, as where an iteration
        has not converged.
        """
        if not list_failing(found):
            self.precision_known = True
            results = [found.submitted[name] for name in found.gradients]
            if not all(are_numbers_of(each, np.float32) for each in results):
                self.learnt = LEARNING  # no coarser format holds what is right here
            return found
        failing = list_failing(found)
        weighed = weigh(self.attempt, self.subject, found, failing, ENTRIES, far=True)
        precision = find_precision(found, weighed)
        names = [name for name in failing if name in found.gradients]
        if precision:
            of_case = self.submission, self.subject, found
            precision, is_cast = specify_format(*of_case, precision)
            # Beside parameters that are rounded, x may move the results smoothly.
            if is_cast or not moves_smoothly(self.attempt, self.subject, found, names, precision):
                self.precision, self.inferred = precision, True
        if self.precision is None:
            self.rounded |= list_rounded(found)
            self.inside |= find_formats_inside(self.attempt, self.subject, found, weighed)
        if {*self.rounded, *self.inside} & {*failing}:
            return self.compare_again(found)
        lost = any(is_lost(found, name) for name in list_excused(found, weighed))
        self.precision_known |= not lost
        still = list_failing(weighed)
        given = self.subject.format_given
        if self.precision is None and still and given and is_within(found, still, given):
            self.precision, still = given, []
        wrong = [name for name in still if not may_be_rounded(found, name)]
        self.confirmed = list({*self.confirmed, *wrong})
        self.learnt = LEARNING if wrong else self.learnt + (not (lost or still))
        return found if self.precision is None else self.compare_again(found)

    def compare_again(self, found: Compared) -> Compared:
        """Compare once more at this case, and at those before that fail, in the format learnt."""
        self.compared = [
            (self.attempt(each.case) or each) if list_failing(each) else each
            for each in self.compared
        ]
        return self.attempt(found.case) or found

    def compare_probes(self) -> Report | None:
        """Compare at the cases that show single steps."""
        for case in self.subject.draw_probes():
            self.called.append(case)
            found = self.compare_at(case)
            if isinstance(found, Breach):
                ended = self.excuse(found, case)
                if ended is not None:
                    return ended
                continue
            self.probes.append(separate_steps(found))
            self.advance(found)
        return None

    def settle(self, compared: Sequence[Compared]) -> list[Compared]:
        """Decide by scatter where gradients exceed their allowed errors, once at every case."""
        known = [self.settled.get(id(found), (found, found))[1] for found in compared]
        names = list_gradients(compared)
        settled = settle(self.attempt, self.subject, known, names, self.confirmed)
        # What was found is kept as well: the identity of what is lost may become another's.
        pairs = zip(compared, settled, strict=True)
        self.settled |= {id(found): (found, each) for found, each in pairs}
        excused, self.sided = excuse_one_sided(compared, settled)
        return excused

    def describe_cases(self, cases: Sequence[Compared], counted: bool) -> list[str]:
        """Describe what cases there were, and count those that could have shown a mistake.

        Where a coarser format hides mistakes, they are `counted` elsewhere, in that one alone.
        Those that overflow are not among them.
        """
        notes, left_out = list[str](), [*self.raised, *self.zeroed]
        for note in self.subject.notes:
            if not note.endswith(COUNTED) or not (counted or self.overflows or left_out):
                notes.append(note)
            elif not counted:
                notes += count_telling(self.subject, cases)
        return notes

    def find_other_name(self) -> Report | None:
        """Find a mistake that explains a gradient which may be rounded: counts are whole, too."""
        said = self.describe_cases(self.compared, counted=False)
        said += [] if is_counted(said) else count_telling(self.subject, self.compared)
        of_cases = self.attempt, self.subject, self.name, self.compared, ()
        report = conclude(*of_cases, (*said,), self.timeout, self.progress)
        named = any(each.name != "unknown" for each in report.mistakes)
        return report if named or list_doubts(self.subject, self.compared) else None

    def excuse_cases(self, compared: Sequence[Compared]) -> Kept | None:
        """Allow for iterations that end early, or leave guarded cases out; None without reason."""
        excusing = self.attempt, self.subject, compared
        kept = allow_unconverged(*excusing)
        if kept is None or kept.fails:
            kept = leave_out_guarded(*excusing) or kept
        return kept

    def conclude(self) -> Report:
        """Decide where errors exceed what is allowed, repeat some calls, and report."""
        compared, count = [*self.compared, *self.probes], len(self.compared)
        if len(self.overflows) > len(compared):
            return self.refuse(self.overflows[0])
        if self.raised and not compared:
            said = (*describe_raised(self.raised), "Nothing could be compared.")
            return self.report(Verdict.INCONCLUSIVE, notes=said)
        rounded = find_rounded(self.compared)
        if rounded is not None:
            other = self.find_other_name()
            return self.report(Verdict.DISAGREES, rounded) if other is None else other
        kept = self.excuse_cases(compared)
        if kept is None or kept.fails:
            narrow = self.attempt, self.subject, compared, self.excuse_cases
            kept = leave_out_narrow(*narrow) or kept
        if self.differs is not None and (kept is None or kept.fails):
            return self.report(Verdict.DISAGREES, self.differs)
        if kept is None:
            settled = self.settle(compared)
            allowed = compared
        else:
            compared, allowed, settled, count = *kept[:3], len(kept.settled)
        settled, rounding = hold_to_one_rounding(settled)
        later = getattr(self.submission.gradients, "at_later_call", None)
        on_object = later and partial(self.compare_with, Submission(later))
        asked = self.compare_at, on_object, self.subject.draw_raising
        changed, remarks = find_dependence(settled, *asked)
        if changed is None and kept is None and not any(each.fails for each in settled):
            changed = find_stale(self.subject, settled[:count], self.compare_at)
        if changed is not None:
            return self.report(Verdict.DISAGREES, changed)
        held, by_scatter = settled, (self.attempt, self.subject, settled, rounding, self.extreme)
        settled, slight = decide_by_scatter(*by_scatter)
        differs = find_new_difference(self.subject, held, settled)
        if differs is not None:
            self.compared = settled[:count]
            return self.report(Verdict.DISAGREES, differs)
        given = self.subject.format_given
        known = self.precision, self.subject.precision
        formats = describe_precision(allowed, settled, known, self.overflows, given)
        hidden = [*describe_hidden(settled, self.precision, self.subject.zeros)]
        left_out = () if kept is None else kept.notes
        cases, probes = settled[:count], settled[count:]
        fewer = len(settled) < len(self.compared) + len(self.probes)
        stated = self.describe_cases(cases, counted=bool(hidden) or fewer)
        if not is_counted([*left_out, *stated, *hidden]):
            stated += count_telling(self.subject, settled)
        raised = [*describe_raised(self.raised), *describe_zeroed(self.zeroed)]
        missing = [*doubt_missing(self.subject, settled)]
        notes = (*missing, *left_out, *raised, *formats, *stated, *hidden, *remarks)
        of_cases = self.attempt, self.subject, self.name, cases, probes
        report = conclude(*of_cases, notes, self.timeout, self.progress)
        report = state_excused_resolutions(report, compared, settled)
        report = state_resolutions_of_formats(report, settled)
        if report.verdict is Verdict.DISAGREES:
            home = [each for each in cases if not self.subject.may_be_outside(each.case)]
            more = *describe_early(self.subject, home), *self.subject.describe_failing(cases)
            return report._replace(notes=(*more, *report.notes))
        doubts = [*self.sided, *slight, *(() if kept is None else kept.doubts)]
        if self.inferred and is_half(self.precision):
            doubts += doubt_format(self.submission, self.subject, settled, self.precision)
        if doubts:
            return report._replace(verdict=Verdict.INCONCLUSIVE, notes=(*doubts, *report.notes))
        if report.verdict is not Verdict.AGREES:
            return report
        few = [*doubt_few(self.subject, self.raised, settled)]
        if few or missing:
            return report._replace(verdict=Verdict.INCONCLUSIVE, notes=(*few, *report.notes))
        unseen = [*self.subject.describe_unseen(settled)]
        unseen += describe_overflow(self.submission, self.subject, settled)
        return report._replace(notes=(*report.notes, *unseen))
