"""The rules of the house. Each has a test that holds it, and tests that break it.

What a rule forbids is found by a function that returns the violations it sees; the tests that
follow hand that function code that breaks the rule.
"""

import ast
import inspect
import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterable
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_reference import rnn, unrolled
from jax_reference.padded import Capacity
from tests.support.modules import PACKAGES, ROOT, imported, imports_of, modules, write_package

MAY_IMPORT_JAX = "manual_bptt.jitted"
TWINS = ["rnn", "lstm", "gru"]


def python(script: str, *arguments: str, root: Path = ROOT) -> Any:
    """What a script prints as JSON, run by a fresh interpreter that finds packages below `root`."""
    script = f"import sys; sys.path.insert(0, {str(root)!r})\n" + textwrap.dedent(script)
    run = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


# What is imported, as it is written and as it happens.


def loading_jax(names: list[str], root: Path = ROOT) -> list[str]:
    """The first of these modules after whose import JAX is there, if any."""
    return loading(["jax", "jaxlib"], names, root)


def loading(packages: list[str], names: list[str], root: Path = ROOT) -> list[str]:
    """The first of these modules after whose import one of the packages is there, if any."""
    script = """
        import importlib, json
        loaded, packages = [], set(json.loads(sys.argv[1]))
        for name in sys.argv[2:]:
            importlib.import_module(name)
            if not loaded and packages & sys.modules.keys():
                loaded.append(name)
        print(json.dumps(loaded))
    """
    return python(script, json.dumps(packages), *names, root=root)


def outside(package: str, names: Iterable[str]) -> list[str]:
    """Those of the names that are neither a package's nor of a module in it."""
    return [name for name in names if not f"{name}.".startswith(f"{package}.")]


def test_the_first_witness_never_imports_jax_but_in_one_package() -> None:
    names = outside(MAY_IMPORT_JAX, modules("manual_bptt"))
    assert names[0] == "manual_bptt"
    assert "manual_bptt.workspace" in names
    assert loading_jax(names) == []
    assert outside(MAY_IMPORT_JAX, imports_of({"jax", "jaxlib"}, "manual_bptt")) == []


@pytest.mark.rest
def test_a_loss_that_takes_its_namespace_imports_nothing_that_plain_numpy_needs() -> None:
    script = """
        import json
        import numpy as np
        from bptt_verifier import verify_own_model
        losses = {"xp": lambda p, xp: (p["w"] ** 2).sum(), "numpy": lambda p: (p["w"] ** 2).sum()}
        loss, params = losses[sys.argv[1]], {"w": np.ones(2)}
        assert verify_own_model(lambda p: {"w": 2 * p["w"]}, loss, params, cases=2)
        names = "numpy_arrays numpy_calls numpy_code numpy_namespace torch_trace user_objects"
        print(json.dumps([n for n in names.split() if f"bptt_verifier.program.{n}" in sys.modules]))
    """
    assert python(script, "xp") == []
    assert {"numpy_arrays", "numpy_code", "user_objects"} <= {*python(script, "numpy")}


def test_only_the_package_that_may_import_jax_is_left_out(tmp_path: Path) -> None:
    package = write_package(
        tmp_path, "witness", jitted_too="import jax", clean="", guilty="from witness import jitted"
    )
    write_package(tmp_path / package, "jitted", rnn="import jax")
    guilty = imports_of({"jax"}, package, tmp_path)
    assert sorted(guilty) == ["witness.jitted.rnn", "witness.jitted_too"]
    assert outside("witness.jitted", guilty) == ["witness.jitted_too"]
    (tmp_path / package / "jitted" / "__init__.py").write_text("from witness.jitted import rnn")
    names = outside("witness.jitted", modules(package, tmp_path))
    assert names == ["witness", "witness.clean", "witness.guilty", "witness.jitted_too"]
    assert loading_jax(names, tmp_path) == ["witness.guilty"]


def test_a_module_that_imports_jax_is_noticed_as_it_is_imported(tmp_path: Path) -> None:
    package = write_package(tmp_path, "witness", clean="import numpy", guilty="import jax.numpy")
    assert loading_jax(list(modules(package, tmp_path)), tmp_path) == ["witness.guilty"]


IMPORTS = {
    "plain": "import judge",
    "renamed": "import judge.bounds as something",
    "from": "from judge import bounds",
    "member": "from judge.bounds import gamma",
    "late": "def f():\n    import judge",
    "named": "import importlib\nimportlib.import_module('judge.bounds')",
    "bare": "from importlib import import_module\nimport_module('judge')",
    "builtin": "__import__('judge')",
    "computed": "import importlib\nimportlib.import_module('jud' + 'ge')",
    "relative": "from .. import judge",
    "relative_member": "from ..judge import bounds",
    "relative_named": "import importlib\nimportlib.import_module('..judge', __package__)",
}


