"""The beginning of programs that must do without TensorFlow: it cannot be imported in them."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

WITHOUT_TENSORFLOW = '''
import sys
from importlib.machinery import PathFinder

BLOCKED = {"tensorflow", "tensorflow_text", "tf_keras"}


class Unblocked(PathFinder):
    """A finder of everything but TensorFlow."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        blocked = name.split(".")[0] in BLOCKED
        return None if blocked else super().find_spec(name, path, target)


sys.meta_path[:] = [Unblocked if each is PathFinder else each for each in sys.meta_path]
try:
    import tensorflow
except ImportError:
    pass
else:
    sys.exit("the block does not work")
'''


def only_with(requirements: Path) -> str:
    """The beginning of a program in which only what a list names, and needs, can be imported."""
    needed = _needed(requirements.read_text().splitlines())
    lacking = {
        module
        for module, owners in packages_distributions().items()
        if not needed & set(map(canonicalize_name, owners))
    }
    assert {"tensorflow", "keras", "tensorflow_serving"} <= lacking
    return f"{WITHOUT_TENSORFLOW}\nBLOCKED |= {lacking - {'tf_dpce', 'pipelines'}}\n"


def _needed(lines: list[str]) -> set[str]:
    """Names of the distributions that lines of requirements stand for, and of what these need."""
    wanted = [Requirement(line) for line in lines if line and not line.startswith("#")]
    found = set()
    while wanted:
        asked = wanted.pop()
        name = canonicalize_name(asked.name)
        if name in found:
            continue
        try:
            further = map(Requirement, distribution(name).requires or ())
        except PackageNotFoundError:
            continue  # of another system
        found.add(name)
        extras = asked.extras or {""}
        wanted += [
            each
            for each in further
            if not each.marker or any(each.marker.evaluate({"extra": extra}) for extra in extras)
        ]
    return found
