"""Choices: the values of the options that several commands take."""

from enum import StrEnum


class Dtype(StrEnum):
    """The floating-point precision."""

    FLOAT32 = "float32"
    FLOAT64 = "float64"


class Model(StrEnum):
    """The cells of both witnesses."""

    RNN = "rnn"
    LSTM = "lstm"
    GRU = "gru"


class Activation(StrEnum):
    """The activations of both witnesses."""

    TANH = "tanh"
    SIGMOID = "sigmoid"
    RELU = "relu"
    IDENTITY = "identity"


class Loss(StrEnum):
    """The losses with a derived error bound."""

    MSE = "mse"
    HALF_SSE = "half_sse"


class Reset(StrEnum):
    """The two forms of the GRU: the reset gate after or before the recurrent product."""

    AFTER = "after"
    BEFORE = "before"
