"""Gradients that are stated in the place of autodiff's. docs/derivation.md, section 17."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bptt_verifier.problems.problem import Array
from bptt_verifier.program.precision import use_float64
from bptt_verifier.reference.point_arrays import Arrays, Pulled, rebuild_outputs, widen
from bptt_verifier.reference.pullbacks import Pullback


class StatedPullback(Pullback):
    """A gradient that is stated in the place of autodiff's, as of an approximation on purpose."""

    def __init__(self, stated: Callable[[Any, Any], Any], forward: Pullback) -> None:
        super().__init__(forward.forward, forward.arguments)
        self.stated, self.true = stated, forward

    def find_structure(self) -> Any:
        """Find the structure of the outputs of the forward pass."""
        return self.true.structure

    def pull_back(self, points: Sequence[Arrays], cotangents: Sequence[Arrays]) -> Pulled:
        """Call the stated gradient at one point after the other, in float64."""
        found: dict[str, list[Array]] = {name: [] for name in points[0]}
        for point, given in zip(points, cotangents, strict=True):
            with use_float64():
                wide = self.arguments.rebuild(widen(point), like=False)
                result = self.stated(wide, rebuild_outputs(self.structure, widen(given)))
            for name, array in self.arguments.read(result).items():
                found[name].append(array.astype(np.float64))
        outputs = self.true.pull_back(points, cotangents).outputs
        return Pulled(outputs, {name: np.stack(arrays) for name, arrays in found.items()})

    def list_unconfirmed(
        self, points: Sequence[Arrays], cotangents: Sequence[Arrays], gradients: Arrays
    ) -> list[int]:
        """List none: what is stated is no derivative of the outputs."""
        return []

    def compute_outputs(self, points: Sequence[Arrays], cotangents: Sequence[Arrays]) -> Arrays:
        """Compute the outputs of the true function."""
        return self.true.compute_outputs(points, cotangents)

    def compute_carefully(self, points: Sequence[Arrays], cotangents: Sequence[Arrays]) -> Pulled:
        """Pull back in the true function."""
        return self.true.compute_carefully(points, cotangents)

    def restore_numbers(self, points: Sequence[Arrays], cotangents: Sequence[Arrays]) -> Pulled:
        """Restore numbers in the true pull-back: the operations of the stated one are unknown."""
        return self.true.restore_numbers(points, cotangents)

    def imitate_rounding(
        self, points: Sequence[Arrays], cotangents: Sequence[Arrays], dtype: Any
    ) -> Pulled:
        """Imitate rounding in the true pull-back: the operations of the stated one are unknown."""
        return self.true.imitate_rounding(points, cotangents, dtype)

    def find_overflows(
        self, points: Sequence[Arrays], cotangents: Sequence[Arrays], largest: float
    ) -> Pulled:
        """Find them in the true pull-back: the operations of the stated one are unknown."""
        return self.true.find_overflows(points, cotangents, largest)
