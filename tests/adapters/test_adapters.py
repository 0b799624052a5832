"""Adapters: kernels of JAX, PyTorch and C as what `verify_vjp` takes."""

import sys
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier import Verdict, verify_hvp, verify_vjp
from bptt_verifier.adapters import SignatureError, from_c, from_jax, from_torch
from bptt_verifier.adapters.kernel import Kernel
from bptt_verifier.adapters.of_c import read_signature
from bptt_verifier.adapters.of_torch import pass_on_changes
from bptt_verifier.judge.kernel_calls import KernelCalls
from bptt_verifier.judge.verify import find_name
from bptt_verifier.program.arguments import read_arguments
from bptt_verifier.reference.pullbacks import prepare_pullback
from bptt_verifier.report import Mistake
from tests.support.c_gru import COMPILER, MISTAKES, SIGNATURE, compile_c, compile_gru, draw_gru, gru
from tests.support.kernels import draw_rnn, rnn
from tests.support.torch_kernels import MISTAKES as LSTM_MISTAKES
from tests.support.torch_kernels import draw_lstm, lstm, make_lstm

torch: Any = import_module("torch") if find_spec("torch") else None
needs_torch = pytest.mark.skipif(torch is None, reason="torch is not installed")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="there is no C compiler")


@jax.custom_vjp
def square(x: Any) -> Any:
    """x², with a rule of its own."""
    return x**2


square.defvjp(lambda x: (x**2, x), lambda x, d: (2 * d * x,))


@jax.custom_vjp
def wrong_square(x: Any) -> Any:
    """x², with a rule that is off by a factor."""
    return x**2


wrong_square.defvjp(lambda x: (x**2, x), lambda x, d: (d * x,))

ARGUMENTS = (np.random.default_rng(0).normal(size=(4, 3)).astype(jnp.bfloat16),)


@pytest.mark.table(4)
@pytest.mark.parametrize("option", ["", "jit", "vmap", "scan"])
def test_a_custom_vjp_is_judged_alone_compiled_batched_and_in_a_loop(option: str) -> None:
    options = {option: True} if option else {}
    assert verify_vjp(from_jax(square, **options), lambda x: x * x, ARGUMENTS, cases=1)
    report = verify_vjp(from_jax(wrong_square, **options), lambda x: x * x, ARGUMENTS, cases=1)
    assert report.verdict is Verdict.DISAGREES


def test_a_kernel_has_the_name_of_its_function() -> None:
    assert find_name(from_jax(wrong_square)) == "wrong_square"
    assert find_name(Kernel(print, name="gru_backward")) == "gru_backward"
    assert find_name(Kernel(print), "kernel") == "your kernel"
    assert find_name(partial(print), "kernel") == "kernel"


def test_integers_among_the_arguments_and_outputs_of_a_jax_function_are_data() -> None:
    def choose(rows: Any, index: Any) -> Any:
        return {"chosen": rows[index] * 2, "index": index}

    given = (np.random.default_rng(0).normal(size=(4, 3)), np.array([2, 0]))
    assert verify_vjp(from_jax(choose, vmap=True), choose, given, cases=1)


def test_a_wrong_forward_is_no_wrong_gradient() -> None:
    other = from_jax(lambda x: jnp.float32(1.01) * x.astype(jnp.float32) ** 2)
    report = verify_vjp(other, lambda x: x * x, (ARGUMENTS[0].astype(np.float32),), cases=1)
    (mistake,) = report.mistakes
    assert mistake.name == "forward-differs"
    assert "The gradients are not compared" in mistake.explanation
    reshaped = from_jax(lambda x: (x**2).ravel())
    (mistake,) = verify_vjp(reshaped, lambda x: x * x, ARGUMENTS, cases=1).mistakes
    assert mistake.name == "forward-differs"


@needs_compiler
def test_a_kernel_in_c_is_judged_through_its_signature(tmp_path: Path) -> None:
    backward = from_c(compile_gru(tmp_path), "gru_backward", SIGNATURE)
    report = verify_vjp(backward, gru, draw_gru(T=2), cases=1)
    assert report.verdict is Verdict.AGREES, report


