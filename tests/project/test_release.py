"""What is shipped, and under which number."""

import re
import tomllib
import zipfile
from pathlib import Path

from hatchling.builders.wheel import WheelBuilder

from tests.support.modules import PACKAGES, ROOT, modules


def test_the_wheel_ships_the_packages_only(tmp_path: Path) -> None:
    wheel = next(WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"]))
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    shipped = {name.partition("/")[0] for name in names}
    assert {name for name in shipped if not name.endswith(".dist-info")} == set(PACKAGES)
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)
    assert {name for name in names if name.endswith(".py")} == {
        str(file.relative_to(ROOT)) for package in PACKAGES for file in modules(package).values()
    }
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def versions(root: Path = ROOT) -> dict[str, str]:
    """The version that each file which names one gives."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    patterns = {"CITATION.cff": r"(?m)^version: (\S+)$", "CHANGELOG.md": r"(?m)^## \[(\d[^]]*)\]"}
    found = {"pyproject.toml": project["version"]}
    for name, pattern in patterns.items():
        match = re.search(pattern, (root / name).read_text(encoding="utf-8"))
        found[name] = match.group(1) if match else "none"
    return found


def test_all_files_name_the_same_version() -> None:
    assert len(set(versions().values())) == 1, versions()


def test_a_version_that_differs_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project]\nversion = '0.2.0'\n")
    (tmp_path / "CITATION.cff").write_text("cff-version: 1.2.0\nversion: 0.1.0\n")
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## [Unreleased]\n\n## [0.2.0]\n")
    assert set(versions(tmp_path).values()) == {"0.1.0", "0.2.0"}


def test_the_constraints_are_pins_without_addresses_in_order() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", pin)] == []
    assert pins == sorted(pins)
