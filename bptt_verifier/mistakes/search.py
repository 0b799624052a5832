"""The search for the mistakes that reproduce a submission's numbers.

Every mistake is a hypothesis: a wrong derivation, whose gradients can be computed. It is named only
if, within the allowed error, it gives all of the submission's gradients in every case. To add a
kind of mistake, yield it from a method of a subject's `Hypotheses`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, combinations, islice, product
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.mistakes.coincidences import is_coincidence
from bptt_verifier.mistakes.compositions import Altered, list_first
from bptt_verifier.mistakes.effort import find_effort
from bptt_verifier.mistakes.evidence import SLACK, Evidence
from bptt_verifier.mistakes.hypotheses import Back, Hypotheses, Made, Match
from bptt_verifier.mistakes.other_names import add_names, add_others
from bptt_verifier.mistakes.single_gradients import GENERIC, WHOLE, Finding, describe_finding
from bptt_verifier.report import Mistake

RESTS = 3  # mistakes that explain all but one gradient, beside which others are tried
FEW = 4  # cases on which a hypothesis is tried before it is tried on all


def explain(
    known: Hypotheses, evidence: Sequence[Evidence], *, several: bool = True
) -> tuple[Mistake, ...]:
    """Find the mistakes that reproduce every number of every case; empty if none do.

    The first case is a failing one. The order is: one mistake in single gradients, which several
    may share; one in the backward pass, which affects every gradient after it; one or two that
    affect single gradients, whether in a backward pass or not; another forward pass; one in the
    backward pass and one in single gradients; one in single gradients after another; two in the
    backward pass; more than two in single gradients. No later one needs fewer mistakes. Where none
    of these does, it is one in the backward pass and another in the one gradient that is left,
    which pairs that were not tried may be. Unless `several`, only the first two are tried. Where
    the time of the effort is over, the rest is left out.

    Other mistakes that explain everything by themselves, or in the place of one of two, are stated
    in the explanation, generic names among them, as far as the hypotheses allow for other names.
    """
    right = try_mistakes(known, evidence, ())
    if not right.wrong:
        return ()  # within the slack of a hypothesis, the submission is right here
    of_gradients = explain_single_gradients(known, evidence, right) or ()
    some = 1 < len(right.wrong) < len(evidence[0].wanted)
    # A factor that some gradients share, and others lack, may belong to one operation.
    partial = some and [mistake.name for mistake in of_gradients] == ["constant-factor"]
    first = of_gradients[0] if len(of_gradients) == 1 and not (partial and several) else None
    if first is not None and not several:
        return of_gradients
    matches: list[Match] = []
    found = known.choose(select_from_tiers(known, evidence, matches, first is not None), first)
    if found is not None:
        return (found,)
    fitted = select_single(known, evidence, known.list_fitted(matches), matches)
    found = known.choose(fitted, None)
    if found is None:  # these are many, and unlikely beside another mistake
        found = known.choose(select_single(known, evidence, known.list_rarest(), []), None)
    if found is not None:
        return (found,)
    few = of_gradients if len(of_gradients) <= 2 else ()
    if not several or (few and not any(map(is_any_factor, few))):
        return of_gradients
    alone = explain_each_gradient(known, evidence, right, matches)
    doubts = sum(map(is_any_factor, few))
    if 0 < len(alone.mistakes) <= 2 and (not few or alone.doubts < doubts):
        few, doubts = alone.mistakes, alone.doubts
    if few and (len(few) == 1 or not doubts):
        return few
    others = (
        known.find_other_forward_pass()
        or find_one_of_each(known, evidence, matches)
        or find_one_after_another(known, evidence, right)
    )
    vague = all(each.name in GENERIC for each in others)
    if others and (not few or sum(map(is_any_factor, others)) <= doubts) and not vague:
        return add_pair(others, few)
    # Where any wrong number may come from both of these, likely pairs may say more.
    pairs = islice(known.list_pairs(evidence, matches), FEW * known.batch if others else None)
    for one, other in select_explaining(known, evidence, pairs):
        if others and known.is_generic(one) and known.is_generic(other):
            continue
        both = (
            add_partners(known, evidence, matches, other, known.describe(one)),
            add_partners(known, evidence, matches, one, known.describe(other)),
        )
        return add_pair(both, others or few)
    named = others or few or of_gradients or alone.mistakes
    return named or find_second_in_rest(known, evidence, matches, right.wrong)


def select_from_tiers(
    known: Hypotheses, evidence: Sequence[Evidence], matches: list[Match], explained: bool
) -> Iterator[Any]:
    """Select the mistakes of all tiers that explain everything.

    The tier of the first is searched to its end. After it, or where another mistake has `explained`
    everything already, as many are tried as the hypotheses allow for other names.
    """
    left = known.others if explained else None
    for tier in known.tiers:
        for made in select_single(known, evidence, tier[:left], matches):
            explained = True
            yield made
        if explained:
            left = known.others if left is None else left - len(tier[:left])
            if left <= 0:
                return


def select_single(
    known: Hypotheses, evidence: Sequence[Evidence], tier: Sequence[Any], matches: list[Match]
) -> Iterator[Any]:
    """Select the mistakes that explain everything; record what each explains of the first case."""
    every, effort = frozenset(evidence[0].wanted), find_effort()
    effort.list(len(tier))
    for start in range(0, len(tier), known.batch):
        if not effort.goes_on():
            return
        chunk = tier[start : start + known.batch]
        explained = known.match(evidence[0], [(each,) for each in chunk])
        for made, names in zip(chunk, explained, strict=True):
            matches.append(Match(made, names))
            if names == every and not try_mistakes(known, evidence[1:], (made,)).wrong:
                yield made
        effort.goes_on(len(chunk))


class Trial(NamedTuple):
    """A backward pass at every case, and the gradients that it does not explain."""

    backs: Sequence[Back]
    wrong: list[str]


def try_mistakes(known: Hypotheses, evidence: Sequence[Evidence], made: Made) -> Trial:
    """Try one combination of mistakes in the backward pass on all of these cases."""
    backs = [known.sweep_back(case, [made])[0] for case in evidence]
    wrong = {
        name
        for case, back in zip(evidence, backs, strict=True)
        for name in case.wanted
        if not case.explains(name, back.gradient(name))
    }
    return Trial(backs, [name for name in known.names if name in wrong])


def select_explaining(
    known: Hypotheses, evidence: Sequence[Evidence], made: Iterable[Made]
) -> Iterator[Made]:
    """Select the combinations of mistakes that explain every gradient of every case."""
    combinations, effort, tried = iter(made), find_effort(), 0
    while effort.goes_on(tried) and (chunk := [*islice(combinations, known.batch)]):
        tried = len(chunk)
        for case in evidence:
            chunk = [
                each
                for each, back in zip(chunk, known.sweep_back(case, chunk), strict=True)
                if all(case.explains(name, back.gradient(name)) for name in case.cheapest_first)
            ]
            if not chunk:
                break
        yield from chunk


def match_each(known: Hypotheses, case: Evidence, made: Sequence[Made]) -> list[frozenset[str]]:
    """Find the gradients of a case that each combination explains, one by one."""
    return [
        frozenset(name for name in case.wanted if case.explains(name, back.gradient(name)))
        for back in known.sweep_back(case, made)
    ]


def find_one_of_each(
    known: Hypotheses, evidence: Sequence[Evidence], matches: Sequence[Match]
) -> tuple[Mistake, ...]:
    """Find one mistake in the backward pass and one in single gradients that explain everything.

    Mistakes in the backward pass that explain the most gradients by themselves come first, and
    mistakes in single gradients that are no factors.
    """
    first, order = evidence[0], sorted(matches, key=lambda match: -len(match.names))
    chosen: tuple[Any, Mistake] | None = None
    seen = set[Any]()  # what was tried: equal gradients leave the same to explain
    for start in range(0, len(order), known.batch):
        if not find_effort().goes_on():
            break
        chunk = order[start : start + known.batch]
        backs = known.sweep_back(first, [(match.made,) for match in chunk])
        for match, back in zip(chunk, backs, strict=True):
            wrong = [n for n in known.names if n in first.wanted and n not in match.names]
            left = (known.count_places(match.made), *(back.gradient(n).tobytes() for n in wrong))
            if left in seen:
                continue
            seen.add(left)
            found = explain_single_gradients(known, [first], Trial([back], wrong), most=1)
            for cases in (evidence[:FEW], evidence) if found is not None else ():
                trial = try_mistakes(known, cases, (match.made,))
                found = explain_single_gradients(known, cases, trial, most=1)
                if found is None:
                    break
            if found and not is_coincidence(known, first, match.made, found[0]):
                # A factor may undo a part of the other mistake: one without any comes before.
                chosen = (match.made, *found) if chosen is None else chosen
                if not is_any_factor(*found):
                    chosen = match.made, *found
                    break
        if chosen is not None and not is_any_factor(chosen[1]):
            break
    if chosen is None:
        return ()
    made, single = chosen
    single = relate_factor(single)
    return (
        add_alike(known, evidence, matches, made),
        add_partners(known, evidence, matches, made, single),
    )


def find_one_after_another(
    known: Hypotheses, evidence: Sequence[Evidence], right: Trial
) -> tuple[Mistake, ...]:
    """Find one mistake in gradients, and another in what it gives, that explain everything."""
    names = [name for name in known.names if name in evidence[0].wanted]
    alone = [list_explaining_findings(known, evidence, right, name) for name in right.wrong]
    once = {finding.kind: finding for finding in chain.from_iterable(alone)}
    every = list_first(names, right.backs, known.read_parameter, known.factors, [*once.values()])
    for finding, alteration in every:
        altered = [name for name in right.wrong if name in alteration]
        found: tuple[Mistake, ...] | None = None
        for cases in (evidence[:1], evidence) if altered and find_effort().goes_on() else ():
            pairs = zip(cases, right.backs, strict=False)
            backs = [Altered(back, {n: alteration[n] for n in altered}) for _, back in pairs]
            both = zip(cases, backs, strict=True)
            wrong = {n for c, b in both for n in c.wanted if not c.explains(n, b.gradient(n))}
            listed = [name for name in known.names if name in wrong]
            found = explain_single_gradients(known, cases, Trial(backs, listed), most=1)
            if not found:
                break
        if found:
            first = describe_finding(finding, altered, known.find_equation(altered[0]))
            return first, *map(relate_factor, found)
    return ()


def find_second_in_rest(
    known: Hypotheses,
    evidence: Sequence[Evidence],
    matches: Sequence[Match],
    wrong: Sequence[str],
) -> tuple[Mistake, ...]:
    """Find a mistake that explains all gradients but one, and another in that gradient alone."""
    every, tried = frozenset(evidence[0].wanted), 0
    for match in sorted(matches, key=lambda match: known.is_generic(match.made)):
        rest = every - match.names
        if len(rest) != 1 or rest.issuperset(wrong) or tried == RESTS:
            continue
        (name,) = rest
        if try_mistakes(known, evidence, (match.made,)).wrong != [name]:
            continue
        tried += 1
        cases = [case._replace(wanted={name: case.wanted[name]}) for case in evidence]
        partners = known.list_partners(match.made, matches)
        found = [other for _, other in select_explaining(known, cases, partners)]
        chosen = next((other for other in found if not known.is_generic(other)), None)
        if chosen is not None:
            described = known.describe(chosen, [name])
            others = known.choose(iter(found), described)
            return add_alike(known, evidence, matches, match.made), others or described
    return ()


def relate_factor(second: Mistake) -> Mistake:
    """State a factor beside a first mistake: of what that gives, not of the true gradient."""
    said = second.explanation.replace(WHOLE, "times what the first mistake alone would give")
    return second._replace(explanation=said)


def add_partners(
    known: Hypotheses,
    evidence: Sequence[Evidence],
    matches: Sequence[Match],
    one: Any,
    described: Mistake,
) -> Mistake:
    """Add the other mistakes that explain everything together with `one`, as `described` does."""
    pairs = select_explaining(known, evidence, known.list_partners(one, matches))
    found = known.choose((other for _, other in pairs), described) or described
    rest = try_mistakes(known, evidence, (one,))
    return add_names(found, explain_single_gradients(known, evidence, rest, most=1) or ())


def add_alike(
    known: Hypotheses, evidence: Sequence[Evidence], matches: Sequence[Match], made: Any
) -> Mistake:
    """Describe a mistake in the backward pass, with the other names that have its effect."""
    backs, cases = [known.sweep_back(case, [(made,)])[0] for case in evidence], list[Evidence]()
    for case, back in zip(evidence, backs, strict=True):
        wanted = {n: w._replace(submitted=back.gradient(n)) for n, w in case.wanted.items()}
        cases.append(case._replace(wanted=wanted))
    (names,) = (match.names for match in matches if match.made is made)
    # What explains other gradients of the submission has another effect.
    others = ((match.made,) for match in matches if match.names == names)
    alike = (each for (each,) in select_explaining(known, cases, others))
    described = known.describe(made)
    return known.choose(alike, described) or described


def add_pair(found: Sequence[Mistake], pair: Sequence[Mistake]) -> tuple[Mistake, ...]:
    """Add the names of another pair of mistakes that has one in common with the pair found."""
    result = [*found]
    for i, j in product(range(2), repeat=2) if len(found) == len(pair) == 2 else ():
        one, other = found[1 - i], pair[1 - j]
        if (one.name, one.details.get("gradients")) == (other.name, other.details.get("gradients")):
            result[i] = add_names(result[i], [pair[j]])
    return tuple(result)


class Separate(NamedTuple):
    """Mistakes for single gradients, and how many of them are doubtful.

    A factor fits any gradient of one entry, and a mistake in the backward pass would change others.
    """

    mistakes: tuple[Mistake, ...] = ()
    doubts: int = 0


def is_any_factor(mistake: Mistake) -> bool:
    """Tell whether a mistake is a factor, which many others amount to in one gradient."""
    return mistake.name in {"constant-factor", "update-returned"}


def explain_each_gradient(
    known: Hypotheses, evidence: Sequence[Evidence], right: Trial, matches: Sequence[Match]
) -> Separate:
    """Explain every wrong gradient by a mistake in the backward pass of this gradient alone.

    Mistakes in single gradients count, too. Empty where a gradient has neither.
    """
    wrong = frozenset(right.wrong)
    possible: dict[str, dict[Any, Any]] = {
        name: {each.kind: each for each in list_explaining_findings(known, evidence, right, name)}
        for name in right.wrong
    }
    alone: dict[int, tuple[Any, frozenset[str], frozenset[str]]] = {}
    for number, (made, names) in enumerate(matches):
        explained = names & wrong if find_effort().goes_on() else frozenset()
        if explained and evidence[1:]:
            explained -= set(try_mistakes(known, evidence[1:], (made,)).wrong)
        if explained:
            alone[number] = made, explained, find_changed(known, evidence[0], right.backs[0], made)
    # A mistake that leaves the other gradients as they are comes before one that does not.
    order = sorted(alone.items(), key=lambda x: (known.is_generic(x[1][0]), len(x[1][2])))
    for number, (made, explained, changed) in order:
        for name in explained:
            possible[name][number] = made, changed
    if not all(possible.values()):
        return Separate()
    listed = {name: [*each.items()] for name, each in possible.items()}
    chosen, doubts = list[Mistake](), 0
    for kind, covered in cover(listed):
        what = possible[covered[0]][kind]
        others = [
            each
            for number, each in possible[covered[0]].items()
            if number != kind and all(number in possible[name] for name in covered)
        ]
        findings = [each for each in others if isinstance(each, Finding)]
        operations = [each for each in others if not isinstance(each, Finding)]
        if isinstance(what, Finding):
            described = describe_finding(what, covered, known.find_equation(covered[0]))
            doubts += is_any_factor(described)
            alone_here = True
        else:
            made, changed = what
            alone_here = changed <= set(covered)
            described = known.describe(made, () if alone_here else covered)
            doubts += not alone_here
        alike = (each for each, also in operations if (also <= set(covered)) == alone_here)
        # The mistake itself comes first: others may say the same.
        own = () if isinstance(what, Finding) else what[:1]
        found = known.choose(chain(own, alike), described) or described
        chosen.append(add_others(found, findings))
    return Separate(tuple(chosen), doubts)


def find_changed(known: Hypotheses, case: Evidence, right: Back, made: Any) -> frozenset[str]:
    """Find the gradients of a case that a mistake changes."""
    (back,) = known.sweep_back(case, [(made,)])

    def is_changed(name: str) -> bool:
        found = back.gradient(name)
        # What the evidence cannot tell from the right gradient is no change.
        wanted = case.wanted[name]._replace(submitted=right.gradient(name))
        with np.errstate(all="ignore"):
            return not wanted.within(found, SLACK, found).all()

    return frozenset(name for name in case.wanted if is_changed(name))


def cover(possible: Mapping[str, Sequence[tuple[Any, Any]]]) -> list[tuple[Any, list[str]]]:
    """Choose the kinds that explain all names: one or two, if they can, or else one for each."""
    names_of: dict[Any, set[str]] = {}
    for name, found in possible.items():
        for kind, _ in found:
            names_of.setdefault(kind, set()).add(name)
    left, chosen = set(possible), list[tuple[Any, list[str]]]()
    for kind, names in names_of.items():
        if names == left:
            return [(kind, [name for name in possible if name in names])]
    order = sorted(names_of, key=lambda kind: -len(names_of[kind]))
    for kind in order:
        rest = left - names_of[kind]
        one_left = next(name for name in possible if name in rest)
        for other, _ in possible[one_left]:
            if names_of[other] >= rest:
                return [
                    (kind, [name for name in possible if name in names_of[kind]]),
                    (other, [name for name in possible if name in rest]),
                ]
    for name in possible:
        if name in left:
            kind = max((k for k, _ in possible[name]), key=lambda k: len(names_of[k] & left))
            chosen.append((kind, [each for each in possible if each in names_of[kind] & left]))
            left -= names_of[kind]
    return chosen


def list_explaining_findings(
    known: Hypotheses, evidence: Sequence[Evidence], trial: Trial, name: str
) -> Iterator[Finding]:
    """List the mistakes in one gradient alone that explain it in every case that has it."""
    every = zip(evidence, trial.backs, strict=True)
    cases = [(case, back) for case, back in every if name in case.wanted]
    having, backs = zip(*cases, strict=True)
    if not all(np.isfinite(back.gradient(name)).all() for back in backs):
        return
    alone = len(having) == having[0].reference[name].size == 1
    alone = alone and having[0].is_zero(name, having[0].reference[name])
    for finding in known.list_findings(name, having, backs):
        if alone and finding.is_fitted:
            continue  # one number in the place of zero is a multiple of any other
        if all(case.explains(name, finding.gradient(back)) for case, back in cases):
            yield finding


def explain_single_gradients(
    known: Hypotheses, evidence: Sequence[Evidence], trial: Trial, most: int | None = None
) -> tuple[Mistake, ...] | None:
    """Explain the gradients that a backward pass leaves wrong by the fewest mistakes in them.

    None where no mistake explains a gradient, or where more than `most` are needed. The same
    mistake in several gradients counts once.
    """
    possible: dict[str, list[Finding]] = {}
    shared: set[Any] | None = None  # the kinds that all gradients so far may have in common
    for name in sorted(trial.wrong, key=lambda name: evidence[0].reference[name].size):
        possible[name] = [
            finding
            for finding in list_explaining_findings(known, evidence, trial, name)
            if most != 1 or shared is None or finding.kind in shared
        ]
        if not possible[name]:
            return None
        kinds = {finding.kind for finding in possible[name]}
        shared = kinds if shared is None else shared & kinds
    chosen = choose_fewest({name: possible[name] for name in trial.wrong})
    if most is not None and len(chosen) > most:
        return None
    found = list[Mistake]()
    for finding, names in chosen:
        first, *rest = (possible[name] for name in names)
        shown = [{each.kind for each in findings} for findings in rest]
        others = [each for each in first if all(each.kind in kinds for kinds in shown)]
        described = describe_finding(finding, names, known.find_equation(names[0]), others)
        found.append(add_others(described, others))
    return tuple(found)


def choose_fewest(possible: Mapping[str, Sequence[Finding]]) -> list[tuple[Finding, list[str]]]:
    """Choose one or two findings that explain all gradients, or else one for each gradient."""
    kinds = {each.kind: each for found in possible.values() for each in found}
    for count in (1, 2):
        for chosen in combinations(kinds, count):
            gradients = {
                kind: [name for name, found in possible.items() if kind in {f.kind for f in found}]
                for kind in chosen
            }
            if set().union(*gradients.values()) == possible.keys():
                return [(kinds[kind], names) for kind, names in gradients.items()]
    by_kind: dict[Any, list[str]] = {}
    for name, found in possible.items():
        by_kind.setdefault(found[0].kind, []).append(name)
    return [(kinds[kind], names) for kind, names in by_kind.items()]