@needs_compiler
def test_what_a_kernel_in_c_does_not_write_is_found(tmp_path: Path) -> None:
    wrong, unwritten = [*MISTAKES]
    library = compile_gru(tmp_path, unwritten)
    given = draw_gru(T=2)
    (found,) = verify_vjp(from_c(library, "gru_backward", SIGNATURE), gru, given).mistakes
    assert found.name == "unwritten-output"
    assert "3 of 12 entries of dx are not written, entry [0, 1, 0] first" in found.explanation
    (tmp_path / "other").mkdir()
    library = compile_gru(tmp_path / "other", wrong)
    report = verify_vjp(from_c(library, "gru_backward", SIGNATURE), gru, given, cases=1)
    assert report.parameters["W"].verdict is Verdict.DISAGREES


@needs_compiler
def test_a_signature_that_does_not_fit_the_arrays_is_the_callers_error(tmp_path: Path) -> None:
    library = compile_gru(tmp_path)
    for signature, said in (
        (SIGNATURE.replace("float *dx, ", ""), "expected 4 pointers to const and 3 others"),
        (SIGNATURE.replace("const float *x", "const double *x"), "x is float64"),
        (SIGNATURE.replace("T = x[0]", "T = x[7]"), "T is the size of axis 7 of x, which has 3"),
    ):
        with pytest.raises(SignatureError, match=said):
            from_c(library, "gru_backward", signature)(draw_gru(), np.zeros((3, 2, 4), np.float32))
    with pytest.raises(ValueError, match=r"^signature: T is the size"):
        verify_vjp(from_c(library, "gru_backward", signature), gru, draw_gru(T=1))
    with pytest.raises(SignatureError, match="T is the size of no array before it"):
        from_c(library, "gru_backward", SIGNATURE.replace("T = x[0]", "T = y[0]"))


@needs_compiler
def test_a_library_is_found_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(compile_gru(tmp_path).parent)
    assert verify_vjp(from_c("gru.so", "gru_backward", SIGNATURE), gru, draw_gru(T=1), cases=1)
    with pytest.raises(OSError, match=r"other\.so"):
        from_c("other.so", "gru_backward", SIGNATURE)


def test_a_parameter_that_cannot_be_read_is_named() -> None:
    with pytest.raises(SignatureError, match="found 'int T'"):
        read_signature("const float *x, int T")


@needs_torch
@pytest.mark.parametrize("dtype", [np.float64, np.float32, jnp.bfloat16])
def test_an_autograd_function_of_torch_is_judged(dtype: Any) -> None:
    class Square(torch.autograd.Function):  # type: ignore[misc]
        factor = 2.0

        @staticmethod
        def forward(context: Any, x: Any) -> Any:
            context.save_for_backward(x)
            return x * x

        @classmethod
        def backward(cls, context: Any, d: Any) -> Any:
            return cls.factor * d * context.saved_tensors[0]

    class Wrong(Square):
        factor = 1.98

    given = (ARGUMENTS[0].astype(dtype),)
    assert verify_vjp(from_torch(Square.apply), lambda x: x * x, given, cases=1)
    tensors = (torch.tensor(given[0].astype(np.float32)),)
    assert verify_vjp(from_torch(Square.apply), torch.square, tensors, cases=1)
    assert not verify_vjp(from_torch(Wrong.apply), lambda x: x * x, given, cases=1)


@needs_torch
@pytest.mark.parametrize("dtype", [np.float64, np.float32, jnp.bfloat16])
def test_an_lstm_written_as_an_autograd_function_is_right_and_its_mistakes_are_seen(
    dtype: Any,
) -> None:
    arguments = draw_lstm(dtype)
    assert verify_vjp(from_torch(make_lstm()), lstm, arguments, cases=1)
    for mistake, said in LSTM_MISTAKES.items():
        report = verify_vjp(from_torch(make_lstm(mistake)), lstm, arguments, cases=1)
        assert report.verdict is Verdict.DISAGREES, str(report)
        assert said in " ".join(each.explanation for each in report.mistakes)


