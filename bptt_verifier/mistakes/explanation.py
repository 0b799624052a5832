"""Explanations of the names that a report gives."""

from typing import NamedTuple

LAST, EVERY = "right.py", "every_step.py"  # an output at the last step, and at every step


class Explanation(NamedTuple):
    """Explanation of one name: what is wrong, a right line and the wrong one, and how common it is.

    The right line occurs in the file `example` of the folder `examples`. `rank` is the place among
    the mistakes in public hand-written code, the commonest first, where that is known. `remedy`
    says what to do where no line shows it.
    """

    name: str
    meaning: str
    right: str = ""
    wrong: str = ""
    example: str = ""
    rank: int | None = None
    remedy: str = ""
