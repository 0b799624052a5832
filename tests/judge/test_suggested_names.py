"""What of a file is suggested to be judged, where nothing is named."""

import ast
from pathlib import Path
from types import SimpleNamespace

import pytest

from bptt_verifier.judge.candidates import (
    choose_likely,
    describe_object,
    find_pair,
    has_named_gradients,
    leaves_gradients,
    list_beside_losses,
    list_called,
    list_updating_methods,
    returns_loss_alone,
    suggest_instead,
    suggest_method,
)
from bptt_verifier.program.source_file import Definitions, find_definitions


def read(text: str) -> Definitions:
    cells = [SimpleNamespace(name="model.py", source=text)]
    return find_definitions(Path("model.py"), cells)  # type: ignore[arg-type]


def define(*names: str) -> str:
    return "".join(f"def {name}(x): return x\n" for name in names)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (define("rnn_forward", "rnn_backward"), "rnn_forward,rnn_backward"),
        (define("forward", "backward", "mse"), "forward,mse,backward"),
        (define("forward", "backward", "MSE_Loss"), "forward,MSE_Loss,backward"),
        (define("forward", "backward", "mse", "nll"), "forward,backward"),
        (define("forward", "backward", "mse", "nll") + "nll(1)\n", "forward,nll,backward"),
        (define("forward", "backward", "mse") + "forward(1)\n", "forward,mse,backward"),
        (define("forward", "backward", "mse_grad"), "forward,backward"),
        (define("forward", "backward", "loss_derivative"), "forward,backward"),
        (define("forward", "backward", "softmax"), "forward,backward"),
        (define("forward", "loss"), ""),
    ],
)
def test_a_pair_is_suggested_with_the_loss_that_is_surely_its_own(text: str, expected: str) -> None:
    assert find_pair(read(text)) == expected


METHODS = "class Net:\n    rate = 1\n    def fit(self): ...\n    def show(self): ...\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (METHODS, "Net.fit"),
        (METHODS + "    def _step_back(self): ...\n", "Net.fit"),
        ("class Net:\n    def a(self): ...\n    def b(self): ...\n", "Net.b"),
        ("class Net:\n    def _a(self): ...\n", ""),
        ("class Net:\n    rate = 1\n", ""),
        (METHODS + define("run"), ""),
        (METHODS + "class Other:\n    def fit(self): ...\n", ""),
        ("rate = 1\n", ""),
    ],
)
def test_a_method_is_suggested_of_the_only_class_of_a_file(text: str, expected: str) -> None:
    assert suggest_method(read(text)) == expected


def test_the_likeliest_method_speaks_of_gradients_or_else_is_the_last() -> None:
    assert choose_likely(["train", "Backprop", "show"]) == "Backprop"
    assert choose_likely(["backward", "get_grads", "show"]) == "get_grads"
    assert choose_likely(["show", "run", "idle"]) == "idle"


def test_another_method_that_returns_both_is_suggested_instead() -> None:
    both = "    def both(self, x):\n        loss, dW = x, self.W\n        return loss, dW\n"
    with_both, without = read(METHODS + both + "net = Net()\n"), read(METHODS)
    assert (
        suggest_instead(with_both, "Net") == "or judge Net.both, which returns both: FILE:Net.both"
    )
    assert suggest_instead(with_both, "net.fit").endswith("FILE:net.both")
    for defined, name in [(with_both, "Net.both"), (without, "Net"), (without, "f")]:
        assert suggest_instead(defined, name) == ""


def test_an_object_is_described_by_its_public_methods() -> None:
    class Net:
        rate = 1

        def train(self) -> None: ...

        def show(self) -> None: ...

        def _own(self) -> None: ...

    assert describe_object("net", Net()) == (
        "net: expected a class with methods forward and backward, or a method that returns the "
        "loss and the gradients, found the methods train, show; name one, such as FILE:net.train"
    )
    for value, kind in [(3, "int"), (SimpleNamespace(), "SimpleNamespace")]:
        assert describe_object("x", value) == f"x: expected a function or class, found {kind}"


