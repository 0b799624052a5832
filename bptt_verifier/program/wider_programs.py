"""What JAX has traced in float32, in float64: the same operations, without their rounding.

Each float32 becomes a float64, and a conversion to float32 none. What is rounded to a shorter
format, as by a cast to bfloat16, or becomes an integer stays so.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, DropVar, Jaxpr, Literal, Var, jaxpr_as_fun

from bptt_verifier.problems.problem import Array
from bptt_verifier.program.by_jax import bind
from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.rounding import is_inexact
from bptt_verifier.program.trace import body_of

WIDER: dict[Any, Any] = {
    np.dtype(np.float32): np.dtype(np.float64),
    np.dtype(np.complex64): np.dtype(np.complex128),
}
EXPONENT, MANTISSA = 8, 23  # bits of float32
# Their functions are not traced, and return the format that they were written for.
OPAQUE = ("callback", "ffi", "pallas")


class Mode(NamedTuple):
    """The settings of JAX under which the user's code runs."""

    x64: bool
    promotion: Any

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Use these settings for a while."""
        with jax.enable_x64(self.x64), jax.numpy_dtype_promotion(self.promotion):
            yield


class Widening:
    """The conversion of what is traced in float32 to float64; each part is converted once.

    Constants that JAX has rounded are the `originals` again. What is traced on the way is so in the
    user's `mode`. Derivatives that functions state are kept, but not those `of_rules` themselves: a
    rule may call its function, and is not differentiated again.
    """

    def __init__(
        self, originals: Mapping[int, tuple[Any, Array]], mode: Mode, *, of_rules: bool = False
    ) -> None:
        self.originals, self.mode, self.of_rules = originals, mode, of_rules
        self.known: dict[int, tuple[Jaxpr, Jaxpr]] = {}

    def close(self, closed: ClosedJaxpr) -> ClosedJaxpr:
        """Widen a jaxpr and its constants, which become copies: JAX's own would stay interned."""
        return ClosedJaxpr(self.widen(closed.jaxpr), [*map(self.convert, closed.consts)])

    def convert(self, constant: Any) -> Any:
        """Widen a constant."""
        if jnp.issubdtype(constant.dtype, jax.dtypes.extended):  # a random key
            return constant
        _, original = self.originals.get(id(constant), (None, constant))
        return np.array(original, WIDER.get(constant.dtype, constant.dtype))

    def widen(self, jaxpr: Jaxpr) -> Jaxpr:
        """Widen a jaxpr."""
        if id(jaxpr) not in self.known:
            self.known[id(jaxpr)] = jaxpr, self.widen_anew(jaxpr)
        return self.known[id(jaxpr)][1]

    def widen_anew(self, jaxpr: Any) -> Jaxpr:
        """Widen a jaxpr that is not known."""
        variables: dict[Any, Any] = {}

        def atom(old: Any) -> Any:
            aval = widen_aval(old.aval)
            if isinstance(old, Literal):
                return make_literal(old.val, aval)
            if isinstance(old, DropVar):
                return DropVar(aval)
            return variables.setdefault(old, Var(aval))

        equations = [
            each
            for equation in jaxpr.eqns
            for each in self.convert_equation(
                equation, [*map(atom, equation.invars)], [*map(atom, equation.outvars)]
            )
        ]
        ends = {name: [*map(atom, getattr(jaxpr, name))] for name in ENDS}
        widened: Jaxpr = jaxpr.replace(eqns=equations, **ends)
        return widened

    def convert_equation(self, equation: Any, inputs: list[Any], outputs: list[Any]) -> list[Any]:
        """Widen an equation between these atoms; raises TypeError where that cannot be done."""
        name, params = equation.primitive.name, equation.params
        if any(word in name for word in OPAQUE) and outputs:
            raise TypeError(f"what {name} computes is not known")
        if name == "bitcast_convert_type":
            return keep_bits(equation, inputs, outputs)
        if name == "reduce_precision" and outputs[0].aval is not equation.outvars[0].aval:
            bits = params["exponent_bits"], params["mantissa_bits"]
            if bits[0] >= EXPONENT and bits[1] >= MANTISSA:
                return [convert_between(equation, inputs[0], outputs[0])]
        if name.startswith("custom_jvp_call"):
            return [self.keep_rule(equation, inputs, outputs, self.make_pushed)]
        if name.startswith("custom_vjp_call"):
            return [self.keep_rule(equation, inputs, outputs, self.make_pulled)]
        wide = {key: self.widen_value(value) for key, value in params.items()}
        return [equation.replace(invars=inputs, outvars=outputs, params=wide)]

    def widen_value(self, value: Any) -> Any:
        """Widen a parameter of an operation: a format, a jaxpr, or what holds some."""
        if isinstance(value, ClosedJaxpr):
            return self.close(value)
        if isinstance(value, Jaxpr):
            return self.widen(value)
        if isinstance(value, np.dtype):
            return WIDER.get(value, value)
        if isinstance(value, tuple | list):
            parts = [*map(self.widen_value, value)]
            return value._make(parts) if hasattr(value, "_make") else type(value)(parts)
        return widen_aval(value) if isinstance(value, jax.core.ShapedArray) else value

    def keep_rule(
        self, call: Any, inputs: list[Any], outputs: list[Any], make: Callable[..., Any]
    ) -> Any:
        """Widen the call of a function that has a derivative of its own, with its derivative."""
        smooth = [i for i, each in enumerate(call.invars) if is_inexact(each.aval.dtype)]

        def run(operands: Sequence[Any], chosen: Sequence[Any]) -> Any:
            replaced = dict(enumerate(operands)) | dict(zip(smooth, chosen, strict=True))
            return bind(call.primitive, call.params, *replaced.values())

        body = jaxpr_as_fun(self.close(body_of(call)))
        function = body if self.of_rules else make(call, body, run, smooth)
        with use_float64():
            closed = jax.make_jaxpr(jax.jit(function))(*map(describe, inputs))
        (equation,) = closed.jaxpr.eqns
        if closed.consts or len(equation.invars) != len(inputs):
            raise TypeError("the function has other operands")
        source: Any = {"source_info": call.source_info}
        return equation.replace(invars=inputs, outvars=outputs, **source)

    def trace_rule(self, rule: Callable[..., Any], *atoms: Sequence[Any]) -> Callable[..., Any]:
        """Trace a rule at these atoms, in the user's mode, and widen it."""
        with self.mode.hold():
            closed = jax.make_jaxpr(rule)(*([*map(describe, each)] for each in atoms))
        of_rules = Widening(self.originals, self.mode, of_rules=True)
        run: Callable[..., Any] = jaxpr_as_fun(of_rules.close(closed))
        return run

    def make_pushed(self, call: Any, body: Any, run: Any, smooth: Sequence[int]) -> Any:
        """Make the function of a call that states how tangents are pushed forward."""

        def push(operands: Sequence[Any], tangents: Sequence[Any]) -> Any:
            point = [operands[i] for i in smooth]
            return jax.jvp(lambda *chosen: run(operands, chosen), point, list(tangents))[1]

        rule = self.trace_rule(push, call.invars, [call.invars[i] for i in smooth])
        function = jax.custom_jvp(body)

        @function.defjvp
        def pushed(operands: Sequence[Any], tangents: Sequence[Any]) -> Any:
            return function(*operands), rule(*operands, *(tangents[i] for i in smooth))

        return function

    def make_pulled(self, call: Any, body: Any, run: Any, smooth: Sequence[int]) -> Any:
        """Make the function of a call that states how cotangents are pulled back."""

        def pull(operands: Sequence[Any], cotangents: Sequence[Any]) -> Any:
            point = [operands[i] for i in smooth]
            return jax.vjp(lambda *chosen: run(operands, chosen), *point)[1](list(cotangents))

        rule = self.trace_rule(pull, call.invars, call.outvars)

        def pulled(operands: Sequence[Any], cotangents: Sequence[Any]) -> Any:
            found = dict(zip(smooth, rule(*operands, *cotangents), strict=True))
            return tuple(found.get(i) for i in range(len(operands)))

        function = jax.custom_vjp(body)
        function.defvjp(lambda *operands: (body(*operands), operands), pulled)
        return function


