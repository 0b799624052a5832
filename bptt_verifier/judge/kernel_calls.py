"""Calls of a kernel's backward: what it is handed, and what it returns, by name."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bptt_verifier.problems.problem import Array
from bptt_verifier.program.arguments import Arguments, convert_to_numpy, make_like
from bptt_verifier.program.attempt import USERS, Failure, attempt
from bptt_verifier.program.trees import list_leaves
from bptt_verifier.reference.point_arrays import rebuild_outputs, select_floating
from bptt_verifier.reference.pullbacks import Pullback
from bptt_verifier.report import Mistake

Arrays = Mapping[str, Array]
Answer = dict[str, Array] | Mistake
Copy = Callable[[Array], Array]


class KernelCalls:
    """A kernel's backward on the arguments of one setting.

    `values` computes the kernel's own outputs, if an adapter supplies them. `noun` names what is
    called.
    """

    noun = "backward"

    def __init__(self, backward: Callable[..., Any], pullback: Pullback) -> None:
        self.backward, self.pullback = backward, pullback
        self.arguments: Arguments = pullback.arguments
        self.values: Callable[[Any], Any] | None = getattr(backward, "values", None)

    def ask(self, point: Arrays, cotangents: Arrays, copy: Copy = np.array) -> Answer:
        """Pull cotangents back by the kernel; return gradients, or how it breaks the contract."""
        arguments = self.arguments.rebuild({n: copy(v) for n, v in point.items()})
        structure = self.arrange({n: copy(v) for n, v in cotangents.items()})
        before = [list_arrays(each) for each in (arguments, structure)]
        result = attempt(self.backward, arguments, structure, settings=USERS.get())
        if isinstance(result, Failure) and result.exception == "SignatureError":
            raise ValueError(result.what.removeprefix("SignatureError: "))
        if isinstance(result, Failure) and result.exception == "UnwrittenOutputError":
            said = result.what.removeprefix("UnwrittenOutputError: ")
            return Mistake("unwritten-output", f"{said}, whatever the memory held before.", {})
        if isinstance(result, Failure):
            said = f"your {self.noun} raised {result.what}. It was raised at {result.where}."
            return Mistake("raised", said, {"exception": result.exception})
        read = attempt(self.read, result)
        if isinstance(read, Failure):
            said = read.said.removeprefix("ValueError: ")
            return Mistake("wrong-shape", f"{said}.", {})
        after = [list_arrays(each) for each in (arguments, structure)]
        for what, old, new in zip(("arguments", "cotangents"), before, after, strict=True):
            if not all(np.array_equal(x, y, equal_nan=True) for x, y in zip(old, new, strict=True)):
                said = f"your {self.noun} modified its {what}: expected them to be unchanged."
                return Mistake("inputs-modified", said, {"modified": what})
        found: dict[str, Array] = read
        return found

    @property
    def results(self) -> Mapping[str, Any]:
        """Arrays of the shapes of all results, by name."""
        return self.arguments.leaves

    def arrange(self, cotangents: Arrays) -> Any:
        """Arrange cotangents in the structure of the outputs, as arrays like the arguments."""
        given = [each for _, each in list_leaves(self.arguments.given)]
        like = given[next(iter(self.arguments.places.values()))]
        arrays = {n: make_like(v, like) for n, v in cotangents.items()}
        return rebuild_outputs(self.pullback.structure, arrays)

    def read(self, result: Any) -> dict[str, Array]:
        """Read gradients by name. Raises ValueError where they do not fit the arguments."""
        return self.arguments.read(result)

    def compute_values(self, point: Arrays) -> Answer:
        """Compute the kernel's own outputs at a point."""
        assert self.values is not None
        arguments = self.arguments.rebuild({n: np.array(v) for n, v in point.items()})
        result = attempt(self.values, arguments, settings=USERS.get())
        if isinstance(result, Failure):
            said = f"your forward raised {result.what}. It was raised at {result.where}."
            return Mistake("raised", said, {"exception": result.exception})
        return select_floating(result)


def list_arrays(tree: Any) -> list[Array]:
    """List copies of the leaves of a pytree as arrays of numbers that can be compared."""
    arrays = [convert_to_numpy(leaf) for _, leaf in list_leaves(tree)]
    return [a.astype(np.float64) if a.dtype.kind not in "iub" else a.copy() for a in arrays]
