"""Files in the shapes of public code: the loss and the gradients in one function, or in a class."""

from typing import NamedTuple

DATA = """
import numpy as np
rng = np.random.default_rng(0)
x, y = rng.normal(size=(3, 2)), rng.normal(size=2)
W, V, b = rng.normal(size=(2, 2)), rng.normal(size=(2, 2)), rng.normal(size=2)
"""


class Shape(NamedTuple):
    """A file, the name to judge in it, and the names of the parameters to be found."""

    source: str
    name: str
    params: tuple[str, ...]
    chosen: tuple[str, ...] = ()


# h_t = tanh(x_t + W h_{t-1} + b), the prediction is V h_T, the loss half its squared error.
FORWARD = """
    hs = [np.zeros(2)]
    for t in range(len(x)):
        hs.append(np.tanh(x[t] + {W} @ hs[-1] + {b}))
    error = {V} @ hs[-1] - y
    loss = 0.5 * np.sum(error**2)
"""
BACKWARD = """
    dV, dW, db, dh = np.outer(error, hs[-1]), 0, 0, {V}.T @ error
    for t in reversed(range(len(x))):
        da = dh * (1 - hs[t + 1] ** 2)
        dW, db, dh = dW + np.outer(da, hs[t]), db + da, {W}.T @ da
"""
BOTH = FORWARD + BACKWARD


def write(body: str, pattern: str = "{}") -> str:
    """Write the derivation, with the parameters called as in the pattern."""
    for name in "WVb":
        body = body.replace(f"{{{name}}}", pattern.format(name))
    return body


def indent(text: str) -> str:
    """Indent the lines of a method's body."""
    return text.replace("\n", "\n    ")


