"""Twin modules have the same parameters: whoever knows one knows the other."""

import inspect
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest

TWINS = ["rnn", "lstm", "gru"]
TWIN_FUNCTIONS = ("predict", "value_and_grad", "adjoints")


def signature(module: ModuleType, name: str) -> list[tuple[str, str, Any]]:
    """Name, kind and default of every parameter of a function; annotations may differ."""
    parameters = inspect.signature(getattr(module, name)).parameters.values()
    return [(p.name, p.kind.description, p.default) for p in parameters]


def test_the_compiled_cells_take_what_the_readable_ones_take() -> None:
    for twin in TWINS:
        readable, compiled = (import_module(f"manual_bptt{p}.{twin}") for p in ("", ".jitted"))
        own = [("checkpoint_every", "keyword-only", None)] if twin == "rnn" else []
        for name in ("value_and_grad", "loss"):
            assert signature(compiled, name) == signature(readable, "value_and_grad") + own


def test_the_fused_step_takes_what_the_compiled_rnn_takes() -> None:
    fused, compiled = (import_module(f"manual_bptt.jitted.{name}") for name in ("fused", "rnn"))
    own = [("interpret", "keyword-only", None)]
    assert signature(fused, "value_and_grad") == signature(compiled, "value_and_grad") + own


@pytest.mark.parametrize("name", TWIN_FUNCTIONS)
@pytest.mark.parametrize("twin", TWINS)
def test_twins_have_the_same_signatures(twin: str, name: str) -> None:
    manual, autodiff = (import_module(f"{p}.{twin}") for p in ("manual_bptt", "jax_reference"))
    assert signature(manual, name) == signature(autodiff, name)


@pytest.mark.parametrize("name", ["jvp", "hvp"])
def test_twins_of_the_tangents_have_the_same_signatures(name: str) -> None:
    manual, autodiff = (import_module(f"{p}.tangents") for p in ("manual_bptt", "jax_reference"))
    assert signature(manual, name) == signature(autodiff, name)


@pytest.mark.parametrize(
    "other",
    [
        lambda params, x, h0=None, *, activation="relu": ...,
        lambda params, x, h0, *, activation="tanh": ...,
        lambda params, x, h0=None, activation="tanh": ...,
        lambda params, inputs, h0=None, *, activation="tanh": ...,
        lambda x, params, h0=None, *, activation="tanh": ...,
        lambda params, x, h0=None, *, activation="tanh", loss="mse": ...,
    ],
    ids=["default", "required", "kind", "name", "order", "additional"],
)
def test_a_signature_that_differs_is_noticed(other: Callable[..., Any]) -> None:
    imposter = ModuleType("imposter")
    imposter.predict = other  # type: ignore[attr-defined]
    assert signature(imposter, "predict") != signature(import_module("manual_bptt.rnn"), "predict")
