"""Code in PyTorch that derives its gradients by hand, in the shapes that public code has."""

from typing import NamedTuple

HEAD = """import torch
torch.manual_seed(0)
x, y = torch.randn(4, 3), torch.randn(3)
W, U, b = 0.5 * torch.randn(3, 3), torch.randn(3, 3), torch.randn(3)
"""


class TensorCode(NamedTuple):
    """A file, the name to judge in it, its parameters, and a mistake: a text and its wrong form."""

    source: str
    name: str
    params: tuple[str, ...]
    right: str = "W.T @ da"
    wrong: str = "W @ da"


PASS = """
    hs = [torch.zeros(3)]
    for t in range(4):
        hs.append(torch.tanh(U @ x[t] + W @ hs[-1] + b))
    error = hs[-1] - y
    loss = (error ** 2).mean()
"""
BACK = """
    dW, dU, db, dh = torch.zeros_like(W), torch.zeros_like(U), torch.zeros_like(b), 2 * error / 3
    for t in reversed(range(4)):
        da = dh * (1 - hs[t + 1] ** 2)
        dW += torch.outer(da, hs[t])
        dU += torch.outer(da, x[t])
        db += da
        dh = W.T @ da
"""
CHARACTERS = """import torch
torch.manual_seed(1)
text = "hello world"
chars = sorted(set(text))
H, N = 5, len(chars)
Wxh, Whh, Why = torch.randn(H, N) * 0.3, torch.randn(H, H) * 0.3, torch.randn(N, H) * 0.3
bh, by = torch.zeros(H, 1), torch.zeros(N, 1)
def lossFun(inputs, targets, hprev):
    xs, hs, ps = {}, {}, {}
    hs[-1] = hprev.clone()
    loss = 0
    for t in range(len(inputs)):
        xs[t] = torch.zeros((N, 1))
        xs[t][inputs[t]] = 1
        hs[t] = torch.tanh(torch.mm(Wxh, xs[t]) + torch.mm(Whh, hs[t - 1]) + bh)
        scores = torch.mm(Why, hs[t]) + by
        ps[t] = torch.exp(scores) / torch.sum(torch.exp(scores))
        loss += -torch.log(ps[t][targets[t], 0]).item()
    dWxh, dWhh, dWhy = torch.zeros_like(Wxh), torch.zeros_like(Whh), torch.zeros_like(Why)
    dbh, dby, dhnext = torch.zeros_like(bh), torch.zeros_like(by), torch.zeros_like(hs[0])
    for t in reversed(range(len(inputs))):
        dy = ps[t].clone()
        dy[targets[t]] -= 1
        dWhy += torch.mm(dy, hs[t].t())
        dby += dy
        dh = torch.mm(Why.t(), dy) + dhnext
        dhraw = (1 - hs[t] * hs[t]) * dh
        dbh += dhraw
        dWxh += torch.mm(dhraw, xs[t].t())
        dWhh += torch.mm(dhraw, hs[t - 1].t())
        dhnext = torch.mm(Whh.t(), dhraw)
    print(f"loss {loss:.3f}, norm {float(dWhh.norm()):.2f}")
    return loss, dWxh, dWhh, dWhy, dbh, dby, hs[len(inputs) - 1]
numbers = [chars.index(c) for c in text]
while True:
    loss, dWxh, dWhh, dWhy, dbh, dby, h = lossFun(numbers[:5], numbers[1:6], torch.zeros(H, 1))
    break
"""
CELL = """
class Cell:
    def __init__(self):
        self.W, self.U, self.b, self.lr = W.clone(), U.clone(), b.clone(), 0.1
    @torch.no_grad()
    def forward(self, x, y):
        self.hs, self.x = torch.zeros(5, 3), x
        for t in range(4):
            self.hs[t + 1] = torch.tanh(self.U @ x[t] + self.W @ self.hs[t] + self.b)
        self.error = self.hs[4] - y
        return float(torch.sum(self.error ** 2))
    @torch.no_grad()
    def backward(self):
        dh, W = 2 * self.error, self.W
        dW, dU, db = torch.zeros(3, 3), torch.zeros(3, 3), torch.zeros(3)
        for t in reversed(range(4)):
            da = dh * (1 - self.hs[t + 1] ** 2)
            dW, dU, db = dW + torch.outer(da, self.hs[t]), dU + torch.outer(da, self.x[t]), db + da
            dh = W.T @ da
        self.W -= self.lr * dW
        self.U -= self.lr * dU
        self.b -= self.lr * db
cell = Cell()
for _ in range(3):
    cell.forward(x, y)
    cell.backward()
"""
MODULE = """
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.W, self.b = torch.nn.Parameter(W), torch.nn.Parameter(b)
    def forward(self, x):
        self.x, self.hs = x, [torch.zeros(3)]
        for each in x:
            self.hs.append(torch.tanh(each + self.W @ self.hs[-1] + self.b))
        return self.hs[-1]
    def backward(self, dh):
        grads = {"W": torch.zeros(3, 3), "b": torch.zeros(3)}
        for t in (3, 2, 1, 0):
            da = dh * (1 - self.hs[t + 1] ** 2)
            grads["W"] += torch.outer(da, self.hs[t])
            grads["b"] += da
            dh = self.W.T @ da
        return grads
net = Net()
h = net.forward(x)
net.backward(h.detach() - y)
"""
LEFT = MODULE.replace(
    "        return grads", "        self.W.grad, self.b.grad = grads['W'], grads['b']"
)
ADDED = (
    MODULE.replace("        grads = ", "        unused = ")
    .replace("        return grads\n", "")
    .replace('grads["W"]', "self.W.grad")
    .replace('grads["b"]', "self.b.grad")
    .replace(
        "net.backward", "for p in net.parameters():\n    p.grad = torch.zeros_like(p)\nnet.backward"
    )
    .replace("def backward", "@torch.no_grad()\n    def backward")
)
FUNCTION = """
class Tanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a):
        h = torch.tanh(a)
        ctx.save_for_backward(h)
        return h
    @staticmethod
    def backward(ctx, d):
        h, = ctx.saved_tensors
        return d * (1 - h * h)
w = torch.randn(3, 3, requires_grad=True)
def step(x):
    w.grad = None
    loss = Tanh.apply(x @ w).pow(2).sum()
    loss.backward()
    return loss, w.grad
"""
CODE = {
    "a character model": TensorCode(
        CHARACTERS, "lossFun", ("Wxh", "Whh", "Why", "bh", "by"),
        "torch.mm(Whh.t(), dhraw)", "torch.mm(Whh, dhraw)",
    ),
    "arguments, and gradients that need gradients": TensorCode(
        f"{HEAD}\ndef f(W, U, b):{PASS}{BACK}    return loss, dW.requires_grad_(), dU, db\n"
        "f(W, U, b)\n",
        "f", ("W", "U", "b"),
    ),
    "parameters that need gradients, compared with autograd": TensorCode(
        f"{HEAD}\np = dict(W=W, U=U, b=b)\nfor each in p.values():\n    each.requires_grad_()\n"
        "def f(params):\n    W, U, b = params['W'], params['U'], params['b']"
        f"{PASS}    with torch.no_grad():{BACK.replace(chr(10) + '    ', chr(10) + '        ')}\n"
        "    return loss, {'W': dW, 'U': dU, 'b': db}\nloss, grads = f(p)\nloss.backward()\n"
        "print(torch.allclose(p['W'].grad, grads['W'], atol=1e-5))\n",
        "f", ("W", "U", "b"),
    ),
    "a list of parameters, without autograd": TensorCode(
        f"{HEAD}\np = [W, U, b]\n@torch.no_grad()\ndef f(parameters, x, y):\n"
        f"    W, U, b = parameters{PASS}{BACK}    return loss, [dW, dU, db]\nf(p, x, y)\n",
        "f", ("parameters[0]", "parameters[1]", "parameters[2]"),
    ),
    "a list of parameters, in inference mode": TensorCode(
        f"{HEAD}\np = [W, U, b]\n@torch.inference_mode()\ndef f(parameters, x, y):\n"
        f"    W, U, b = parameters{PASS}{BACK}    return loss.item(), [dW, dU, db]\nf(p, x, y)\n",
        "f", ("parameters[0]", "parameters[1]", "parameters[2]"),
    ),
    "a class that updates under no_grad": TensorCode(HEAD + CELL, "cell", ("W", "U", "b")),
    "a module": TensorCode(
        HEAD + MODULE, "net", ("W", "b"), "self.W.T @ da", "self.W @ da"
    ),
    "a module that leaves its gradients in its parameters": TensorCode(
        HEAD + LEFT, "net", ("W", "b"), "self.W.T @ da", "self.W @ da"
    ),
    "a module that adds to the gradients of its parameters": TensorCode(
        HEAD + ADDED, "net", ("W", "b"), "self.W.T @ da", "self.W @ da"
    ),
    "a function that leaves the gradients in its parameters": TensorCode(
        f"{HEAD}\np = dict(W=W, U=U, b=b)\n"
        "def f(params):\n    W, U, b = params['W'], params['U'], params['b']"
        f"{PASS}{BACK}    W.grad, U.grad, b.grad = dW, dU, db\n    return loss\nf(p)\n",
        "f", ("W", "U", "b"),
    ),
    "an autograd function": TensorCode(
        HEAD + FUNCTION, "step", ("w",), "d * (1 - h * h)", "d * (1 - h)"
    ),
}  # fmt: skip