METHODS = f"""
class Net:
    def __init__(self):
        self.W, self.V, self.b, self.h = W.copy(), V.copy(), b.copy(), np.zeros(2)
        self.dh, self.np, self.lr = np.ones(2), np, 0.5
    def forward(self, x, y):
        {indent(write(FORWARD, "self.{}")).strip()}
        self.cache, self.h = (x, hs, error), hs[-1]
        return loss
    def backward(self):
        x, hs, error = self.cache
        {indent(write(BACKWARD, "self.{}")).strip()}
        self.dh = dh
"""
LAYER = """
class Layer:
    def __init__(self, size):
        self.params = {"W": W.copy(), "b": b.copy()}
        self.h = np.zeros(size)
    def forward(self, x):
        self.x, self.hs = x, [self.h]
        for t in range(len(x)):
            a = x[t] + self.params["W"] @ self.hs[-1] + self.params["b"]
            self.hs.append(np.tanh(a))
        self.h = self.hs[-1]
        return self.hs[-1], self.x
    def backward(self, dh):
        self.grads = {"W": 0, "b": 0}
        for t in reversed(range(len(self.x))):
            da = dh * (1 - self.hs[t + 1] ** 2)
            self.grads["W"] = self.grads["W"] + np.outer(da, self.hs[t])
            self.grads["b"] = self.grads["b"] + da
            dh = self.params["W"].T @ da
        return dh
"""
WILD = """
class Wild:
    def __init__(self):
        self.U, self.W = V.copy(), W.copy()
    def forward_propagation(self, x):
        s = [np.zeros(2)]
        for t in range(len(x)):
            s.append(np.tanh(self.U @ x[t] + self.W @ s[-1]))
        return s
    def calculate_loss(self, x, y):
        return 0.5 * np.sum((self.forward_propagation(x)[-1] - y) ** 2)
    def bptt(self, x, y):
        s = self.forward_propagation(x)
        dLdU, dLdW, d = 0, 0, s[-1] - y
        for t in reversed(range(len(x))):
            d = d * (1 - s[t + 1] ** 2)
            dLdU, dLdW, d = dLdU + np.outer(d, x[t]), dLdW + np.outer(d, s[t]), self.W.T @ d
        return [dLdU, dLdW]
"""
LOSS_METHOD = """
class Classifier:
    def __init__(self):
        self.w = W.copy()
    def forward(self, x):
        self.x = x
        self.out = x @ self.w
        return self.out
    def loss(self, out, target):
        return np.mean((out - target) ** 2), {}
    def backward(self, out, target):
        d = 2 * (out - target) / out.size
        return {"dw": self.x.T @ d, "dx": d @ self.w.T}
"""
# `forward` returns an output, of which `loss` takes the loss, and `backward` is given its gradient.
OUTPUT = """
class Net:
    def __init__(self):
        self.W = W.copy()
    def forward(self, x):
        self.hs = [np.zeros(2)]
        for each in x:
            self.hs.append(np.tanh(each + self.W @ self.hs[-1]))
        return np.array(self.hs[1:])
    def loss(self, hs, y):
        return 0.5 * np.sum((hs - y) ** 2)
    def backward(self, dhs):
        self.dW, later = np.zeros((2, 2)), 0
        for t in (2, 1, 0):
            da = (dhs[t] + later) * (1 - self.hs[t + 1] ** 2)
            self.dW += np.outer(da, self.hs[t])
            later = self.W.T @ da
net = Net()
hs = net.forward(x)
net.loss(hs, y)
net.backward(hs - y)
"""
NUMBER = (
    OUTPUT.replace("return np.array(self.hs[1:])", "return self.hs[-1][0]")
    .replace("(self, dhs):", "(self, dout):")
    .replace("dhs[t] + later", "dout * np.eye(2)[0] * (t == 2) + later")
    .replace("net.loss(hs, y)\n", "").replace("hs - y", "2 * (hs - y[0])")
    .replace("    def loss(self, hs, y):\n        return 0.5 * np.sum((hs - y) ** 2)\n", "")
)  # fmt: skip
WVb = ("W", "V", "b")
OF_PARAMS, OF_MODEL = write(BOTH, "params['{}']"), write(BOTH, "model['{}']")
OF_THETA = (
    write(BOTH, "theta.cells[0]['{}']").replace("theta.cells[0]['V']", "theta.V")
)  # fmt: skip
NEW, INDENTED = "\n", "\n    "
OF_SELF = indent(write(BOTH, "self.params['{}']"))
SHAPES = {
    "arrays of the file, as in min-char-rnn": Shape(
        f"{DATA}\ndef lossFun(inputs, y, hprev):\n    x = np.eye(3, 2)[inputs] + hprev\n"
        f"{write(BOTH)}\n    return loss, dW, dV, db, hs[len(x)]\n"
        "while True:\n    loss, dW, dV, db, h = lossFun([0, 2, 1], y, np.ones(2))\n",
        "lossFun", WVb,
    ),
    "a helper reads the arrays": Shape(
        f"{DATA}\ndef predict(h, t):\n    return np.tanh(x[t] + W @ h + b)\n"
        "def step():\n    h = predict(np.ones(2), 0)\n    loss = 0.5 * np.sum(h**2)\n"
        "    d = h * (1 - h**2)\n    return loss, (np.outer(d, np.ones(2)), d)\n",
        "step", ("W", "b"), ("W", "b"),
    ),
    "a dict of parameters": Shape(
        f"{DATA}\ndef f(params, x, y):\n{OF_PARAMS}\n"
        '    return loss, {"W": dW, "V": dV, "b": db}\n'
        'f({"W": W, "V": V, "b": b}, x, y)\n',
        "f", WVb,
    ),
    "gradients named otherwise, and a cache": Shape(
        f"{DATA}\nparams = dict(W=W, V=V, b=b)\n"
        f"def f(params):\n{OF_PARAMS}\n"
        '    return {"grad_W": dW, "dV": dV, "b_grad": db}, loss\n',
        "f", WVb,
    ),
    "layers, as a named tuple": Shape(
        f"from typing import NamedTuple\n{DATA}\nclass Params(NamedTuple):\n"
        "    cells: list\n    V: np.ndarray\n    steps: int\n"
        f"def f(theta, x, y):\n{OF_THETA}\n"
        '    return loss, Params([{"W": dW, "b": db}], dV, None)\n'
        'if __name__ == "__main__":\n    f(Params([{"W": W, "b": b}], V, 3), x, y)\n',
        "f", ("cells[0].W", "cells[0].b", "V"),
    ),
    "arguments": Shape(
        f"{DATA}\ndef rnn(x, y, W, V, b):\n{write(BOTH)}\n    return loss, dW, dV, db\n",
        "rnn", WVb,
    ),
    "arguments beside data of the file": Shape(
        f"{DATA}\nfirst, second, third = W, V, b\n"
        f"def rnn(W, V, b):\n{write(BOTH)}\n    return loss.copy(), dW.astype(float), dV, db\n"
        "rnn(first, second, third)\n",
        "rnn", WVb,
    ),
    "a function that another makes": Shape(
        f"{DATA}\ndef make(x, y):\n    def f(params):\n    {OF_PARAMS.replace(NEW, INDENTED)}\n"
        "        return loss, dict(W=dW, V=dV, b=db)\n    return f\n"
        "params, f = dict(W=W, V=V, b=b), make(x, y)\nf(params)\n",
        "f", WVb,
    ),
    "a dict of the loss and the gradients": Shape(
        f"{DATA}\ndef f(theta, xs, labels):\n    U, W, V, s = *theta.values(), np.zeros(2)\n"
        "    h = np.tanh(U @ xs[0] + W @ s)\n    e = V @ h - labels\n"
        "    da = (V.T @ e) * (1 - h**2)\n"
        "    grads = dict(U=np.outer(da, xs[0]), W=np.outer(da, s), V=np.outer(e, h))\n"
        "    return {'loss': 0.5 * np.sum(e**2), 'grads': grads}\n"
        "f(dict(U=W, W=V, V=rng.normal(size=(3, 2))), x, np.ones(3))\n",
        "f", ("U", "W", "V"),
    ),
    "lists of weights": Shape(
        f"{DATA}\nweights, biases = [W, V], [b, y]\ndef backprop(x):\n"
        "    h = np.tanh(weights[0] @ x[0] + biases[0])\n    e = weights[1] @ h + biases[1]\n"
        "    d = (weights[1].T @ e) * (1 - h**2)\n    cost = 0.5 * np.sum(e**2)\n"
        "    dweights, dbiases = [np.outer(d, x[0]), np.outer(e, h)], [d, e]\n"
        "    return cost, dweights, dbiases\nbackprop(x)\n",
        "backprop", ("weights[0]", "weights[1]", "biases[0]", "biases[1]"),
    ),
    "a dict of the file": Shape(
        f"{DATA}\nmodel = dict(W=W, V=V, b=b)\ndef f(x, y):\n{OF_MODEL}\n"
        "    grads = dict(W=dW, V=dV, b=db)\n    return loss, grads, hs\n",
        "f", WVb,
    ),
    "chosen in order": Shape(
        f"{DATA}\ndef f(x, y):\n{write(BOTH)}\n    return [loss, 1 * dV, 1 * dW]\n",
        "f", ("V", "W"), ("V", "W"),
    ),
    "a namespace": Shape(
        f"{DATA}\ndef f(x, y, xp):\n    h = xp.tanh(x[0] + b)\n    loss = xp.sum(h**2)\n"
        "    return loss, 2 * h * (1 - h**2)\n",
        "f", ("b",), ("b",),
    ),
    "forward returns the loss": Shape(
        f"{DATA}{METHODS}        self.dW, self.dV, self.db = dW, dV, db\n"
        "net = Net()\nfor _ in range(9):\n    net.forward(x, y)\n    net.backward()\n",
        "Net", WVb,
    ),
    "backward returns the gradients": Shape(
        f"{DATA}{METHODS}        return dW, dV, db\nnet = Net()\n", "net", WVb
    ),
    "backward takes the gradient of the output": Shape(
        f"{DATA}{LAYER}\nlayer = Layer(2)\nh, _ = layer.forward(x)\nlayer.backward(h - y)\n",
        "Layer", ("W", "b"),
    ),
    "a method for the loss, in the guarded part": Shape(
        f"{DATA}{WILD}\ndef main():\n    net = Wild()\n    net.calculate_loss(x, y)\n"
        "    net.forward_propagation(x)\n    net.bptt(x, y)\n"
        "if __name__ == '__main__':\n    main()\n",
        "Wild", ("U", "W"),
    ),
    "a loss of the output": Shape(
        f"{DATA}{LOSS_METHOD}\nnet = Classifier()\nout = net.forward(x)\nnet.loss(out, x)\n"
        "net.backward(out, x)\n",
        "Classifier", ("w",),
    ),
    "a method that returns both": Shape(
        f"{DATA}\nclass Net:\n    def __init__(self):\n"
        "        self.params = dict(W=W.copy(), V=V.copy(), b=b.copy())\n"
        f"    def loss(self, x, y):\n    {OF_SELF}\n"
        "        return loss, dict(W=dW, V=dV, b=db)\n",
        "Net.loss", WVb,
    ),
    "gradients in globals": Shape(
        f"{DATA}\ndW, db = 0 * W, 0 * b\ndef step():\n    global dW\n    h = np.tanh(W @ y + b)\n"
        "    dW = np.outer(2 * h * (1 - h**2), y)\n    db[:] = 2 * h * (1 - h**2)\n"
        "    return np.sum(h**2)\n",
        "step", ("W", "b"),
    ),
    "objects of a value and its gradient": Shape(
        f"{DATA}\nclass Param:\n    def __init__(self, v):\n"
        "        self.v, self.d, self.m = v, np.zeros_like(v), np.ones_like(v)\n"
        "class Parameters:\n    def __init__(self):\n        self.W, self.b = Param(W), Param(b)\n"
        "parameters = Parameters()\n"
        "def f(x):\n    h = np.tanh(parameters.W.v @ x + parameters.b.v)\n"
        "    d = 2 * h * (1 - h**2)\n    parameters.W.d = np.outer(d, x)\n"
        "    parameters.b.d += d\n    return np.sum(h**2), h\nf(y)\n",
        "f", ("W.v", "b.v"),
    ),
    "a list of parameters": Shape(
        f"{DATA}\ndef f(params, x, y):\n{write(BOTH).replace('W @', 'params[0] @')}"
        "    return loss, [dW, dV]\nparams = [W, V]\n"
        .replace("W.T", "params[0].T").replace("V @", "params[1] @").replace("V.T", "params[1].T"),
        "f", ("params[0]", "params[1]"),
    ),
    "a tuple of parameters with another name": Shape(
        f"{DATA}\ndef f(theta, x, y):\n    W, V = theta\n{write(BOTH)}"
        "    return loss, (dW, dV)\ntheta = W, V\nloss, gradients = f(theta, x, y)\n",
        "f", ("theta[0]", "theta[1]"),
    ),
    "two functions, and a cache": Shape(
        f"{DATA}\ndef rnn_forward(x, h0, W, b):\n    h, states = h0, [h0]\n"
        "    for t in range(len(x)):\n        h = np.tanh(x[t] + W @ h + b)\n"
        "        states.append(h)\n    cache, last = (x, states, W), h\n    return last, cache\n"
        "def rnn_backward(dlast, cache):\n    x, states, W = cache\n"
        "    dh, dx, dW, db = dlast, 0 * x, 0 * W, 0\n"
        "    for t in reversed(range(len(x))):\n        da = dh * (1 - states[t + 1] ** 2)\n"
        "        dx[t] += da\n        dW += np.outer(da, states[t])\n        db = db + da\n"
        "        dh = W.T @ da\n    dh0 = dh\n    return dx, dh0, dW, db\nh0 = y\n",
        "rnn_forward,rnn_backward", ("x", "h0", "W", "b"),
    ),
    "two functions, and a cache with the name of a global array": Shape(
        f"{DATA}\nclass Cache:\n    def __init__(self, W, h, x):\n"
        "        self.W, self.h, self.x = W, h, x\n"
        "def forward(x, W):\n    h = np.tanh(W @ x)\n    return h, Cache(W, h, x)\n"
        "def backward(grad, cache):\n    assert cache.W.shape\n"
        "    dW = np.outer(grad * (1 - cache.h**2), cache.x)\n    return dW\n"
        "h, cache = forward(y, W)\nbackward(h - 1, cache)\n",
        "forward,backward", ("W",),
    ),
    "two functions of a dict, called in the file": Shape(
        f"{DATA}\ndef step(x, parameters):\n    h = np.tanh(parameters['W'] @ x)\n"
        "    out = parameters['V'] @ h\n    return h, out\n"
        "def back(d_h, d_out, h, x, parameters):\n    d = d_h + parameters['V'].T @ d_out\n"
        "    return {'dV': np.outer(d_out, h), 'dW': np.outer(d * (1 - h**2), x)}\n"
        "parameters = dict(W=W, V=V)\nh, out = step(y, parameters)\n"
        "back(h, out - y, h, y, parameters)\n",
        "step,back", ("W", "V"),
    ),
    "forward, loss and backward of globals": Shape(
        f"{DATA}\ndef forward(x):\n    return [np.tanh(W @ x)]\n"
        "def mse(hs, y):\n    return np.mean((hs[-1] - y) ** 2)\n"
        "def backward(x, y, hs):\n    h = hs[-1]\n"
        "    dW = np.outer(2 * (h - y) / y.size * (1 - h**2), x)\n    return dW\n"
        "hs = forward(x[0])\nmse(hs, y)\nbackward(x[0], y, hs)\n",
        "forward,mse,backward", ("W",),
    ),
    "backward updates, and returns nothing": Shape(
        f"{DATA}{METHODS.replace('backward(self)', 'backward(self, learn_rate=0.02)')}"
        "        self.W = self.W - learn_rate * dW\n        self.V -= learn_rate * dV\n"
        "        self.b -= learn_rate * db\nnet = Net()\n",
        "net", WVb,
    ),
    "backward updates by Adagrad, and returns nothing": Shape(
        f"{DATA}{METHODS}        for p, d, m in zip([self.W, self.V, self.b], [dW, dV, db],\n"
        "                            [self.mW, self.mV, self.mb]):\n            m += d * d\n"
        "            p += -self.lr * d / np.sqrt(m + 1e-8)\n"
        "net = Net()\nnet.mW, net.mV, net.mb = 0 * W, 0 * V, 0 * b\n",
        "net", WVb,
    ),
    "a method that updates the parameters": Shape(
        f"{DATA}\nclass Net:\n    def __init__(self):\n        self.b = b.copy()\n"
        "    def step(self, x):\n        h = np.tanh(x[0] + self.b)\n"
        "        grad_b = 2 * h * (1 - h**2)\n        self.b -= 0.1 * grad_b\n"
        "        return np.sum(h**2), grad_b\nNet().step(x)\n",
        "Net.step", ("b",),
    ),
    "backward takes the prediction and the target, and returns the loss": Shape(
        f"{DATA}\nclass Net:\n    def __init__(self):\n"
        "        self.W, self.lr = W.copy(), 0.02\n"
        "    def forward(self, x):\n        self.x, self.hs = x, [np.zeros(2)]\n"
        "        for t in range(3):\n"
        "            self.hs.append(np.tanh(x[t] + self.W @ self.hs[t]))\n"
        "        return self.hs[-1]\n"
        "    def backward(self, y_pred, y_true):\n        dh = 2 * (y_pred - y_true) / len(y)\n"
        "        dW = np.zeros((2, 2))\n        for t in (2, 1, 0):\n"
        "            da = dh * (1 - self.hs[t + 1] ** 2)\n"
        "            dW += np.outer(da, self.hs[t])\n"
        "            dh = self.W.T @ da\n        self.W = self.W - self.lr * dW\n"
        "        return np.mean((y_pred - y_true) ** 2)\n"
        "net = Net()\nfor _ in range(2):\n    print(net.backward(net.forward(x), y))\n",
        "net", ("W",),
    ),
    "forward leaves the loss in the object, and returns one number": Shape(
        f"{DATA}\nclass Net:\n    def __init__(self):\n        self.W = W.copy()\n"
        "    def forward(self, x, y):\n        self.x, self.y, self.hs = x, y, [np.zeros(2)]\n"
        "        for t in range(3):\n"
        "            self.hs.append(np.tanh(x[t] + self.W @ self.hs[t]))\n"
        "        out = self.hs[-1][:1]\n        self.e = out - y[0]\n"
        "        self.loss = np.sum(self.e**2)\n        return out\n"
        "    def backward(self):\n        dh = np.array([2 * self.e[0], 0.0])\n"
        "        self.dW = np.zeros((2, 2))\n        for t in (2, 1, 0):\n"
        "            da = dh * (1 - self.hs[t + 1] ** 2)\n"
        "            self.dW += np.outer(da, self.hs[t])\n            dh = self.W.T @ da\n"
        "net = Net()\nnet.forward(x, y)\nnet.backward()\n",
        "net", ("W",),
    ),
    "buffers in the object": Shape(
        f"{DATA}\nclass Net:\n    def __init__(self):\n"
        "        self.W, self.hs, self.dW = W.copy(), np.zeros((4, 2)), np.zeros((2, 2))\n"
        "    def forward(self, x, y):\n        self.x, self.y = x, y\n"
        "        for t in range(3):\n"
        "            self.hs[t + 1] = np.tanh(x[t] + self.W @ self.hs[t])\n"
        "        return 0.5 * np.sum((self.hs[-1] - y) ** 2)\n"
        "    def backward(self):\n        dh = self.hs[-1] - self.y\n        self.dW[:] = 0\n"
        "        for t in (2, 1, 0):\n            da = dh * (1 - self.hs[t + 1] ** 2)\n"
        "            self.dW += np.outer(da, self.hs[t])\n            dh = self.W.T @ da\n"
        "net = Net()\nnet.forward(x, y)\nnet.backward()\n",
        "net", ("W",),
    ),
    "backward is given the gradient, beside a method for the loss": Shape(
        f"{DATA}{OUTPUT}", "Net", ("W",)
    ),
    "forward returns a number, and backward is given its gradient": Shape(
        f"{DATA}{NUMBER}", "Net", ("W",)
    ),
    "a function that updates the structure it is given": Shape(
        f"{DATA}\ndef f(params, x, y):\n{OF_PARAMS}\n    params['W'] -= 0.1 * dW\n"
        '    return loss, {"W": dW, "V": dV, "b": db}\nf({"W": W, "V": V, "b": b}, x, y)\n',
        "f", WVb,
    ),
    "an object that is a default": Shape(
        f"{DATA}\nclass P:\n    def __init__(self, v):\n        self.v, self.d = v, 0 * v\n"
        "class Every:\n    def __init__(self):\n        self.W = P(W)\nevery = Every()\n"
        "def forward(x, p=every):\n    return np.tanh(p.W.v @ x)\n"
        "def backward(dh, x, p=every):\n    p.W.d += np.outer(dh, x)\n"
        "def f(x, y, z):\n    h = forward(x)\n    every.W.d.fill(0)\n"
        "    backward(2 * h * (1 - h**2), x)\n    return np.sum(h**2), h, h\nf(y, 1, 2)\n",
        "f", ("every.W.v",),
    ),
    "the gradient of the last input alone": Shape(
        f"{DATA}\ndef f(x, y, W, V, b):\n{write(BOTH)}        dx = da\n"
        "    return loss, dW, dV, db, dx\nf(x, y, W, V, b)\n",
        "f", WVb,
    ),
    "two structures of parameters": Shape(
        f"{DATA}\nW, B = dict(h=W, y=V), dict(h=b)\ndef f(x, y, W, B):\n"
        "    h = np.tanh(W['h'] @ x[0] + B['h'])\n    e = W['y'] @ h - y\n"
        "    loss, d = 0.5 * np.sum(e**2), (W['y'].T @ e) * (1 - h**2)\n"
        "    dW, dB = dict(h=np.outer(d, x[0]), y=np.outer(e, h)), dict(h=d)\n"
        "    return loss, dW, dB\nf(x, y, W, B)\n",
        "f", ("W.h", "W.y", "B.h"),
    ),
    "names with dots": Shape(
        f"{DATA}\nclass Part: pass\nclass Net:\n    def __init__(self):\n"
        "        self.enc = Part()\n        self.enc.b = b.copy()\n"
        "    def forward(self, x):\n        self.h = np.tanh(x[0] + self.enc.b)\n"
        "        return np.sum(self.h**2)\n"
        "    def backward(self):\n        return {'enc.b': 2 * self.h * (1 - self.h**2)}\n"
        "net = Net()\nnet.forward(x)\n",
        "net", ("enc.b",),
    ),
    "gradients mapped in a list": Shape(
        f"{DATA}\ndef f(x, y):\n{write(BOTH)}\n"
        "    return loss / 2, [g / 2 for g in (dW, dV, db)]\n",
        "f", WVb,
    ),
    "a vector of parameters": Shape(
        f"{DATA}\ndef objective(theta):\n    W = theta[:4].reshape(2, 2)\n"
        "    h = np.tanh(W @ y + theta[4:])\n    d = 2 * h * (1 - h**2)\n"
        "    return np.sum(h**2), np.concatenate([np.outer(d, y).ravel(), d])\n"
        "theta = rng.normal(size=6)\n",
        "objective", ("theta",),
    ),
    "numbers, summed over an axis that they lack": Shape(
        f"{DATA}\nu, w = np.array(0.3), np.array(0.7)\n"
        "def run(x, u, w):\n    h = [0.0]\n    for each in x[:, 0]:\n"
        "        h.append(np.sum(np.tanh(u * each + w * h[-1]), axis=0))\n    return h\n"
        "def f(x, u, w):\n    h, d, du, dw = run(x, u, w), 1.0, 0, 0\n    for t in (2, 1, 0):\n"
        "        a = d * (1 - h[t + 1] ** 2)\n        du += a * x[t, 0]\n        dw += a * h[t]\n"
        "        d = a * w\n    return h[-1], (du, dw)\n",
        "f", ("u", "w"),
    ),
}  # fmt: skip
