"""Versions of the software that a verdict depends on."""

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from manual_bptt import __version__

LIBRARIES = ("jax", "jaxlib", "numpy")


@cache
def find_versions() -> dict[str, str]:
    """Find the versions of this package, its libraries and Python."""
    found = {"verified-bptt": __version__}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # it may come from elsewhere than a package index
            found[name] = "unknown"
    return found | {"Python": platform.python_version()}
