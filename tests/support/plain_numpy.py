"""What plain code does with NumPy, each as a function of the parameters `P`."""

import contextlib
import math
from collections.abc import Callable
from math import exp
from typing import Any

import numpy as np
from scipy.special import erf, log_softmax, logsumexp, softmax, xlogy

rng = np.random.default_rng(0)
P = {"x": rng.normal(size=(3, 4)), "s": np.array(0.7), "v": rng.normal(size=4)}
TRACED: list[Callable[[Any], Any]] = []


def traced(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    TRACED.append(function)
    return function


BUF = np.zeros(5)
STORE = {"hist": []}


@traced
def fills_a_buffer_of_the_module(p):
    for i in range(4):
        BUF[i] = p["v"][i] ** 2
    STORE["hist"].append(p["v"])
    return BUF.sum()


@traced
def imports_numpy_inside(p):
    import numpy  # noqa: PLC0415
    from numpy import zeros  # noqa: PLC0415

    h = zeros(4)
    h[:] = p["v"]
    return numpy.sum(numpy.tanh(h))


@traced
def calls_functions_of_math(p):
    return (
        math.exp(p["s"])
        + exp(float(p["s"]))
        + math.log(2.0, 1 + p["s"] ** 2)
        + math.sqrt(abs(p["v"][0]))
        + math.pow(p["s"], 2)
    )


@traced
def formats_numbers(p):
    assert f"{p['s']:.2f} %5.2f %d" % (p["s"], p["v"][0])
    return p["s"] ** 3


@traced
def asks_for_types(p):
    s = p["x"].sum()
    assert isinstance(p["x"], np.ndarray)
    assert isinstance(s, float)
    assert isinstance(s, np.floating)
    assert not isinstance(s, np.ndarray)
    return s * s


@traced
def converts_numbers(p):
    return np.float64(p["s"]) * np.float32(2) + float(np.array([p["s"] ** 2])[0])


@traced
def makes_arrays_of_lists(p):
    hs = [p["v"] * k for k in range(3)]
    a = np.array(hs)
    b = np.asarray([[h[0], 1.0] for h in hs])
    return (
        (a**2).sum()
        + b.prod(axis=1).sum()
        + np.sum([h.sum() ** 2 for h in hs])
        + np.max([h[1] for h in hs])
    )


@traced
def indexes_by_ranges(p):
    rows = p["x"][range(3), [1, 0, 2]]
    both = np.zeros((3, 4))
    both[range(3), range(1, 4)] = rows
    return (both * p["x"]).sum()


@traced
def indexes_by_arrays(p):
    x = p["x"].copy()
    x[[0, 2], [1, 1]] += 2
    x[:, np.array([True, False, True, False])] *= x[:, [1, 3]]
    y = x[np.ix_([0, 1], [1, 2])]
    return (y * y).sum() + x[..., None][0].sum() ** 2


@traced
def sorts_and_accumulates(p):
    v = np.sort(p["v"])
    i = np.argsort(p["v"])
    return (
        (v * np.arange(4)).sum() + (p["v"][i] ** 2 * np.arange(4)).sum() + np.cumsum(p["v"]).prod()
    )


@traced
def indexes_by_argmax(p):
    i = np.argmax(p["v"])
    oh = np.zeros(4)
    oh[i] = 1
    return p["v"][i] ** 2 + (oh * p["v"]).sum() + p["x"][i % 3].sum() ** 2


@traced
def loops_until_a_value(p):
    s = p["s"]
    n = 0
    while s < 10 and n < 20:
        s = s * 1.7
        n += 1
    return s + n


@traced
def iterates_over_dicts_and_rows(p):
    return (
        sum((w**2).sum() for k, w in p.items())
        + sum(np.dot(a, a) for a in p["x"])
        + sum(float(t) for t in p["v"])
    )


@traced
def writes_results_into_arrays(p):
    o = np.empty((3, 3))
    np.dot(p["x"], p["x"].T, out=o)
    np.exp(o, out=o)
    q = np.empty(3)
    np.sum(o, axis=1, out=q)
    o /= q[:, None]
    np.clip(o, 0.1, 0.9, out=o)
    return o[0].sum()


@traced
def multiplies_in_many_ways(p):
    return (
        np.einsum("ij,j->i", p["x"], p["v"]).dot(np.ones(3))
        + np.einsum("ij,ij", p["x"], p["x"])
        + np.tensordot(p["x"], p["x"], axes=2)
        + np.outer(p["v"], p["v"]).trace()
        + np.kron(p["v"], p["v"]).sum()
    )


@traced
def changes_shapes(p):
    x = p["x"]
    y = x.reshape(2, 6).swapaxes(0, 1).ravel()
    z = np.broadcast_to(p["v"], (3, 4))
    w = np.atleast_2d(p["v"]).repeat(3, axis=0)
    q = np.tile(p["v"], (3, 1))
    r = np.pad(x, 1)[1:-1, 1:-1]
    s = np.roll(x, 1, axis=0)
    d = np.diff(x, axis=1)
    f = np.flip(x, 0)
    return (
        (y**2).sum()
        + (z * w * q * r * s * f).sum()
        + d.std()
        + np.squeeze(x[:1]).sum() ** 2
        + np.expand_dims(p["v"], 1)[0, 0] ** 2
        + len(x)
        + x.size
    )


@traced
def keeps_states_in_float32(p):
    h = np.zeros((3, 4), dtype=np.float32)
    h[:] = p["x"]
    g = h.astype(np.float64) + p["x"]
    return (g * g).sum()


@traced
def keeps_counts_in_integers(p):
    k = np.zeros(4, int)
    k += 2
    k[1] = 3.9
    n = int(p["v"][0] * 3)
    return (p["v"] ** k).sum() + n * p["s"]


@traced
def calls_functions_of_scipy(p):
    return (
        logsumexp(p["x"], axis=1).sum()
        + softmax(p["x"], axis=1)[0, 0]
        + xlogy(np.exp(p["v"]), np.exp(p["v"])).sum()
        + erf(p["s"])
        - log_softmax(p["v"])[1]
    )


@traced
def selects_by_conditions(p):
    r, c = np.where(p["x"] > 0)
    return (
        p["x"][r, c].sum() ** 2
        + p["x"][p["x"] < 0].sum()
        + np.count_nonzero(p["x"] > 0)
        + np.sum(p["x"] > 0) * p["s"]
    )


@traced
def draws_random_numbers(p):
    r = np.random.RandomState(0)
    m = r.binomial(1, 0.5, size=(3, 4)) / 0.5
    np.random.seed(0)  # noqa: NPY002
    n = np.random.randn(3, 4)  # noqa: NPY002
    n[0] = p["v"]
    return (p["x"] * m * n).sum()


@traced
def calls_methods_of_universal_functions(p):
    with np.errstate(all="raise"):
        return (
            np.maximum.reduce(p["v"])
            + np.add.reduce(p["x"], axis=None) ** 2
            + np.multiply.accumulate(p["v"])[-1]
            + np.add.outer(p["v"], p["v"]).prod()
        )


@traced
def factorises(p):
    return np.linalg.norm(p["x"]) + np.linalg.inv(p["x"] @ p["x"].T + np.eye(3)).sum()


@traced
def modifies_its_parameters(p):
    h = np.zeros(4)
    prev = h
    for t in range(3):
        prev = h
        h = np.tanh(h * p["v"] + p["x"][t])
    x = p["x"]
    x[0] = 0
    x *= 2
    return (h * prev).sum() + x.sum() ** 2


@traced
def branches_on_values(p):
    return (
        (
            p["s"]
            if p["v"].any() and p["s"] > 0 and not np.isnan(p["s"]) and np.allclose(1, 1)
            else -p["s"]
        )
        ** 2
        + max(p["v"].max(), 0)
        + min([1.0, p["s"]])
        + abs(p["v"]).min()
        + sorted(p["v"].tolist())[0] * 2
    )


class RNN:
    scale = np.ones(4)

    def __init__(self, p):
        self.p = p
        self.h = np.zeros((4, 4))
        self.state = {"h": np.zeros(4)}

    @property
    def s(self):
        return self.p["s"]

    @staticmethod
    def act(a):
        return np.tanh(a)

    @classmethod
    def mk(cls, p):
        return cls(p)

    def __call__(self):
        for t in range(3):
            self.h[t + 1] = self.act(self.h[t] * self.p["v"] + self.p["x"][t]) * self.scale * self.s
        self.state["h"] = self.h[-1]
        return (self.state["h"] ** 2).sum()


@traced
def keeps_state_in_a_class(p):
    return RNN.mk(p)()


INST = RNN(P)


@traced
def uses_an_instance_of_the_module(p):
    INST.p = p
    return INST()


@traced
def maps_functions(p):
    square = lambda q: np.sum(q["x"] ** 2)  # noqa: E731
    return square(p) + sum(map(np.sum, [p["v"], p["x"]]))


@traced
def catches_exceptions(p):
    try:
        h = np.zeros(3)
        h[5] = 1
    except IndexError:
        pass
    with contextlib.suppress(ValueError):
        _ = p["v"] @ p["v"][:2]
    try:
        p["nope"]
    except KeyError:
        return p["s"] ** 2


SMALL, ONES = np.array([1e-8]), np.ones(4)


@traced
def has_arrays_as_defaults(p, eps=SMALL, *, z=ONES):
    z[0] = p["s"]
    return (z * p["v"]).sum() + eps[0]


@traced
def calls_itself(p):
    def f(n):
        return p["v"] if n == 0 else np.tanh(f(n - 1) + p["v"])

    return f(3).sum()


@traced
def yields_states(p):
    def g():
        h = np.zeros(4)
        for x in p["x"]:
            h = np.tanh(x + h)
            yield h

    return np.mean([*g()]) + np.stack(list(g())).sum()


@traced
def takes_and_chooses(p):
    return (
        np.take(p["x"], [0, 2, 0], axis=0).sum() ** 2
        + np.take_along_axis(p["x"], np.array([[1], [0], [2]]), 1).sum()
        + np.choose([0, 1, 2, 0], [p["v"], 2 * p["v"], 3 * p["v"]]).sum()
        + p["x"].take(1)
        + np.select([p["v"] > 0, p["v"] <= 0], [p["v"], 0 * p["v"]]).sum()
        + np.piecewise(1.0, [True], [1.0])
    )


@traced
def joins_arrays(p):
    return (
        np.c_[p["v"], p["v"]].sum() ** 2
        + np.column_stack([p["v"], p["v"] ** 2]).sum()
        + np.dstack([p["x"], p["x"]]).mean()
        + np.block([[p["x"]], [p["x"]]]).sum()
        + np.append(p["v"], 1.0).sum()
        + np.insert(p["v"], 0, 1.0).sum()
        + np.delete(p["v"], 0).sum()
    )


@traced
def computes_statistics(p):
    return (
        np.var(p["x"], axis=0, ddof=1).sum()
        + np.median(p["v"])
        + np.percentile(p["v"], 30)
        + np.nanmean(p["x"])
        + np.ptp(p["v"])
        + np.average(p["v"], weights=[1, 2, 3, 4])
        + np.cov(p["x"])[0, 1]
        + np.trapezoid(p["v"])
        + np.prod(p["v"])
        + np.interp(0.3, [0, 1, 2, 3], p["v"])
    )


@traced
def names_dtypes(p):
    x = p["x"].astype("float32").astype(float)
    assert x.dtype == np.float64
    assert x.dtype == float
    assert np.issubdtype(x.dtype, np.floating)
    z = np.zeros(3, dtype=float) + np.finfo(np.float64).eps
    return (x**2).sum() + z.sum()


@traced
def computes_with_complex_numbers(p):
    z = np.exp(1j * p["v"])
    f = np.fft.fft(p["v"])
    return np.abs(z.sum()) ** 2 + (f * np.conj(f)).real.sum() + z.imag.sum()