@pytest.mark.parametrize("source", IMPORTS.values(), ids=IMPORTS)
def test_an_import_is_found_however_it_is_written(source: str, tmp_path: Path) -> None:
    write_package(tmp_path, "house")
    package = write_package(tmp_path / "house", "witness", guilty=source, clean="import numpy")
    names = {"judge", "house.judge", "house"} if "relative" in source else {"judge", "house"}
    assert imports_of(names, f"house/{package}", tmp_path) == ["house.witness.guilty"]


def test_an_import_of_something_else_is_no_false_alarm(tmp_path: Path) -> None:
    source = '''
        """import judge"""
        import judgement
        from numpy import judge
        from . import neighbour  # not the judge
        judge = "judge"
    '''
    package = write_package(tmp_path, "witness", clean=source, neighbour="")
    assert imports_of({"judge"}, package, tmp_path) == []


def test_neither_witness_imports_the_other() -> None:
    assert imports_of({"jax_reference"}, "manual_bptt") == []
    assert imports_of({"manual_bptt"}, "jax_reference") == []


@pytest.mark.parametrize("witness", ["manual_bptt", "jax_reference"])
def test_no_witness_imports_the_judge(witness: str) -> None:
    assert imports_of({"bptt_verifier"}, witness) == []


# The packages of the extra are imported where a certificate is asked for, and nowhere else.

OPTIONAL = ["flint", "sympy", "mpmath"]
CERTIFICATES = {
    *(f"bptt_verifier.proofs.{n}" for n in ("enclosures", "power_series", "rational", "symbolic")),
    *(f"bptt_verifier.proofs.{n}" for n in ("symbolic_tangents", "tangents")),
    "bptt_verifier.judge.certified",
}


@pytest.mark.rest
def test_nothing_but_the_certificates_imports_what_only_they_need() -> None:
    names = [name for package in PACKAGES for name in modules(package)]
    assert set(names) >= CERTIFICATES
    assert loading(OPTIONAL, [name for name in names if name not in CERTIFICATES]) == []
    guilty = {name for package in PACKAGES for name in imports_of(set(OPTIONAL), package)}
    assert guilty <= CERTIFICATES


def test_a_module_that_imports_the_extra_is_noticed(tmp_path: Path) -> None:
    package = write_package(tmp_path, "judge", clean="import numpy", guilty="from flint import arb")
    assert loading(OPTIONAL, list(modules(package, tmp_path)), tmp_path) == ["judge.guilty"]
    assert imports_of(set(OPTIONAL), package, tmp_path) == ["judge.guilty"]


def test_the_forward_pass_of_the_certificates_knows_neither_witness_nor_a_gradient() -> None:
    name = "bptt_verifier.proofs.forward_pass"
    file = modules("bptt_verifier")[name]
    assert {found.partition(".")[0] for found in imported(name, file)} <= {
        "collections", "typing", "numpy",
    }  # fmt: skip
    names = [
        each for node in ast.walk(ast.parse(file.read_text("utf-8"))) for each in names_in(node)
    ]
    assert [each for each in names if BY_HAND.search(each) or "grad" in each] == []


# The second witness derives nothing by hand: by what is written, and by what is returned.

TAMPERING = {
    *("custom_vjp", "custom_jvp", "defvjp", "defjvp", "defjvps", "custom_gradient"),
    *("custom_transpose", "linear_call", "stop_gradient"),
}
BY_HAND = re.compile(r"(^|_)(backward|bwd|derivative|vjp|jvp)$")


BY_JAX = {"jax_reference.tangents": {"jvp"}}  # from autodiff, as a test below shows


def derived_by_hand(package: str, root: Path = ROOT) -> list[str]:
    """The names in a package that tell JAX a derivative, keep one from it, or define one."""
    return [
        name
        for module, file in modules(package, root).items()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        for name in names_in(node)
        if name in TAMPERING or (isinstance(node, ast.FunctionDef) and BY_HAND.search(name))
        if not (isinstance(node, ast.FunctionDef) and name in BY_JAX.get(module, ()))
    ]


