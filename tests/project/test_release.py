"""What is shipped, and under which number."""

import json
import re
import tomllib
import zipfile
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
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
    assert "bptt_verifier/report/page.jinja" in names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def list_relative_links(page: str) -> list[str]:
    """List the links of a page in Markdown that have no address of their own."""
    return re.findall(r"\]\((?!https?://)([^)]*)\)", page)


def test_no_link_of_the_readme_is_relative_on_a_package_index(tmp_path: Path) -> None:
    assert "docs/kernels.md" in list_relative_links((ROOT / "README.md").read_text("utf-8"))
    wheel = next(WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"]))
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        page = archive.read(metadata).decode().partition("\n\n")[2]
    assert list_relative_links(page) == []
    kernels = f"]({project()['urls']['Source']}/blob/main/docs/kernels.md)"
    assert kernels in page


def versions(root: Path = ROOT) -> dict[str, str]:
    """The version that each file which names one gives."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    patterns = {"CITATION.cff": r"(?m)^version: (\S+)$", "CHANGELOG.md": r"(?m)^## \[(\d[^]]*)\]"}
    literal = r'(?m)^__version__ = "(\S+)"$'
    patterns |= {f"{package}/__init__.py": literal for package in PACKAGES[:2]}
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
    for package in PACKAGES[:2]:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text('__version__ = "0.2.0"\n')
    assert set(versions(tmp_path).values()) == {"0.1.0", "0.2.0"}


def read_pins(name: str) -> list[str]:
    """The pins of a file of constraints."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not line.startswith("#")]


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-newest.txt"])
def test_the_constraints_are_pins_without_addresses_in_order(name: str) -> None:
    pins = read_pins(name)
    assert [pin for pin in pins if not re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", pin)] == []
    assert pins == sorted(pins)


def test_the_newest_constraints_pin_a_newer_jax_and_are_chosen_by_a_variable() -> None:
    usual, newest = (
        dict(pin.split("==") for pin in read_pins(name))
        for name in ("constraints.txt", "constraints-newest.txt")
    )
    numbers = [[int(n) for n in pins["jax"].split(".")] for pins in (usual, newest)]
    assert numbers[0] < numbers[1]
    assert newest["jax"] == newest["jaxlib"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "export PIP_CONSTRAINT := $(CONSTRAINTS)" in makefile


def test_the_three_packages_have_one_version() -> None:
    found = {import_module(package).__version__ for package in PACKAGES}
    assert found == {versions()["pyproject.toml"]}


def project(root: Path = ROOT) -> dict[str, Any]:
    """The metadata of the distribution."""
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    return dict(tomllib.loads(text)["project"])


def test_the_oldest_dependencies_are_those_that_the_project_allows() -> None:
    found = project()
    extras = found["optional-dependencies"]
    needed = [*found["dependencies"], *extras["plot"], *extras["certify"]]
    allowed = {name: bound for name, _, bound in (each.partition(">=") for each in needed)}
    lines = (ROOT / "constraints-oldest.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line)
    for name, bound in allowed.items():
        assert pins[name].startswith(f"{bound}."), name


def test_every_python_of_the_classifiers_is_in_the_matrix_of_the_workflow() -> None:
    workflow = (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    named = re.findall(r"Python :: (3\.\d+)", " ".join(project()["classifiers"]))
    assert f"python: {json.dumps(named)}" in workflow
    assert "os: [ubuntu-latest, macos-latest, windows-latest]" in workflow


def test_a_release_runs_only_on_a_tag_and_checks_the_files_that_it_publishes() -> None:
    workflow = (ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8")
    assert 'tags: ["v*"]' in workflow
    assert workflow.index("twine check --strict dist/*") < workflow.index("gh-action-pypi-publish")
    assert "id-token: write" in workflow.partition("publish:")[2]
    assert "id-token: write" not in workflow.partition("publish:")[0]


def test_addresses_are_the_same_in_the_metadata_and_in_the_citation() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    urls = project()["urls"]
    assert f'url: "{urls["Documentation"]}"' in citation
    assert f'repository-code: "{urls["Source"]}"' in citation
    assert all(address.startswith("https://") for address in urls.values())
