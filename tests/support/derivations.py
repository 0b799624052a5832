"""Modules of `manual_bptt`, right or with planted mistakes, as submissions to the judge."""

from types import ModuleType
from typing import Any

from tests.support.planting import Mistake

WITH_RESET_BEFORE = {
    "reset gate before the product on the way back",
    "reset state missing in ∂L/∂W_n",
    "σ′ before the product",
}


def derivation(module: ModuleType, cell: str = "rnn", dtype: Any = None, **options: Any) -> Any:
    """A module's `gradients` as a submission, computing in `dtype` if there is one."""

    def cast(array: Any) -> Any:
        return array if dtype is None else array.astype(dtype, copy=False)

    def gradients(params: Any, *arrays: Any) -> dict[str, Any]:
        given = module.Params(*map(cast, params))
        value, found = module.gradients(given, *map(cast, arrays), **options)
        return {"loss": value} | found._asdict()

    def with_h0(params, x, y, h0):
        return gradients(params, x, y, h0)

    def with_h0_and_c0(params, x, y, h0, c0):
        return gradients(params, x, y, h0, c0)

    return with_h0_and_c0 if cell == "lstm" else with_h0


def without_loss(submission: Any) -> Any:
    """The same, but the loss is not returned."""

    def gradients(params: Any, x: Any, y: Any, h0: Any) -> dict[str, Any]:
        found = submission(params, x, y, h0)
        return {name: value for name, value in found.items() if name != "loss"}

    return gradients


def stated_model(mistake: Mistake) -> dict[str, Any]:
    """The options of `verify` with which the mistake shows."""
    name = mistake.name
    if mistake.suspect == "rnn":
        return {
            "activation": next((a for a in ("sigmoid", "relu") if a in name), "tanh"),
            "loss": "half_sse" if "½" in name else "mse",
            "bias": any(word in name for word in ("∂L/∂b", "∂L/∂c", "bias")),
        }
    reset = {"reset": "before"} if name in WITH_RESET_BEFORE else {}
    return {"model": mistake.suspect, "bias": True} | reset


def options_of(mistake: Mistake) -> dict[str, Any]:
    """Those options that the derivation itself takes."""
    stated = stated_model(mistake)
    return {name: stated[name] for name in ("activation", "loss", "reset") if name in stated}