@needs_torch
@pytest.mark.parametrize("kind", ["array", "float32", "bfloat16", "converted"])
def test_what_an_autograd_function_writes_into_its_cotangents_or_arguments_is_seen(
    kind: str,
) -> None:
    dtype = torch.bfloat16 if kind == "bfloat16" else torch.float32
    made = torch.bfloat16 if kind == "converted" else dtype  # of the output: autograd converts

    class Double(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(context: Any, x: Any) -> Any:
            context.x = x
            return (2 * x).to(made)

        @staticmethod
        def backward(context: Any, d: Any) -> Any:
            if what != "nothing":
                (context.x if what == "arguments" else d).mul_(0.5)
            return (d * (4 if what == "cotangents" else 2)).to(dtype)

    x = torch.tensor([1.0, 2.0, 4.0]).to(dtype)
    given = (x.numpy() if kind == "array" else x,)
    calls = KernelCalls(
        from_torch(Double), prepare_pullback(lambda x: 2 * x, read_arguments(given))
    )
    point = dict(calls.arguments.leaves)
    for what in ("nothing", "cotangents", "arguments"):
        found = calls.ask(point, {"output": next(iter(point.values()))})
        modified = found.details["modified"] if isinstance(found, Mistake) else "nothing"
        assert modified == what
    assert x.tolist() == [1, 2, 4]


@needs_torch
def test_what_is_written_into_a_copy_on_another_device_is_passed_on_to_what_was_given() -> None:
    given, nan = np.array([1.0, np.nan]), torch.tensor([1.0, np.nan])
    pass_on_changes(given, nan, nan.clone())
    given.setflags(write=False)
    pass_on_changes(given, nan, nan.clone())  # unchanged: nothing is written
    given.setflags(write=True)
    pass_on_changes(given, 2 * nan, nan)
    assert given[0] == 2


@needs_torch
def test_integers_of_torch_among_the_arguments_are_handed_out_as_copies() -> None:
    given = (torch.ones(2), torch.tensor([3, 4]))
    arguments = read_arguments(given)
    arguments.rebuild(arguments.leaves)[1].zero_()
    assert given[1].tolist() == [3, 4]


@needs_torch
def test_the_parameters_of_a_module_are_its_first_argument() -> None:
    layer = torch.nn.RNN(2, 5, bias=False)
    x, U, W = draw_rnn(np.float32)
    parameters = {"weight_ih_l0": U, "weight_hh_l0": W}

    def forward(weights: Any, x: Any) -> Any:
        states, last = rnn(x, weights["weight_ih_l0"], weights["weight_hh_l0"])
        return states, last[None]

    report = verify_vjp(from_torch(layer), forward, (parameters, x), cases=1)
    assert report, report
    assert [*report.parameters] == ["weights.weight_ih_l0", "weights.weight_hh_l0", "x"]


@needs_torch
def test_a_module_may_state_the_function_with_its_parameters_or_its_inputs_alone() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    parameters = {name: each.detach().numpy() for name, each in module.named_parameters()}
    x = ARGUMENTS[0].astype(np.float32)
    report = verify_vjp(from_torch(module), module, (parameters, x), cases=1)
    assert report, report
    names = {f"parameters['{name}']" for name in parameters}
    assert {*report.parameters} == names | {"input"}  # JAX sorts them, or leaves their order
    assert verify_vjp(from_torch(module), module, (x,), cases=1)
    wrong = from_torch(torch.nn.Sequential(module, torch.nn.Hardtanh(-0.1, 0.1)))
    assert not verify_vjp(wrong, module, (x,), cases=1)


@needs_torch
def test_a_class_of_an_autograd_function_is_a_kernel_as_its_apply_is() -> None:
    class Double(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(context: Any, x: Any) -> Any:
            return 2 * x

        @staticmethod
        def backward(context: Any, d: Any) -> Any:
            return 2 * d

    assert verify_vjp(from_torch(Double), lambda x: 2 * x, ARGUMENTS, cases=1)


def make_torch_layer(mistake: str = "") -> Any:
    """A layer of tanh as an autograd.Function, with a mistake in it or none."""

    class Layer(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(context: Any, x: Any, W: Any) -> Any:
            context.kept = x, W, torch.tanh(x @ W)
            return context.kept[2]

        @staticmethod
        def backward(context: Any, d: Any) -> Any:
            x, W, h = context.kept
            da = d if mistake == "slope" else d * (1 - h * h)
            return da @ (W if mistake == "transpose" else W.T), x.T @ da

    return Layer.apply


def draw_torch_layer() -> tuple[Any, Any]:
    """The arguments of that layer as tensors in float32."""
    torch.manual_seed(0)
    return torch.randn(4, 3), torch.randn(3, 3)


@needs_torch
@pytest.mark.parametrize(
    ("mistake", "name"),
    [("slope", "activation-derivative-missing"), ("transpose", "untransposed-output-weight")],
)
def test_a_mistake_in_an_operation_that_is_stated_in_torch_is_named(
    mistake: str, name: str
) -> None:
    def forward(x: Any, W: Any) -> Any:
        return torch.tanh(x @ W)

    kernel = from_torch(make_torch_layer(mistake))
    (found,) = verify_vjp(kernel, forward, draw_torch_layer(), cases=1).mistakes
    assert found.name == name
    assert "`torch.tanh(x @ W)`" in found.explanation or "`x @ W`" in found.explanation


@needs_torch
def test_tensors_are_arrays_for_a_function_that_is_stated_in_numpy_or_jax() -> None:
    kernel, given = from_torch(make_torch_layer()), draw_torch_layer()
    for library in (np, jnp):
        assert verify_vjp(kernel, lambda x, W, lib=library: lib.tanh(x @ W), given, cases=1)


@needs_torch
def test_what_fails_on_tensors_says_what_to_give_instead() -> None:
    def forward(x: Any, W: Any) -> Any:
        raise TypeError("no array")

    with pytest.raises(ValueError, match="the arguments are tensors: state the function in torch"):
        verify_vjp(from_torch(make_torch_layer()), forward, draw_torch_layer())


@needs_torch
def test_a_device_that_is_not_there_is_the_callers_error() -> None:
    with pytest.raises(ValueError, match=r"^device: expected one that PyTorch can use here"):
        from_torch(torch.square, device="cuda:99")
    with pytest.raises(TypeError, match="function or a module, found int"):
        from_torch(3)  # type: ignore[arg-type]


def test_what_is_no_function_is_named_by_its_argument() -> None:
    with pytest.raises(TypeError, match="function: expected a function, found int"):
        from_jax(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="backward: expected a function, found int"):
        verify_vjp(3, jnp.sin, ARGUMENTS)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="loss: expected a function, found int"):
        verify_hvp(square, 3, ARGUMENTS)  # type: ignore[arg-type]


def test_without_torch_from_torch_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"^from_torch: expected PyTorch to be installed"):
        from_torch(square)


@needs_compiler
def test_a_kernel_in_c_gets_mappings_in_their_order(tmp_path: Path) -> None:
    source = """
void pull(const float *x, const float *s, const float *dy, const float *da,
          float *dx, float *ds, int n) {
    for (int i = 0; i < n; i++) {
        float d = dy[i] + 2 * x[i] * s[i] * da[i];
        dx[i] = d * s[i];
        ds[i] = d * x[i];
    }
}
"""
    library = compile_c(source, tmp_path)
    signature = (
        "const float *x, const float *s, const float *dy, const float *da, float *dx, float *ds, "
        "int n = x[0]"
    )
    rng = np.random.default_rng(0)
    given = {name: rng.normal(size=5).astype(np.float32) for name in ("x", "s")}
    kernel = from_c(library, "pull", signature)
    report = verify_vjp(kernel, lambda x, s: {"y": x * s, "a": (x * s) ** 2}, given, cases=1)
    assert report, report
