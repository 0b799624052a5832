"""An entry of the docket: a published claim, where it stands, and what is expected of the judge."""

from enum import StrEnum
from typing import NamedTuple

from bptt_verifier.tolerance.comparison import Verdict

AGREES, DISAGREES = Verdict.AGREES, Verdict.DISAGREES


class Kind(StrEnum):
    """What a claim is: the gradient, another vector that its source defines, or wrong."""

    RIGHT = "agrees"
    AS_DEFINED = "right as defined"
    WRONG = "disagrees"


class Entry(NamedTuple):
    """A published claim, the verdict on it, and what both rest on.

    `source` is the citation with edition and equation, and `claim` the formulas in its own letters.
    `convention` states layout and order, and what is a total and what a direct derivative.
    `seen` is true if the source itself was read for this entry, false if a quotation or a
    restatement was; `rests_on` says which text.
    `exactly` says what the claim is without error, where that is not the gradient, and
    `deliberate` is true if the source defines it so, as a truncation does. The module then has
    `held_loss`, whose derivative the claim is (K2), or `change`, from the gradient to the claim.
    `mistake` is the name that the judge gives, of a pair both, where it gives any. `corrected` has
    the right formulas of a wrong claim, and `reading` the reading under which the verdict changes.
    `model` and the options are arguments of `verify`; an own model has none.
    """

    title: str
    source: str
    claim: tuple[str, ...]
    convention: str
    verdict: Verdict
    seen: bool
    rests_on: str
    reading: str = ""
    mistake: tuple[str, ...] = ()
    corrected: tuple[str, ...] = ()
    exactly: str = ""
    deliberate: bool = False
    model: str = ""
    activation: str = "tanh"
    reset: str = "after"
    bias: bool = False

    @property
    def kind(self) -> Kind:
        """What the entry states that the claim is."""
        if self.verdict is Verdict.AGREES:
            return Kind.RIGHT
        return Kind.AS_DEFINED if self.deliberate else Kind.WRONG
