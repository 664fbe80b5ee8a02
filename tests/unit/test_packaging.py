"""What is shipped: the wheel, built offline from a copy of the sources."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import tf_dpce


@pytest.fixture(scope="module")
def wheel(project_root: Path, tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel; setuptools leaves `build/` in its sources, hence the copy."""
    sources = tmp_path_factory.mktemp("sources")
    for name in ("LICENSE", "README.md", "pyproject.toml", "requirements.txt"):
        shutil.copy(project_root / name, sources)
    for name in ("pipelines", "tf_dpce"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(project_root / name, sources / name, ignore=ignore)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", "dist", "."],
        cwd=sources,
        check=True,
    )
    (path,) = (sources / "dist").glob("*.whl")
    return zipfile.ZipFile(path)


def text(wheel: zipfile.ZipFile, ending: str) -> str:
    (name,) = (name for name in wheel.namelist() if name.endswith(ending))
    return wheel.read(name).decode()


def test_it_holds_every_module_and_preset_and_nothing_else(
    wheel: zipfile.ZipFile, project_root: Path
):
    wanted = [
        str(path.relative_to(project_root))
        for folder in ("tf_dpce", "pipelines")
        for pattern in "*.py *.yaml *.tsv *.md *.yml *.config *.css *.html *.js".split()
        for path in (project_root / folder).rglob(pattern)
    ]
    assert any(name.startswith("tf_dpce/presets/") and name.endswith(".yaml") for name in wanted)
    assert sorted(set(wanted) - set(wheel.namelist())) == []
    folders = {name.split("/")[0] for name in wheel.namelist()}
    assert folders == {"tf_dpce", "pipelines", f"tf_dpce-{tf_dpce.__version__}.dist-info"}


def test_it_installs_the_command_and_what_it_needs(wheel: zipfile.ZipFile, project_root: Path):
    assert "tf-dpce = pipelines.__main__:main" in text(wheel, "entry_points.txt")
    fields = Parser().parsestr(text(wheel, ".dist-info/METADATA"))
    assert fields["Version"] == tf_dpce.__version__
    assert fields["License-Expression"] == "Apache-2.0"
    lines = (project_root / "requirements.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    extras = [
        f'{pin}; extra == "{name}"'
        for name in ("docs", "heif", "milvus", "ray", "runtimes")
        for pin in lines_of(project_root, f"-{name}")
        if not pin.startswith(("#", "-r"))
    ]
    assert fields.get_all("Requires-Dist") == [*pins, *extras]


def lines_of(root: Path, suffix: str) -> list[str]:
    return (root / f"requirements{suffix}.txt").read_text().splitlines()


def test_every_requirement_is_pinned_exactly_and_alike(project_root: Path):
    pins: dict[str, str] = {}
    for path in sorted(project_root.glob("requirements*.txt")):
        for line in path.read_text().splitlines():
            pinned = re.fullmatch(
                r"#.*||-r requirements(?:-\w+)?\.txt|([\w\-\[\]]+)==([\d.]+)", line
            )
            assert pinned, f"{path}: {line}"
            name, version = pinned[1], pinned[2]
            assert name is None or pins.setdefault(name, version) == version, f"{path}: {line}"
    # The lists without TensorFlow. Keras brings h5py, which no other list names.
    others = {line for name in ("", "-dev", "-runtimes") for line in lines_of(project_root, name)}
    for name in ("-jax", "-light"):
        own = {line for line in lines_of(project_root, name) if not line.startswith(("#", "h5py"))}
        assert own - {""} <= others
        assert not [line for line in own if line.startswith(("tensorflow", "tf-", "-r"))]


def test_the_gpu_list_pins_the_same_tensorflow(project_root: Path):
    pinned = re.compile(r"tensorflow(?:\[and-cuda\])?==(.+)")
    found = [
        [match[1] for match in map(pinned.fullmatch, lines_of(project_root, suffix)) if match]
        for suffix in ("", "-gpu")
    ]
    assert found[0] == found[1] != []
