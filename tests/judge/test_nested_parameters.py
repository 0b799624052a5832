"""Own models with nested parameters: reports and messages name leaves by their paths."""

from typing import Any, NamedTuple

import numpy as np
import pytest

from bptt_verifier.judge.own_model import OwnSubject
from bptt_verifier.judge.submission import Breach, Submission, ask
from bptt_verifier.judge.verify import verify_own_model
from bptt_verifier.reference.own_loss import find_settings, prepare
from bptt_verifier.reference.points import draw_parameters
from bptt_verifier.tolerance.comparison import Verdict


class Layer(NamedTuple):
    W: Any
    b: Any


rng = np.random.default_rng(3)
PARAMS = {
    "embedding": rng.normal(size=(4, 3)),
    "layers": [
        Layer(rng.normal(size=(3, 3)), rng.normal(size=3)),
        Layer(rng.normal(size=(3, 3)), rng.normal(size=3)),
    ],
    "tokens": np.array([2, 0, 3]),
}


def loss(p, xp):
    h = p["embedding"][p["tokens"]]
    for layer in p["layers"]:
        h = xp.tanh(h @ layer.W + layer.b)
    return xp.sum(h**2)


def gradients(p):
    states = [p["embedding"][p["tokens"]]]
    for layer in p["layers"]:
        states.append(np.tanh(states[-1] @ layer.W + layer.b))
    g: Any = {"embedding": np.zeros_like(p["embedding"]), "layers": [None, None]}
    dh = 2 * states[-1]
    for i in (1, 0):
        da = dh * (1 - states[i + 1] ** 2)
        g["layers"][i] = Layer(states[i].T @ da, da.sum(axis=0))
        dh = da @ p["layers"][i].W.T
    np.add.at(g["embedding"], p["tokens"], dh)
    return g


def forgetful(p):
    g = gradients(p)
    return {"embedding": g["embedding"], "layers": [g["layers"][0], {"b": g["layers"][1].b}]}


def test_a_right_derivation_agrees_and_the_data_are_named() -> None:
    report = verify_own_model(gradients, loss, PARAMS, cases=5)
    assert report, str(report)
    assert [*report.parameters] == [
        "embedding", "layers[0].W", "layers[0].b", "layers[1].W", "layers[1].b",
    ]  # fmt: skip
    assert "Handed on as data, not differentiated: tokens." in report.notes


@pytest.mark.rest
def test_a_wrong_gradient_is_named_by_its_leaf_and_can_be_reproduced() -> None:
    def wrong(p):
        g = gradients(p)
        last = g["layers"][1]
        return g | {"layers": [g["layers"][0], last._replace(b=3 * last.b)]}

    report = verify_own_model(wrong, loss, PARAMS, cases=5)
    assert [mistake.name for mistake in report.mistakes] == ["constant-factor"]
    assert "layers[1].b" in report.mistakes[0].explanation
    case = report.counterexample
    assert case is not None
    assert "layers[0].W=(3, 3)" in case.sizes
    space: dict[str, Any] = {"params": PARAMS, "gradients": wrong, "loss": loss}
    assert case.reproduce.startswith("from bptt_verifier import compare_case; print(compare_case(")
    setup, call = case.reproduce.split("; ")
    exec(setup, space)
    again = eval(call.removeprefix("print"), space).counterexample
    assert (again.gradient, again.yours) == ("layers[1].b", case.yours)


def contract(submission: Any) -> Any:
    model = prepare(loss, PARAMS, cases=1)
    subject = OwnSubject(model)
    (case,) = model.cases
    return ask(Submission(submission), lambda: subject.call(case), subject.expect(case), "case")


def modifying(p):
    found = gradients(p)
    p["layers"][0].b[:] = 0
    return found


def replacing(p):
    found = gradients(p)
    p["layers"][1] = p["layers"][0]
    return found


@pytest.mark.parametrize(
    ("submission", "said"),
    [
        (forgetful, "returned no gradient named layers[1].W: expected embedding, layers[0].W, "),
        (modifying, "modified its argument layers[0].b: "),
        (replacing, "modified its argument layers[1].W: "),
        (lambda p: gradients(p)["embedding"], "your function returned ndarray"),
    ],
)
def test_a_breach_names_the_leaf(submission: Any, said: str) -> None:
    found = contract(submission)
    assert isinstance(found, Breach)
    assert said in found.mistake.explanation


def test_a_list_of_dicts_is_what_the_loss_takes_layers_or_settings() -> None:
    listed = [{"W": np.ones((2, 2))}, {"W": np.ones((2, 2))}]

    def of_layers(p, xp):
        return xp.sum(p[0]["W"] @ p[1]["W"])

    def of_settings(p, xp):
        return xp.sum(p["W"] ** 2)

    assert [[*t.leaves] for t in find_settings(of_layers, listed)] == [
        ["params[0].W", "params[1].W"]
    ]
    assert [[*t.leaves] for t in find_settings(of_settings, listed)] == [["W"], ["W"]]
    assert prepare(of_settings, listed, cases=2).refusal is None
    with pytest.raises(ValueError, match="expected the same names in every setting"):
        find_settings(of_settings, [{"W": np.ones(2)}, {"V": np.ones(2)}])


def test_each_setting_has_data_of_its_own() -> None:
    def of_lengths(p, xp):
        return xp.sum(p["W"][: p["n"]] ** 2)

    settings = [{"W": np.ones(3), "n": 2}, {"W": np.ones(4), "n": 3}]
    right = verify_own_model(
        lambda p: {"W": np.where(np.arange(p["W"].size) < p["n"], 2 * p["W"], 0)},
        of_lengths, settings, cases=4,
    )  # fmt: skip
    assert right.verdict is Verdict.AGREES


@pytest.mark.rest
def test_a_float_among_the_parameters_is_differentiated_and_stays_a_float() -> None:
    def of_numbers(p: Any) -> Any:
        scale = p[0]
        scale += 1  # of a number, which leaves p[0] as it is
        return scale**2 * p[0] + np.sum(p[1])

    def right(p: Any) -> Any:
        assert type(p[0]) is float
        return [2 * (p[0] + 1) * p[0] + (p[0] + 1) ** 2, 1.0]

    report = verify_own_model(right, of_numbers, (0.5, 0.25), cases=4)
    assert report.verdict is Verdict.AGREES, report
    assert not any("cannot be traced" in note for note in report.notes)
    report = verify_own_model(lambda p: [2 * right(p)[0], 1.0], of_numbers, (0.5, 0.25), cases=4)
    assert report.verdict is Verdict.DISAGREES
    drawn = draw_parameters((0.5, np.float32(0.25)), seed=0, case=1)
    assert (type(drawn[0]), type(drawn[1])) == (float, np.float64)