def names_in(node: ast.AST) -> list[str]:
    """The name a node uses, imports or defines."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name) | ast.FunctionDef(name=name):
            return [name]
        case ast.ImportFrom(names=aliases):
            return [alias.name for alias in aliases]
    return []


def test_the_second_witness_defines_no_derivative() -> None:
    # Truncation is the one place where a path is kept from JAX, and that is its meaning.
    assert derived_by_hand("jax_reference") == ["stop_gradient"]
    assert "jax.lax.stop_gradient" in inspect.getsource(unrolled.unroll)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("import jax\n@jax.custom_vjp\ndef phi(a): ...", "custom_vjp"),
        ("from jax import custom_jvp as c", "custom_jvp"),
        ("phi.defvjp(forward, other)", "defvjp"),
        ("straight = a + jax.lax.stop_gradient(b - a)", "stop_gradient"),
        ("def tanh_derivative(a): ...", "tanh_derivative"),
        ("class Cell:\n    def backward(self): ...", "backward"),
    ],
)
def test_a_derivative_by_hand_is_noticed(source: str, name: str, tmp_path: Path) -> None:
    package = write_package(tmp_path, "witness", guilty=source)
    assert name in derived_by_hand(package, tmp_path)


def test_what_only_sounds_like_a_derivative_is_no_false_alarm(tmp_path: Path) -> None:
    source = '''
        """No backward, no custom_vjp."""
        def derivatives(): return jax.value_and_grad(objective)  # the derivative is JAX's
        def backwards_in_time(): ...
    '''
    assert derived_by_hand(write_package(tmp_path, "witness", clean=source), tmp_path) == []


def without_gradients(transform: Callable[..., Any]) -> Callable[..., Any]:
    """`jax.value_and_grad`, except that every gradient is NaN."""

    @wraps(transform)
    def transformed(*arguments: Any, **options: Any) -> Callable[..., Any]:
        def differentiated(*at: Any) -> tuple[Any, Any]:
            value, gradient = transform(*arguments, **options)(*at)
            return value, jax.tree.map(
                lambda leaf: leaf * jnp.asarray(np.nan, leaf.dtype), gradient
            )

        return differentiated

    return transformed


def not_from_autodiff(
    function: Callable[..., Any], params: Any, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> list[str]:
    """The gradients a function still returns when those of `jax.value_and_grad` are NaN."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(3, 2, 2)), rng.normal(size=(2, 2))
    with monkeypatch.context() as patched, jax.disable_jit():
        patched.setattr(jax, "value_and_grad", without_gradients(jax.value_and_grad))
        found = function(params, x, y, **options)
    if hasattr(found, "_fields"):  # everything at once: leave out what is no gradient
        found = found._replace(loss=None, states=None)
    elif isinstance(found, tuple):
        _, found = found
    gradients = jax.tree_util.tree_leaves_with_path(found)
    assert gradients
    return [jax.tree_util.keystr(path) for path, leaf in gradients if not np.isnan(leaf).all()]


def parameters(module: str) -> Any:
    """Parameters, biases included, of the model that a module of the second witness is about."""
    model = import_module(f"manual_bptt.{module if module in TWINS else 'rnn'}")
    return model.init(np.random.default_rng(1), 2, 3, 2, bias=True)


GRADIENTS = [
    (module.rpartition(".")[2], node.name)
    for module, file in modules("jax_reference").items()
    for node in ast.parse(file.read_text(encoding="utf-8")).body
    if isinstance(node, ast.FunctionDef)
    and node.name in {"value_and_grad", "derivatives", "adjoints"}
]


