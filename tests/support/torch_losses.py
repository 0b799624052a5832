"""Losses of PyTorch in many styles, each a function of the module torch that makes them."""

from typing import Any

import numpy as np

x = np.random.default_rng(3).normal(size=(4, 3, 2))
tokens = [0, 2, 1, 3, 1]
U, W, G = ({"U": (2, 3)}, {"W": (3, 3)}, {"g": (3,), "b": (3,)})


def make_losses(torch: Any) -> dict[str, tuple[Any, Any]]:
    """Make the losses by name, each with the shapes of its parameters."""
    F, X, target = torch.nn.functional, torch.tensor(x), torch.tensor(tokens[1:])

    def buffer(p: Any) -> Any:
        h = torch.zeros(5, 3, 3)
        for t in range(4):
            h[t + 1] = torch.tanh(X[t] @ p["U"] + h[t].clone() @ p["W"])
        return (h[1:] ** 2).mean()

    def characters(p: Any) -> Any:
        h, total = torch.zeros(3, 1), 0
        for t in range(4):
            one_hot = torch.zeros(4, 1)
            one_hot[tokens[t]] = 1
            h = torch.tanh(p["Wx"] @ one_hot + p["W"] @ h)
            total = total - torch.log_softmax((p["Wy"] @ h).ravel(), 0)[tokens[t + 1]]
        return total

    def embedding(p: Any) -> Any:
        found = F.embedding(torch.tensor(tokens[:-1]), p["E"]) @ p["W"]
        return F.cross_entropy(found @ p["E"].T, target)

    def branch(p: Any) -> Any:
        h = p["g"] * 2 if p["g"].sum() > 0 else p["g"] * p["g"]
        return (h**2).sum() + (p["b"] ** 3).sum()

    def mask(p: Any) -> Any:
        h = (p["W"] @ p["W"]).clone()
        h[h < 0] = 0
        return (h**2).sum() + (h[h > 0] ** 3).sum()

    def in_place(p: Any) -> Any:
        h = X @ p["U"]
        h += 1
        h = h.mul_(2).tanh_().clone()
        v = h[0].t()
        h[1].zero_()
        return (v[1:] * v[:-1]).sum() + h.sum()

    def arranged(p: Any) -> Any:
        h = X @ p["U"]
        a = torch.cat([h, h.flip(0)], -1)
        b = torch.stack(torch.unbind(a.permute(1, 0, 2)))
        first, second = b.split(3, -1)
        c = first.transpose(0, 1).reshape(4, -1)[:, ::2].roll(1, 0).unsqueeze(1).expand(4, 2, 5)
        d = torch.gather(second[0], 0, torch.tensor([[0, 1, 0]]))
        return (c**2).sum() + (d**3).sum() + F.pad(second, (1, 0)).cumsum(-1).pow(2).sum()

    def statistics(p: Any) -> Any:
        h = X @ p["U"]
        c = h.std(0) + h.max(0).values.clamp(-1, 1) + h.amax(0) - h.var(-1, False)[:3, None]
        norm = F.layer_norm(h, (3,), h[0, 0], h[1, 1])
        return c.norm() + torch.logsumexp(c, 1).sum() + (norm**3).mean() + h.prod(-1).sum()

    def activations(p: Any) -> Any:
        a, total = X @ p["U"], 0
        names = "sigmoid relu softplus gelu silu elu leaky_relu mish logsigmoid hardswish".split()
        for k, name in enumerate(names):
            total = total + (k + 1) * getattr(F, name)(a).pow(2).sum()
        return total + (torch.sin(a).exp() / (1 + a.abs())).sum() + torch.erf(a).sum()

    def losses(p: Any) -> Any:
        a, b = (X @ p["U"]).reshape(-1), torch.linspace(-1, 1, 36)
        q = torch.sigmoid(a)
        return (
            F.mse_loss(a, b) + F.smooth_l1_loss(a, b) + F.huber_loss(a, b, delta=0.5)
            + F.l1_loss(a, b) + F.binary_cross_entropy(q, (b > 0).double())
            + F.binary_cross_entropy_with_logits(a, (b > 0).double(), reduction="sum")
            + F.nll_loss(F.log_softmax(a.view(12, 3), -1), torch.arange(12) % 3)
        )  # fmt: skip

    def attention(p: Any) -> Any:
        q, k, v = X @ p["U"], X @ p["U"] @ p["W"], torch.einsum("tbd,dh->tbh", X, p["U"])
        weights = torch.softmax((q @ k.transpose(-1, -2)).masked_fill(torch.eye(3) > 0, -9), -1)
        return (weights @ v).pow(2).sum() + F.scaled_dot_product_attention(q, k, v).sum()

    def single(p: Any) -> Any:
        h = torch.zeros(3, 3, dtype=torch.float32)
        for each in X.float():
            h = torch.tanh(each @ p["U"] + h @ p["W"])
        return h.float().square().sum()

    return {
        "a buffer that is assigned to": (buffer, U | W),
        "characters, one-hot": (characters, {"Wx": (3, 4), "Wy": (4, 3)} | W),
        "an embedding": (embedding, {"E": (4, 3)} | W),
        "a branch on a value": (branch, G),
        "masks": (mask, W),
        "operations in place": (in_place, U),
        "rearranged": (arranged, U),
        "statistics": (statistics, U),
        "activations": (activations, U),
        "losses": (losses, U),
        "attention": (attention, U | W),
        "constants in float32": (single, U | W),
    }