def test_functions_are_called_through_others_too() -> None:
    text = "def a(): b()\ndef b(): c(); len(())\ndef c(): a()\ndef d(): ...\n"
    assert list_called(read(text), ["a"]) == {"a", "b", "c"}
    assert list_called(read(text), ["d"]) == set()


@pytest.mark.parametrize(
    ("body", "updates"),
    [
        ("dW = x\n        self.W -= dW\n        return 1", True),
        ("dW = x\n        self.W[0] -= dW\n        return 1", True),
        ("dW = x\n        self.W -= dW", False),
        ("dW = x\n        self.W -= dW\n        return", False),
        ("dW = self.W\n        return dW", False),
        ("k = x\n        self.W -= k\n        return 1", False),
        ("grads = x\n        setattr(self, 'W', grads)\n        return 1", True),
        ("k = x\n        setattr(self, 'W', k)\n        return 1", False),
        ("g = x\n        setattr(self, 'W', g)\n        return 1", False),
        ("dW = x\n        setattr(self, 'W', dW['W'])\n        return 1", True),
        ("grads = x\n        return grads", False),
    ],
)
def test_a_method_updates_attributes_by_gradients_named_after_them(
    body: str, updates: bool
) -> None:
    text = f"class Net:\n    rate = 1\n    def train(self, x):\n        {body}\n"
    found = list_updating_methods(read(text).classes["Net"])
    assert found == (["train"] if updates else [])
    awaited = text.replace("def train", "async def train")  # a call of it runs nothing
    assert list_updating_methods(read(awaited).classes["Net"]) == []


@pytest.mark.parametrize(
    ("body", "leaves"),
    [
        ("global dW", True),
        ("self.dW = x", True),
        ("grads['W'] = x", True),
        ("grads['W'][0] = x", True),
        ("h[0] = x", False),
        ("backward(x)", True),
        ("self.get_grads(x)", True),
        ("y = self.W @ x", False),
        ("print(x)", False),
    ],
)
def test_gradients_are_left_in_globals_attributes_or_containers(body: str, leaves: bool) -> None:
    (function,) = read(f"def f(self, x):\n    {body}\n").functions.values()
    assert leaves_gradients(function) is leaves


@pytest.mark.parametrize(
    ("body", "alone"),
    [
        ("return x", True),
        ("return x, x", False),
        ("if x: return x\n    return x, x", False),
        ("print(x)", False),
        ("self.dW = x\n    return x", False),
    ],
)
def test_a_loss_alone_returns_one_value_and_leaves_no_gradients(body: str, alone: bool) -> None:
    assert returns_loss_alone(read(f"def loss(self, x):\n    {body}\n"), "loss") is alone


def test_one_gradient_named_after_its_key_makes_a_dict_of_gradients() -> None:
    for text, named in [("{'W': dW, 'n': 3}", True), ("{'W': k}", False), ("dW", False)]:
        assert has_named_gradients(ast.parse(text, mode="eval").body) is named


@pytest.mark.parametrize(
    ("loss", "gradient", "expected"),
    [
        ("self, x, y", "self, x, y", ["gradients"]),
        ("self, x", "self, x, y", ["gradients"]),
        ("self, x, y", "self, x", []),
        ("self, x, y", "self, x, y=1", []),
        ("self, x, y=1", "self, x", ["gradients"]),
        ("self", "self, x", []),
        ("self", "self", []),
    ],
)
def test_gradients_beside_a_loss_take_its_arguments(
    loss: str, gradient: str, expected: list[str]
) -> None:
    text = f"class Net:\n    def loss({loss}): ...\n    def gradients({gradient}): ...\n"
    methods = [n for n in read(text).classes["Net"].body if isinstance(n, ast.FunctionDef)]
    assert list_beside_losses(methods) == expected