@pytest.mark.table(10)
@pytest.mark.parametrize(("module", "name"), GRADIENTS)
def test_every_gradient_of_the_second_witness_comes_from_autodiff(
    module: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    function = getattr(import_module(f"jax_reference.{module}"), name)
    options = {"capacity": Capacity(3, 2, 2, 3, 2)} if module == "padded" else {}
    assert not_from_autodiff(function, parameters(module), monkeypatch, **options) == []


def not_from_forward_mode(
    function: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """The tangents a function still returns when those of `jax.jvp` are NaN."""

    def without_tangents(
        transformed: Callable[..., Any], at: Any, along: Any, **option: Any
    ) -> Any:
        value, tangent = JVP(transformed, at, along, **option)
        return value, jax.tree.map(lambda leaf: leaf * jnp.asarray(np.nan, leaf.dtype), tangent)

    JVP, rng, params = jax.jvp, np.random.default_rng(0), parameters("rnn")
    with monkeypatch.context() as patched, jax.disable_jit():
        patched.setattr(jax, "jvp", without_tangents)
        found = function(params, params, rng.normal(size=(3, 2, 2)), rng.normal(size=(2, 2)))
    found = found[1] if len(found) == 2 else found
    tangents = jax.tree_util.tree_leaves_with_path(found)
    assert tangents
    return [jax.tree_util.keystr(path) for path, leaf in tangents if not np.isnan(leaf).all()]


@pytest.mark.parametrize("name", ["jvp", "hvp"])
def test_every_tangent_of_the_second_witness_comes_from_autodiff(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    function = getattr(import_module("jax_reference.tangents"), name)
    assert not_from_forward_mode(function, monkeypatch) == []


def test_a_tangent_that_does_not_come_from_autodiff_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def by_hand(params: Any, direction: Any, x: Any, y: Any) -> tuple[Any, Any]:
        value, gradient = rnn.value_and_grad(params, x, y)
        return value, (np.asarray(gradient.c) * direction.c).sum()

    assert not_from_forward_mode(by_hand, monkeypatch) == [""]


def test_one_gradient_that_does_not_come_from_autodiff_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def partly_by_hand(params: Any, x: Any, y: Any) -> tuple[Any, Any]:
        value, gradient = rnn.value_and_grad(params, x, y)
        residual = 2 * (np.asarray(rnn.predict(params, x)) - y) / y.size
        return value, gradient._replace(c=residual.sum(axis=0))

    assert not_from_autodiff(partly_by_hand, parameters("rnn"), monkeypatch) == [".c"]


# Importing leaves the world as it was.


def changed_by_importing(names: list[str], root: Path = ROOT) -> dict[str, list[str]]:
    """What the import of each of these modules changed, beyond what its dependencies do."""
    ours = {name.partition(".")[0] for name in names}
    foreign = {
        found
        for package in ({*ours, *PACKAGES} if root == ROOT else ours)
        for module, file in modules(package, root).items()
        for found in imported(module, file)
        if found.partition(".")[0] not in {*ours, *PACKAGES}
    }
    script = """
        import importlib, json, logging, os, pickle, random, signal, warnings
        import jax
        import numpy as np

        signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored here
        names, foreign = json.loads(sys.argv[1])
        for name in foreign:
            while name:
                try:
                    importlib.import_module(name)
                    break
                except ImportError:  # the last part is a member, or it is not installed
                    name = name.rpartition(".")[0]

        def state():
            return {
                "jax.config": dict(jax.config.values),
                "os.environ": dict(os.environ),
                "numpy.random": pickle.dumps(np.random.get_state()),
                "numpy.errstate": np.geterr(),
                "numpy.printoptions": np.get_printoptions(),
                "random": random.getstate(),
                "warnings.filters": list(warnings.filters),
                "sys.path": list(sys.path),
                "sys.excepthook": sys.excepthook,
                "sys.recursionlimit": sys.getrecursionlimit(),
                "logging": (logging.root.level, list(logging.root.handlers)),
                "signal": signal.getsignal(signal.SIGINT),
            }

        changed = {}
        for name in names:
            before = state()
            importlib.import_module(name)
            after = state()
            if difference := [part for part in before if before[part] != after[part]]:
                changed[name] = difference
        print(json.dumps(changed))
    """
    return python(script, json.dumps([names, sorted(foreign)]), root=root)


@pytest.mark.rest
@pytest.mark.parametrize("packages", [PACKAGES, ["benchmarks"]], ids=["products", "benchmarks"])
def test_importing_changes_no_global_state(packages: list[str]) -> None:
    assert changed_by_importing([name for package in packages for name in modules(package)]) == {}


def test_global_state_that_changes_is_noticed(tmp_path: Path) -> None:
    sources = {
        "clean": ("import jax, numpy\nnumpy.random.default_rng(0).normal()", ""),
        "config": ("import jax\njax.config.update('jax_enable_x64', True)", "jax.config"),
        "environ": ("import os\nos.environ['JAX_ENABLE_X64'] = '1'", "os.environ"),
        "seeded": ("import numpy as np\nnp.random.seed(0)", "numpy.random"),
        "drawn": ("import random\nrandom.random()", "random"),
        "errors": ("import numpy as np\nnp.seterr(all='ignore')", "numpy.errstate"),
        "printing": ("import numpy as np\nnp.set_printoptions(3)", "numpy.printoptions"),
        "quiet": ("import warnings\nwarnings.simplefilter('ignore')", "warnings.filters"),
        "path": ("import sys\nsys.path.append('.')", "sys.path"),
        "hook": ("import sys\nsys.excepthook = print", "sys.excepthook"),
        "deep": ("import sys\nsys.setrecursionlimit(9999)", "sys.recursionlimit"),
        "logs": ("import logging\nlogging.basicConfig()", "logging"),
        "signals": ("import signal\nsignal.signal(2, signal.SIG_IGN)", "signal"),
    }
    package = write_package(
        tmp_path, "package", **{name: code for name, (code, _) in sources.items()}
    )
    expected = {f"package.{name}": [part] for name, (_, part) in sources.items() if part}
    assert changed_by_importing(list(modules(package, tmp_path)), tmp_path) == expected
