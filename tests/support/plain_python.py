"""What plain code does with Python's containers, functions and other files around NumPy."""

import collections
import copy
import functools
import math

import numpy as np

from tests.support.numpy_losses import Layer
from tests.support.numpy_losses import softmax as softmax_of_rows
from tests.support.plain_numpy import traced

CACHE = collections.defaultdict(list)
DQ = collections.deque(maxlen=3)
Data = collections.namedtuple("Data", "x y")
DATA = Data(np.ones(4), np.zeros(4))


@traced
def uses_another_file(p):
    states = Layer(p["x"].T, np.outer(p["x"][:, 0], p["x"][:, 1])).forward(
        np.stack([p["x"], -p["x"]])
    )
    return softmax_of_rows(states)[0, 1, 2] + p["s"]


@functools.lru_cache
def onehot(i):
    v = np.zeros(4)
    v[i] = 1
    return v


@traced
def caches_arrays(p):
    CACHE["h"].append(p["v"])
    DQ.append(p["v"])
    return (onehot(1) * p["v"]).sum() ** 2 + onehot(2) @ p["v"]


@traced
def writes_into_named_tuples(p):
    DATA.y[0] = 0
    y = DATA.y
    y[:] = p["v"]
    return (y * DATA.x).sum() ** 2


@traced
def copies_deeply(p):
    h = [np.zeros(4)] * 3
    h[0] = p["v"]
    g = copy.deepcopy(h)
    g[0][1] = 2
    k = copy.copy(h[0])
    k *= 2
    return (g[0] * h[0] * k).sum()


@traced
def keeps_states_as_objects(p):
    hs = np.empty(3, dtype=object)
    for t in range(3):
        hs[t] = np.tanh(p["x"][t])
    return sum(h.sum() for h in hs)


@traced
def computes_in_lists_of_numbers(p):
    W = p["x"].tolist()
    v = [float(a) for a in p["v"]]
    h = [0.0] * 3
    for _ in range(2):
        h = [math.tanh(sum(W[i][j] * v[j] for j in range(4)) + 0.5 * h[i]) for i in range(3)]
    return sum(a * a for a in h)


@traced
def uses_every_operator(p):
    m = (p["x"] > 0) & ~(p["x"] > 1) | (p["x"] < -1)
    a = np.where(m, p["x"], -p["x"]) // 0.1
    b = divmod(p["x"], 0.3)[1]
    c = p["x"] % 0.2
    return (
        (a * 0).sum()
        + b.sum()
        + c.sum()
        + (+p["x"]).sum()
        + abs(p["x"]).sum()
        + (p["x"] ** 3).sum()
        + (2 ** p["x"]).sum()
        + (p["x"] ** -1.0).sum()
        + (np.abs(p["x"]) ** 0.5).sum()
    )


@traced
def passes_axes_by_position(p):
    return (
        np.mean(p["x"], 1).sum()
        + np.sum(p["x"], 0, keepdims=True).prod()
        + np.max(p["x"], 1).sum()
        + np.linalg.norm(p["x"], 2, 1).sum()
        + np.repeat(p["x"], 2, 0).sum()
        + np.concatenate([p["x"], p["x"]], 1).sum()
        + np.stack([p["v"], p["v"]], 1)[0].sum()
        + np.split(p["x"], [1, 2])[1].sum()
        + np.array_split(p["v"], 3)[0].sum()
        + np.hsplit(p["x"], 2)[0].sum()
        + np.swapaxes(p["x"], 0, 1)[0].sum()
        + p["x"].sum(1).sum()
        + p["x"].mean(0)[0]
        + p["x"].reshape(4, 3)[0, 0]
        + p["x"].reshape((2, -1))[0, 0]
        + p["x"].transpose(1, 0)[0, 0]
        + np.rollaxis(p["x"], 1)[0, 0]
        + np.var(p["x"], 1).sum()
    )


@traced
def assigns_views_of_views(p):
    h = np.zeros((2, 3, 4))
    h[0], h[1] = p["x"], p["x"] ** 2
    h[:, 0], h[:, 1] = h[:, 1].copy(), h[:, 0].copy()
    a, b = h
    h.shape = (6, 4)
    (a[0])[1:3] = 0
    return (h**2).sum() + b.sum()


@traced
def augments_at_integer_arrays(p):
    h = np.zeros((3, 4))
    r = np.arange(3)
    h[r, [0, 1, 2]] = p["v"][:3]
    h[[0, 1], :] += p["x"][:2]
    h[r[:, None], [0, 3]] *= 2
    h[h == 0] = 1
    h[..., -1] += p["s"]
    h[1:, None][:, 0, 1] -= 1
    return (h**2).sum()


@traced
def computes_on_masked_entries(p):
    x = p["x"].copy()
    m = x <= 0
    x[m] = 0.5 * (np.exp(x[m]) - 1)
    y = np.zeros_like(p["x"])
    y[p["x"] > 0] = p["x"][p["x"] > 0] ** 2
    return x.sum() + y.sum()


@traced
def modifies_arrays_without_axes(p):
    t = np.array(0.0)
    t += p["s"]
    t[()] = t * 2
    u = p["s"]
    w = u + 0
    w += 1
    return t + w * u + np.asarray(p["s"]).item() + p["s"].sum()


@traced
def clips_in_place(p):
    g = [p["x"] * 2, p["v"]]
    n = np.sqrt(sum((q**2).sum() for q in g))
    for q in g:
        np.clip(q, -1, 1, out=q)
    if n > 5:
        g = [q * 5 / n for q in g]
    return sum(q.sum() for q in g) + n