ENDS = ("constvars", "invars", "outvars")  # the atoms of a jaxpr besides those of its equations


def widen_aval(aval: Any) -> Any:
    """Widen the type of a value; others are returned as they are."""
    wide = WIDER.get(getattr(aval, "dtype", None))
    return aval if wide is None else aval.update(dtype=wide)


def make_literal(value: Any, aval: Any) -> Any:
    """Make a literal of the shortest decimal that is rounded to this number in float32.

    Integers have the format that they were traced in, and not that of the mode in which they run.
    """
    number = np.asarray(value)
    exact: Any = number
    if is_inexact(aval.dtype) and not np.iscomplexobj(number):
        exact = float(str(np.float32(number)))
    make: Any = Literal
    return make(np.asarray(exact, aval.dtype), aval)


def describe(atom: Any) -> Any:
    """Describe the array that is the value of an atom."""
    make: Any = jax.ShapeDtypeStruct
    return make(atom.aval.shape, atom.aval.dtype)


def convert_between(equation: Any, given: Any, result: Any) -> Any:
    """Make the equation that converts an atom to the format of another, in place of this one."""
    params = {"new_dtype": result.aval.dtype, "weak_type": False, "sharding": None}
    return equation.replace(
        primitive=lax.convert_element_type_p, invars=[given], outvars=[result], params=params
    )


def keep_bits(equation: Any, inputs: list[Any], outputs: list[Any]) -> list[Any]:
    """Read numbers as the bits of float32 and bits as its numbers, as random numbers are made."""
    given, result = (Var(atom.aval) for atom in (equation.invars[0], equation.outvars[0]))
    return [
        convert_between(equation, inputs[0], given),
        equation.replace(invars=[given], outvars=[result]),
        convert_between(equation, result, outputs[0]),
    ]
