"""Choices: the values of the options that several commands take."""

from enum import StrEnum

# Each value is the name in small letters.
Dtype = StrEnum("Dtype", "FLOAT32 FLOAT64")  # the floating-point precision
Model = StrEnum("Model", "RNN LSTM GRU")  # the cells of both witnesses
Activation = StrEnum("Activation", "TANH SIGMOID RELU IDENTITY")  # those of both witnesses
Loss = StrEnum("Loss", "MSE HALF_SSE")  # those with a derived error bound
Reset = StrEnum("Reset", "AFTER BEFORE")  # the GRU's reset gate: after or before the product
