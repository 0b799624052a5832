"""How the tests are run: three Hypothesis profiles, and JAX that refuses to mix dtypes.

`pytest --hypothesis-profile=NAME` chooses a profile; without it, `dev`. A test that gives a number
of examples of its own escapes all three.
"""

import os
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version

import jax
import pytest
from hypothesis import settings

from bptt_verifier.commands import main as command_line

# Most of the time goes into compiling what runs once. XLA reads this when it first computes, here
# and in every process that a test starts. `make test-deep` compiles as users do.
FLAGS = ["--xla_backend_optimization_level=0"]
if version("jaxlib").startswith("0.10."):  # later ones end the process at a flag they do not know
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("XLA_FLAGS", " ".join(FLAGS))

EXAMPLES = 25

# name       examples              the same examples every time
PROFILES = {
    "dev":  (EXAMPLES,             False),
    "ci":   (EXAMPLES,             True),
    "deep": (100 * EXAMPLES,       False),
}  # fmt: skip

for name, (max_examples, derandomize) in PROFILES.items():
    settings.register_profile(
        name,
        max_examples=max_examples,
        derandomize=derandomize,
        deadline=None,  # the first example of a test compiles, the others do not
        print_blob=True,
    )
settings.load_profile("dev")


def deep() -> bool:
    """Whether the deep profile was chosen: tests of a fixed list then go through all of it."""
    return settings().max_examples > EXAMPLES


@pytest.fixture(autouse=True)
def strict_dtype_promotion() -> Iterator[None]:
    """float64 that silently becomes float32 is the commonest false result: here it is an error.

    And 64-bit JAX, which the packages enable for a while, is off again after every test.
    """
    with jax.numpy_dtype_promotion("strict"):
        yield
    assert not jax.config.jax_enable_x64


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`bptt train` in this process, as the shell would call it; returns the exit code."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["bptt", "train", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            command_line.main()
        return int(ended.value.code or 0)

    return run
