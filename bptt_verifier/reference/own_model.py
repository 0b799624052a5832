"""The user's own model: its loss, traced and differentiated, and the cases at points.

docs/derivation.md, section 10, has the rules.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.problems.problem import Array
from bptt_verifier.program.attempt import (
    CodeRaisedError,
    Failure,
    attempt,
    failure_of,
    is_interrupt,
)
from bptt_verifier.program.decisions import Decisions
from bptt_verifier.program.leaves import Tree
from bptt_verifier.program.paths import Followed, Paths, find_only
from bptt_verifier.program.precision import run_in_float64
from bptt_verifier.program.torch_losses import follows_values
from bptt_verifier.program.trace import Program
from bptt_verifier.reference.black_box import BlackBox
from bptt_verifier.reference.case import Case, Loss, Truth
from bptt_verifier.reference.own_cases import allow_beside_zeros, make_case, widen
from bptt_verifier.reference.points import SCALE, Point, draw_parameters
from bptt_verifier.tolerance.scatter import displace


class OwnModel(NamedTuple):
    """The user's loss, traced and differentiated, before the submission is called.

    `loss` is a function of the leaves of the parameters, and `trees` are their structures. A loss
    of PyTorch is `narrow` if it rounds to float32 inside. `params` are the settings given:
    parameters of one or several shapes. `in_numpy` is true if the loss is plain NumPy, and ignores
    the namespace that it is given, and `in_torch` if it is one of PyTorch, made a function of
    arrays; then `in_numpy` is true, too. `refusal` says why no verdict is possible, if none is, and
    `doubt` why agreement would show too little, if it would. `zeros` are the gradients that are
    zero, to rounding, at any point. `losses_differ` is true if the loss differs between NumPy and
    JAX. The loss raises an exception at the draws in `raising`. `untraced` says why the trace of a
    loss in plain NumPy serves for nothing; the reference is then the differences of the
    `black_box`.
    """

    loss: Loss
    params: tuple[dict[str, Array], ...]
    seed: int
    in_numpy: bool = False
    in_torch: bool = False
    paths: tuple[Paths, ...] = ()
    black_box: BlackBox | None = None
    untraced: str | None = None
    cases: tuple[Case, ...] = ()
    refusal: str | None = None
    notes: tuple[str, ...] = ()
    losses_differ: bool = False
    doubt: str | None = None
    zeros: frozenset[str] = frozenset()
    trees: tuple[Tree, ...] = ()
    narrow: bool = False
    raising: tuple[Point, ...] = ()

    @property
    def by_autograd(self) -> bool:
        """True if torch.autograd is the derivative of the loss: its code derives none by hand."""
        return self.in_torch and not follows_values(self.loss)

    @property
    def called(self) -> str:
        """The call of the loss in NumPy, as messages name it."""
        return "loss(params)" if self.in_numpy else "loss(params, numpy)"

    @property
    def loss_raised(self) -> bool:
        """True if no verdict is possible because the loss in NumPy raised an exception."""
        return (self.refusal or "").startswith(f"{self.called} raised ")

    @property
    def traced(self) -> str:
        """The call of the loss in JAX, as messages name it."""
        return "loss(params) over JAX" if self.in_numpy else "loss(params, jax.numpy)"

    def make_case(self, point: Point) -> Case:
        """Make the case of a point.

        Raises ValueError where there is no such setting, CodeRaisedError where the loss raises.
        """
        setting = point.setting
        if setting >= len(self.params):
            given = f"setting {setting + 1} of {len(self.params)}"
            raise ValueError(f"case: expected one of a setting of params, found {given}")
        unknown = [name for name in point.factors if name not in self.params[setting]]
        if unknown:
            known = ", ".join(self.params[setting])
            raise ValueError(f"case: expected factors of {known}, found one of {unknown[0]}")
        return self.make_case_of(self.draw(point), point)

    def make_case_of(self, params: dict[str, Array], point: Point) -> Case:
        """Make a case of these parameters, which may be others than those of the point.

        Raises CodeRaisedError where the loss raises.
        """
        if self.black_box is not None:
            with self.name_loss():
                found = self.black_box.make_case(params, point, self.seed)
        else:
            followed = run_in_float64(self.loss, lambda: self.follow(params, point.setting))
            found = make_case(followed, params, point.number, self.loss)
        found = found._replace(label=point.label, point=point)
        return allow_beside_zeros(found) if point.has_zeros else found

    def draw(self, point: Point) -> dict[str, Array]:
        """Draw the parameters of a point."""
        options: Any = {"near": point.near, "factors": point.factors, "digits": point.digits}
        given = self.params[point.setting]
        return dict(draw_parameters(given, seed=self.seed, case=point.number, **options))

    def displaced_case(self, case: Case, number: int, distance: float) -> Case:
        """Make a neighbour of a case, with jax.grad's values there; no error is allowed.

        Of a loss that cannot be traced, those of its differences alone are.

        Zeros are moved as well: where a bias is zero and its units are dead, nothing else would
        change a gradient, and its rounding error would be the same at all neighbours.
        Raises CodeRaisedError where the loss raises, as one of positive parameters may.
        """
        rng = np.random.default_rng([self.seed, number, 5])
        params = {
            name: displace(value, distance, rng, float(np.sqrt(np.mean(value**2))) or SCALE)
            for name, value in case.arguments.items()
        }
        if self.black_box is not None:
            with self.name_loss():
                value, slopes, errors = self.black_box.differentiate(params)
        else:
            errors = {}
            setting = case.point.setting
            followed = run_in_float64(self.loss, lambda: self.follow(params, setting))
            value, slopes = followed.loss, followed.slopes
        values = {"loss": np.asarray(value)} | {n: np.asarray(slopes[n]) for n in params}
        none = {name: np.zeros_like(value) for name, value in values.items()}
        known = Truth(values, none | errors)

        def truth(dtype: Any, names: Collection[str] = ()) -> Truth:
            return known

        return case._replace(arguments=params, truth=truth)

    def follow(self, params: Mapping[str, Array], setting: int) -> Followed:
        """Compute the loss and gradient at a point, on whatever path it takes there."""
        with self.name_loss():
            found = self.paths[setting].follow(widen(params), limited=False)
        assert found is not None
        return found

    @contextmanager
    def name_loss(self) -> Iterator[None]:
        """Raise CodeRaisedError, with the line of the loss, in the place of what it raises."""
        try:
            yield
        except BaseException as error:  # an assertion of the user's, or an exit
            if is_interrupt(error):
                raise
            found = failure_of(error, self.loss)
            raise CodeRaisedError(f"{self.called} raised {found.what} at {found.where}") from error

    def find_program(self, params: Mapping[str, Array], setting: int) -> Program | None:
        """Find the program of the path that the loss takes at a point; None of a black box."""
        if self.black_box is not None:
            return None
        paths = self.paths[setting]
        # Where zeros may be kept (N8), the gradient decides which of two programs is followed.
        only = None if paths.keeps_zeros else find_only(paths.known)
        return (only or self.follow(params, setting).path).program

    def retrace(
        self, params: Mapping[str, Array], setting: int, decisions: Decisions
    ) -> Program | None:
        """Trace the loss by decisions that may differ from its own; None where it raises then."""
        point, paths = widen(params), self.paths[setting]
        found = attempt(wraps(self.loss)(lambda: paths.retrace(point, decisions=decisions)))
        return None if isinstance(found, Failure) else found
