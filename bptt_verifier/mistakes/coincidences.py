"""Pairs of mistakes that explain all numbers and are more likely a coincidence."""

from typing import Any

from bptt_verifier.mistakes.evidence import Evidence
from bptt_verifier.mistakes.hypotheses import Hypotheses
from bptt_verifier.report import Mistake


def is_coincidence(known: Hypotheses, case: Evidence, made: Any, single: Mistake) -> bool:
    """Tell whether an unexplained factor of all gradients stands beside a mistake at many places.

    There are many sets of places, and what one leaves may be a multiple of the true gradients.
    """
    unexplained = single.details.get("factor") not in {factor.words for factor in known.factors}
    every = {*single.details.get("gradients", ())} == {*case.wanted}
    factor = single.name == "constant-factor" and unexplained and every
    return factor and known.count_places(made) > 1
