"""Choices: the values of the options that several commands take."""

from decimal import Decimal
from enum import StrEnum

MOST = 2**63  # a number that no run of examples reaches

# Each value is the name in small letters.
Dtype = StrEnum("Dtype", "FLOAT32 FLOAT64")  # the floating-point precision
Model = StrEnum("Model", "RNN LSTM GRU")  # the cells of both witnesses
Activation = StrEnum("Activation", "TANH SIGMOID RELU IDENTITY")  # those of both witnesses
Loss = StrEnum("Loss", "MSE HALF_SSE")  # those with a derived error bound
Reset = StrEnum("Reset", "AFTER BEFORE")  # the GRU's reset gate: after or before the product


def parse_number(text: str) -> int:
    """Parse a number of examples, such as 200 or 1e8. Raises ValueError for no integer from 1."""
    try:
        found = Decimal(str(text))
        if 1 <= found < MOST and found == int(found):
            return int(found)
    except ArithmeticError:  # no number at all
        pass
    raise ValueError(f"expected an integer of at least 1, found {text!r}")
