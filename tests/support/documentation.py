"""The modules that build the documentation, which are no package."""

from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType

from tests.support.modules import ROOT


def load_builder(name: str) -> ModuleType:
    """A module of the folder `docs`, by its path there."""
    spec = spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
