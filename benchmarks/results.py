"""Results of a run: samples in JSON, and the statistics computed from them."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.balanced import flop
from benchmarks.intervals import Interval, quartiles, ratio
from bptt_verifier.console.files import replacing
from bptt_verifier.problems.problem import Sizes

FORMAT = 1
LIMIT = "limit"
BYTES = {"bfloat16": 2, "float32": 4, "float64": 8}
IN_ORDER, JIT_IN_ORDER = "limit-in-order", "limit-jit-in-order"
# The matrix products alone, by NumPy and by XLA, and the least that a step does in its order.
LIMITS = (LIMIT, "limit-jit", IN_ORDER, JIT_IN_ORDER)


class Timing(NamedTuple):
    """The timing of one contender at one size.

    `seconds` are the seconds of one training step, by round; entry i of all contenders is the same
    round. `error` is the worst error of loss and gradients in units of the gate's allowed error,
    None without gradients. `exchanged_bytes` are those of the arrays that devices exchange in a
    step. `sizes` is None where every round is a different random case.
    """

    contender: str
    sizes: Sizes | None
    dtype: str
    seconds: list[float]
    compile_seconds: float | None = None
    temporary_bytes: int | None = None
    error: float | None = None
    exchanged_bytes: int | None = None

    @property
    def where(self) -> tuple[Sizes | None, str]:
        """The size and dtype; timings with the same ones were measured side by side."""
        return self.sizes, self.dtype

    @property
    def median(self) -> float:
        """The median of the rounds."""
        return quartiles(self.seconds)[1]

    @property
    def state_arrays(self) -> float | None:
        """The temporary memory in (T, B, H) arrays; the states alone need one."""
        if self.temporary_bytes is None or self.sizes is None:
            return None
        T, B, _, H, _ = self.sizes
        return self.temporary_bytes / (T * B * H * BYTES[self.dtype])


class Result(NamedTuple):
    """A run: its suite and seed, the machine, the timings, and notes on what was left out."""

    suite: str
    model: str
    baseline: str
    seed: int
    machine: dict[str, Any]
    timings: list[Timing]
    notes: list[str]
    ceilings: dict[str, float]

    @property
    def on_gpu(self) -> bool:
        """True if the contenders ran on a GPU."""
        return bool(self.machine["device"] != "cpu")

    @property
    def precision(self) -> str:
        """The dtypes of the timings, or TF32 where float32 products round to it."""
        tf32 = self.machine.get("precision", {}).get("jax matmul") == "tensorfloat32"
        return "TF32" if tf32 else ", ".join(dict.fromkeys(dtype for _, dtype in self.places()))

    def at(self, place: tuple[Sizes | None, str]) -> list[Timing]:
        """The timings of one size and dtype."""
        return [timing for timing in self.timings if timing.where == place]

    def beside(self, timing: Timing, contender: str) -> Timing | None:
        """The timing of another contender at the same size, or None."""
        return next(
            (t for t in self.timings if t.where == timing.where and t.contender == contender), None
        )

    def ratio(self, timing: Timing, to: str | None = None) -> Interval | None:
        """The speed relative to the baseline or another contender, or None if it did not run."""
        other = self.beside(timing, self.baseline if to is None else to)
        if other is None:
            return None
        together = min(len(other.seconds), len(timing.seconds))
        return ratio(other.seconds[:together], timing.seconds[:together])

    def share_of_limit(self, timing: Timing) -> Interval | None:
        """The limit's time ÷ the contender's: 1 is as fast as the matrix products alone."""
        return self.ratio(timing, LIMIT)

    def gigaflops(self, timing: Timing) -> float | None:
        """10⁹ floating-point operations per second, counted by the formula of `flop`."""
        if timing.sizes is None:
            return None
        return flop(self.model, timing.sizes) / timing.median / 1e9

    def places(self) -> list[tuple[Sizes | None, str]]:
        """The sizes and dtypes, in the order of measurement."""
        return list(dict.fromkeys(timing.where for timing in self.timings))

    def contenders(self) -> list[str]:
        """The names of the contenders that ran."""
        return list(dict.fromkeys(timing.contender for timing in self.timings))


def to_json(result: Result) -> str:
    """The result as JSON; samples have four digits, more than their accuracy."""
    plain = result._asdict() | {"format": FORMAT}
    plain["timings"] = [
        timing._asdict()
        | {
            "sizes": None if timing.sizes is None else timing.sizes._asdict(),
            "seconds": [float(f"{s:.4g}") for s in timing.seconds],
            "compile_seconds": shortened(timing.compile_seconds),
            "error": shortened(timing.error),
        }
        for timing in result.timings
    ]
    text = json.dumps(plain, indent=1, ensure_ascii=False)
    return joined_lists(text) + "\n"


def shortened(value: float | None) -> float | None:
    """The value rounded to three digits, or None."""
    return None if value is None else float(f"{value:.3g}")


def joined_lists(text: str) -> str:
    """JSON with every list of numbers on one line."""
    lines, inside = list[str](), False
    for line in text.splitlines():
        bare = line.strip()
        number = bare.rstrip(",").lstrip("-").replace(".", "").replace("e-", "").isdigit()
        if inside and (number or bare in ("]", "],")):
            lines[-1] += (" " if lines[-1].endswith(",") else "") + bare
        else:
            lines.append(line)
        inside = line.endswith("[") or (inside and number)
    return "\n".join(lines)


def from_json(text: str, source: str) -> Result:
    """Parse a result from JSON; `source` names it in messages.

    Raises ValueError where the text is not a result of this format.
    """
    try:
        plain = json.loads(text)
        if plain.pop("format") != FORMAT:
            raise ValueError("another format")
        timings = [
            Timing(
                **timing | {"sizes": None if timing["sizes"] is None else Sizes(**timing["sizes"])}
            )
            for timing in plain.pop("timings")
        ]
        for timing in timings:
            if not isinstance(timing.seconds, list) or not timing.seconds:
                raise ValueError("no samples")
            if not all(isinstance(s, float | int) and s > 0 for s in timing.seconds):
                raise ValueError("samples that are no durations")
        if not isinstance(plain["machine"], dict):
            raise ValueError("no description of the machine")
        return Result(timings=timings, **plain)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{source}: expected a result of these benchmarks, "
            f"found another text or format ({type(error).__name__}: {error})"
        ) from None


def read(path: Path) -> Result:
    """Read a result from a file. Raises ValueError where it holds none, and OSError."""
    return from_json(path.read_text(encoding="utf-8", errors="replace"), str(path))


def write(path: Path, text: str) -> None:
    """Write a text atomically: readers find the old text or the new one. Raises OSError."""
    with replacing(path) as file:
        file.write(text.encode())
