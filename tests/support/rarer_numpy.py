"""What plain code does with NumPy's rarer functions, each as a function of the parameters `P`."""

import logging
import math
from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve, lu_factor, lu_solve

from tests.support.plain_numpy import traced


class ReadingHandler(logging.Handler):
    """A handler of a user, which puts the message together."""

    def emit(self, record: logging.LogRecord) -> None:
        record.getMessage()


HANDLER = ReadingHandler()
NAMES = globals()  # the names of the module, a second time
WEIGHTS = np.arange(12.0).reshape(3, 4)


@np.vectorize
def sigmoid(z):
    return 1 / (1 + np.exp(-z)) if z >= 0 else np.exp(z) / (1 + np.exp(z))


@traced
def finds_a_function_by_its_name(p):
    return NAMES["np"].tanh(p["v"]).sum() + NAMES["WEIGHTS"][1] @ p["v"]


@traced
def vectorizes_functions_of_the_module(p):
    count = np.vectorize(lambda z: 1 if z > 0 else 0)
    return sigmoid(p["x"]).sum() + count(p["v"]).sum() * p["s"]


@traced
def iterates_by_nditer(p):
    total = 0.0
    for entry in np.nditer(p["x"].T):
        total = 0.9 * total + float(entry)
    it = np.nditer(p["x"], flags=["multi_index"], op_flags=["readwrite"])
    while not it.finished:
        total += p["x"][it.multi_index] ** 2 * it.multi_index[0]
        it.iternext()
    h = np.zeros((2, 2))
    entries: Any
    with np.nditer(h, op_flags=["readwrite"]) as entries:
        for entry in entries:
            entry[...] = p["s"]
    return total + (h**2).sum() + np.fromiter((a * a for a in p["v"]), float).prod()


@traced
def asks_an_nditer_for_places_and_entries(p):
    it: Any
    total, it = 0.0, np.nditer(p["x"], flags=["c_index"])
    for entry in it:
        total = total + entry**2 * it.index
    it = np.nditer(p["x"], flags=["f_index", "multi_index"])
    while not it.finished:
        total += it.value * it.index + it[0] * it.operands[0][it.multi_index]
        it.iternext()
    for part in np.nditer(p["x"], flags=["external_loop", "buffered"]):
        total += part[1] * part.size
    h = np.zeros(4)
    it = np.nditer(h, op_flags=["readwrite"])
    next(it)
    it[0] = p["s"]
    first: Any = next(np.nditer(p["v"]))
    return total + first**3 + (h**2).sum()


@traced
def sums_generators(p):
    by_name = {"a": p["s"], "b": p["v"][1]}
    return (
        math.fsum(v * v for v in p["x"].ravel())
        + math.prod(map(np.tanh, p["v"]))
        + math.dist(iter(p["v"]), (0 for _ in p["v"]))
        + math.fsum(by_name.values()) ** 2
        + max(v * v for v in p["v"])
        + math.fsum(k for k in range(3))
    )


@traced
def reduces_by_other_functions(p):
    return (
        np.logaddexp.reduce(p["x"], axis=1).sum()
        + np.add.reduceat(p["v"], [0, 2, 1]).prod()
        + np.hypot.accumulate(p["x"], axis=1)[0, 2]
        + np.subtract.reduce(p["v"])
    )


@traced
def updates_at_an_index(p):
    h = np.ones((3, 4)) * p["s"]
    np.power.at(h, ([0, 0], [1, 1]), p["v"][:2] ** 2)
    np.negative.at(h, [2])
    np.place(h, WEIGHTS > 6, [p["s"], 2.0])
    return (h * WEIGHTS).sum()


@traced
def views_windows(p):
    windows = np.lib.stride_tricks.sliding_window_view(p["x"], (2, 2))
    h = np.zeros(6)
    h[1:5] = p["v"]
    shifted = np.lib.stride_tricks.as_strided(h, (4, 3), h.strides * 2)
    return (windows * p["x"][:2, :2]).sum((2, 3)).prod() + (shifted**2).sum()


@traced
def joins_lists_of_constants(p):
    return (
        (np.concatenate([p["v"], [1.0, 2]]) ** 2).sum()
        + np.vstack([p["v"], [1, 2, 3, 4]]).std()
        + np.linalg.multi_dot([p["x"], p["x"].T, p["x"], p["v"]]).sum()
        + np.choose(np.array([0, 1, 0, 1]), [p["v"], p["v"] ** 2]).sum()
    )


@traced
def clips_on_one_side(p):
    return p["x"].clip(0).sum() + p["x"].clip(max=1).sum() + p["x"].clip(None, 0.5).prod()


@traced
def computes_on_sequences_by_math(p):
    close = math.isclose(p["s"], 1.0, rel_tol=0.01)
    return math.fsum(p["v"]) ** 2 + math.prod(p["v"]) + math.dist(p["v"], [0] * 4) + close


@traced
def compares_classes(p):
    assert type(p["x"]) is np.ndarray
    assert type(p["x"].sum()) is np.float64
    assert type([]) is list
    classes: tuple[Any, ...] = (type(p["x"]), int, type)
    assert all(type(each) is type for each in classes)
    assert type(np.tanh) is np.ufunc
    assert type(np) is type(math) is type(logging)
    assert isinstance(type(p["x"]), type)
    assert type(p["x"]).__name__ == "ndarray"
    np.testing.assert_allclose(p["x"], p["x"])
    return p["s"] ** 2


@traced
def logs_numbers(p):
    logger = logging.Logger("training")
    logger.addHandler(HANDLER)
    logger.warning("loss %.3f after %d", p["s"], p["v"].argmax())
    return p["s"] ** 2


@traced
def solves_with_a_factorisation_of_scipy(p):
    covariance = p["x"] @ p["x"].T + np.eye(3)
    lower, upper = (cho_factor(covariance, lower=each) for each in (True, False))
    solved = cho_solve(lower, p["v"][:3]) + cho_solve(upper, (3.0, 2.0, 1.0), check_finite=False)
    logdet = 2 * np.log(np.diag(lower[0])).sum()
    return solved @ p["v"][:3] + logdet + lu_solve(lu_factor(covariance * p["s"]), np.ones(3)).sum()
