"""The derivations on symbols, with an activation of which nothing is known."""

import math
import sys
from importlib import import_module
from typing import Any

import pytest
import sympy

from bptt_verifier.proofs import extras
from bptt_verifier.proofs.rational import DERIVATIONS, MODULES
from bptt_verifier.proofs.symbolic import (
    SHAPES,
    Symbolic,
    exponential,
    free_cases,
    hyperbolic,
    own_cases,
    phi,
    phi_prime,
    prove_symbolically,
    sigma,
    softplus,
)
from tests.support.planting import GATED_MISTAKES, MISTAKES, Mistake, planted
from tests.support.profiles import deep

x, y = sympy.symbols("x y")


@pytest.mark.rest
@pytest.mark.parametrize("name", DERIVATIONS)
def test_each_derivation_is_right_for_all_values_and_all_activations(name: str) -> None:
    proved = prove_symbolically(name, DERIVATIONS[name], free_cases())
    assert proved.refuted is None
    assert proved.models == 2 * len(SHAPES)


@pytest.mark.table(3)
@pytest.mark.parametrize("name", MODULES)
def test_the_cells_are_right_with_their_own_functions(name: str) -> None:
    chosen = own_cases(name.lower())
    if not deep():  # two steps of a gated cell take seconds to expand
        chosen = tuple(case for case in chosen if case.sizes.T == 1 or case.outputs == "every")[::4]
    proved = prove_symbolically(name, MODULES[name], chosen)
    assert proved.refuted is None
    assert proved.models == len(chosen)


# What is slow to refute, because all that is right has to be expanded before it.
TRIED = MISTAKES + GATED_MISTAKES if deep() else MISTAKES[1::4] + GATED_MISTAKES[:20:7]


@pytest.mark.parametrize("mistake", TRIED, ids=lambda m: f"{m.suspect}: {m.name}")
def test_a_planted_mistake_is_refuted(mistake: Mistake, tmp_path: Any) -> None:
    module = planted(mistake, tmp_path)
    refuted = None
    of_activation = mistake.file == "activations.py"
    if mistake.suspect in ("rnn", "jacobian_sum", "rtrl") and not of_activation:
        refuted = prove_symbolically("", module, free_cases()).refuted
    if refuted is None and mistake.suspect in ("rnn", "lstm", "gru"):
        refuted = prove_symbolically("", module, own_cases(mistake.suspect)).refuted
    assert refuted is not None


def test_nothing_is_known_of_the_activation_but_its_derivative() -> None:
    assert sympy.diff(phi(x * y), x) == y * phi_prime(x * y)
    assert phi(x) != phi(-x)
    assert sympy.expand(phi(x) ** 2 - phi(x)) != 0


@pytest.mark.parametrize(
    ("named", "meant"),
    [
        (hyperbolic(x), sympy.tanh(x)),
        (sigma(x), 1 / (1 + sympy.exp(-x))),
        (sigma(-x), 1 / (1 + sympy.exp(x))),
        (exponential(x), sympy.exp(x)),
        (softplus(x), sympy.log(1 + sympy.exp(x))),
    ],
)
def test_what_is_known_of_the_other_functions_is_true(named: Any, meant: Any) -> None:
    meanings = {
        hyperbolic: sympy.tanh,
        sigma: lambda z: 1 / (1 + sympy.exp(-z)),
        exponential: sympy.exp,
        softplus: lambda z: sympy.log(1 + sympy.exp(z)),
    }

    def plain(expression: Any) -> Any:
        for function, meaning in meanings.items():
            expression = expression.replace(function, meaning)
        return expression

    assert sympy.simplify(plain(named) - meant) == 0
    assert sympy.simplify(plain(sympy.diff(named, x)) - sympy.diff(meant, x)) == 0


def test_the_rules_of_exp_and_log_are_true() -> None:
    a, b = Symbolic(x, 0.3), Symbolic(y, 0.5)
    one_over = 1 / (1 + (-a).exp())
    assert one_over.expression == sigma(x)
    assert (a.exp() / (1 + a.exp())).expression == sigma(x)
    total = (a.exp() + b.exp()).log()
    assert total.expression == x + softplus(y - x)
    assert total.sample == pytest.approx(math.log(math.exp(0.3) + math.exp(0.5)))
    shifted = a - (1 + a.exp()).log()
    assert shifted.exp().expression == sigma(x)
    assert (0 - (1 + a.exp()).log()).exp().expression == sigma(-x)
    for value in (one_over, shifted.exp()):
        assert value.sample == pytest.approx(1 / (1 + math.exp(-0.3)))


def test_comparisons_follow_the_sample() -> None:
    a = Symbolic(x, -2.0)
    assert a < 0
    assert abs(a).expression == -x
    assert not a >= 1
    assert a == Symbolic(x, 5.0)


@pytest.mark.parametrize(
    ("module", "package", "feature", "extra"),
    [
        ("bptt_verifier.proofs.symbolic", "SymPy", "certify", "certify"),
        ("bptt_verifier.proofs.rational", "python-flint", "certify", "certify"),
        ("bptt_verifier.strategies", "Hypothesis", "strategies", "test"),
    ],
)
def test_a_missing_package_is_one_line_that_says_how_to_install_it(
    module: str, package: str, feature: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(extras.MissingExtra) as caught:
        import_module(module)
    assert str(caught.value) == (
        f"{feature}: expected {package}, found none: pip install 'verified-bptt[{extra}]'"
    )
