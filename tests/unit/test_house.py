"""The rules of the house, read from the source itself.

Each rule is a function from a syntax tree to complaints; each is also shown a line that breaks it,
because a rule that finds nothing anywhere would pass as well.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
LIBRARY = sorted((PROJECT / "tf_dpce").rglob("*.py"))
PIPELINES = sorted((PROJECT / "pipelines").glob("*.py"))

# Data walks through the house in this direction: a room knows only those before it.
ROOMS = (
    *("errors", "files", "machine", "presets", "config", "sources", "preprocessing", "data"),
    *("towers", "losses", "model", "evaluation", "training", "offload", "studies", "export"),
    *("serving", "search", "benchmarks", "web"),
)
PURE_KERAS = ("towers", "losses", "model")
MAX_LINES = 300

# Every draw is a function of a seed that is handed in; what is not listed keeps a hidden state.
STATELESS = {
    "random": ("Random",),
    "numpy.random": ("default_rng", "Generator", "SeedSequence", "PCG64", "Philox"),
    "tensorflow.random": (
        *("experimental", "fold_in", "split"),
        *("stateless_normal", "stateless_truncated_normal", "stateless_uniform"),
        *("stateless_categorical", "stateless_binomial"),
    ),
}
# Functions and classes of official.vision.ops that draw for themselves.
AUGMENTERS = ("rand", "autoaug", "mix")


# --- reading the source ---------------------------------------------------------------------------


def _room(path: Path) -> str:
    return path.relative_to(PROJECT / "tf_dpce").parts[0].removesuffix(".py")


def _imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yields (local name, full dotted name) of everything imported, inside functions as well."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                # `import a.b` binds `a`; `import a.b as c` binds a.b.
                full = alias.name if alias.asname else alias.name.split(".")[0]
                yield alias.asname or full, full
                yield alias.name, alias.name
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                module = "." * node.level + (node.module or "")
                yield alias.asname or alias.name, f"{module}.{alias.name}"


def _dotted(node: ast.AST) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (base := _dotted(node.value)):
        return f"{base}.{node.attr}"
    return None


def _uses(tree: ast.AST) -> Iterator[str]:
    """Yields full dotted names of what is imported or used: `tf.io` becomes `tensorflow.io`."""
    names = dict(_imports(tree))
    yield from names.values()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (dotted := _dotted(node)):
            root, _, rest = dotted.partition(".")
            yield f"{names.get(root, root)}.{rest}"


def _calls(tree: ast.AST) -> Iterator[ast.Call]:
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.Call))


# --- the rules ------------------------------------------------------------------------------------


def imports_downwards(tree: ast.AST, room: str) -> list[str]:
    above = ROOMS[: ROOMS.index(room) + 1]
    names = [name for _, name in _imports(tree)]
    inside = [name.split(".")[1] for name in names if name.startswith("tf_dpce.")]
    return [f"imports {other}" for other in inside if other not in above and other in ROOMS] + [
        f"relative import {name}" for name in names if name.startswith(".")
    ]


def needs_tensorflow(tree: ast.AST) -> list[str]:
    banned = ("tensorflow", "tensorflow_text", "tf_keras", "official")
    return [name for _, name in _imports(tree) if name.split(".")[0] in banned]


def drops_alike_on_all_replicas(tree: ast.AST) -> list[str]:
    names = ("keras.layers.Dropout", "keras.random.dropout")
    used = dict(_imports(tree))
    called = [_dotted(call.func) or "" for call in _calls(tree)]
    full = [f"{used.get(root := name.split('.')[0], root)}{name[len(root) :]}" for name in called]
    return [name for name in full if name in names]


def talks_to_a_terminal(tree: ast.AST) -> list[str]:
    banned = ("argparse", "sys.stdout", "sys.stderr", "sys.argv")
    found = [name for name in _uses(tree) if name in banned]
    return found + ["print" for call in _calls(tree) if _dotted(call.func) == "print"]


def draws_with_hidden_state(tree: ast.AST) -> list[str]:
    found = []
    for name in _uses(tree):
        module, _, function = name.rpartition(".")
        if function not in STATELESS.get(module, (function,)):
            found.append(name)
        if module.startswith("official.") and function.lower().startswith(AUGMENTERS):
            found.append(name)
        if module == "tensorflow.image" and function.startswith("random_"):
            found.append(name)
    # A list is shuffled in place by a generator with a seed: its value is not used. That of a
    # data set is, and its buffer is a state that resuming would have to refill.
    in_place = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for call in _calls(tree):
        method = call.func.attr if isinstance(call.func, ast.Attribute) else None
        if method == "shuffle" and id(call) not in in_place:
            found.append(".shuffle(")
    return found


def runs_what_it_reads(tree: ast.AST) -> list[str]:
    banned = ("pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve")
    found = [name for _, name in _imports(tree) if name.split(".")[0] in banned]
    for call in _calls(tree):
        if _dotted(call.func) in ("eval", "exec"):
            found.append(_dotted(call.func))
        for keyword in call.keywords:
            allowed = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
            if keyword.arg == "allow_pickle" and not allowed:
                found.append("allow_pickle")
    return found + _unguarded_keras(tree) + _unsafe_yaml(tree)


def _unguarded_keras(tree: ast.AST) -> list[str]:
    """Finds what has Keras run code that a file holds: its layers may be any Python."""
    found = [name for name in _uses(tree) if name.endswith("enable_unsafe_deserialization")]
    for call in _calls(tree):
        for keyword in call.keywords:
            on = isinstance(keyword.value, ast.Constant) and keyword.value.value is True
            if keyword.arg == "safe_mode" and not on:
                found.append("safe_mode")
    return found


def _unsafe_yaml(tree: ast.AST) -> list[str]:
    """Finds loaders of YAML that make any object a file names."""
    safe, names = ("SafeLoader", "CSafeLoader"), dict(_imports(tree))
    loaders = ("Loader", "UnsafeLoader", "FullLoader", "CLoader", "CUnsafeLoader", "CFullLoader")
    banned = {f"yaml.{name}" for name in (*loaders, "unsafe_load", "full_load")}
    banned |= {"yaml.unsafe_load_all", "yaml.full_load_all"}
    found = [name for name in _uses(tree) if name in banned]
    for call in _calls(tree):
        root, _, rest = (_dotted(call.func) or "").partition(".")
        if ".".join(filter(None, (names.get(root, root), rest))) in ("yaml.load", "yaml.load_all"):
            given = [*call.args[1:], *(key.value for key in call.keywords if key.arg == "Loader")]
            if not any((_dotted(loader) or "").endswith(safe) for loader in given):
                found.append("yaml.load")
    return found


# --- the house keeps them -------------------------------------------------------------------------


def _complaints(paths: list[Path], rule: Callable[..., list[str]], with_room: bool) -> list[str]:
    lines = []
    for path in paths:
        tree = ast.parse(path.read_text())
        found = rule(tree, _room(path)) if with_room else rule(tree)
        lines += [f"{path.relative_to(PROJECT)}: {complaint}" for complaint in found]
    return lines


ROOMED = [path for path in LIBRARY if path != PROJECT / "tf_dpce" / "__init__.py"]
PURE = [path for path in ROOMED if _room(path) in PURE_KERAS]


def test_every_module_stands_in_a_room_of_the_house():
    assert sorted({_room(path) for path in ROOMED} - set(ROOMS)) == []


def test_a_module_imports_only_from_rooms_above_its_own():
    assert _complaints(ROOMED, imports_downwards, with_room=True) == []


def test_the_model_is_pure_keras():
    assert PURE, "towers, losses and model.py are there"
    assert _complaints(PURE, needs_tensorflow, with_room=False) == []


def test_dropout_is_by_the_row_of_the_global_batch():
    assert _complaints(PURE, drops_alike_on_all_replicas, with_room=False) == []


def test_the_library_neither_parses_nor_prints():
    assert _complaints(LIBRARY, talks_to_a_terminal, with_room=False) == []


def test_every_draw_is_a_function_of_its_seed():
    assert _complaints(LIBRARY + PIPELINES, draws_with_hidden_state, with_room=False) == []


def test_nothing_that_is_read_is_run():
    assert _complaints(LIBRARY + PIPELINES, runs_what_it_reads, with_room=False) == []


def test_no_module_is_longer_than_a_few_screens():
    lengths = {
        path.relative_to(PROJECT): path.read_text().count("\n") for path in LIBRARY + PIPELINES
    }
    assert {str(path): lines for path, lines in lengths.items() if lines > MAX_LINES} == {}


def test_importing_the_library_imports_nothing_heavy():
    code = (
        "import sys, tf_dpce; tf_dpce.__version__; dir(tf_dpce);"
        "print(sorted({'tensorflow', 'keras', 'numpy', 'jax', 'official'} & set(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert answer.stdout == "[]\n"


# --- the rules can fail ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        "from tf_dpce.training.run_folder import load_run",
        "from tf_dpce import export",
        "import tf_dpce.search.index",
        "def late():\n    from tf_dpce.evaluation import metrics",
        "from . import image",
    ],
)
def test_an_import_from_a_room_below_is_found(source: str):
    assert imports_downwards(ast.parse(source), "data") != []


def test_an_import_from_a_room_above_or_the_own_is_allowed():
    source = "from tf_dpce.errors import UserError\nfrom tf_dpce.data.shards import write_shards"
    assert imports_downwards(ast.parse(source), "data") == []


@pytest.mark.parametrize(
    "source",
    ["import tensorflow as tf", "from tensorflow import io", "from official.vision import ops"],
)
def test_tensorflow_in_the_model_is_found(source: str):
    assert needs_tensorflow(ast.parse(source)) != []


@pytest.mark.parametrize(
    "source",
    [
        "from keras import layers\nx = layers.Dropout(0.5)(x)",
        "import keras\nx = keras.layers.Dropout(0.5)(x)",
        "from keras.layers import Dropout\nx = Dropout(0.5)(x)",
        "import keras\nx = keras.random.dropout(x, 0.5)",
    ],
)
def test_dropout_of_keras_itself_is_found(source: str):
    assert drops_alike_on_all_replicas(ast.parse(source)) != []


def test_a_dropout_made_from_it_is_allowed():
    source = "import keras\nclass RowDropout(keras.layers.Dropout):\n    pass\nRowDropout(0.5)"
    assert drops_alike_on_all_replicas(ast.parse(source)) == []


@pytest.mark.parametrize(
    "source", ["import argparse", "print('done')", "import sys\nsys.stderr.write('done')"]
)
def test_talk_is_found(source: str):
    assert talks_to_a_terminal(ast.parse(source)) != []


@pytest.mark.parametrize(
    "source",
    [
        "import tensorflow as tf\ntf.random.uniform([2])",
        "import tensorflow as tf\ntf.random.shuffle(x)",
        "import tensorflow as tf\ntf.random.Generator.from_seed(1)",
        "import tensorflow as tf\ntf.image.random_flip_left_right(x)",
        "from tensorflow import random\nrandom.normal([2])",
        "from official.vision.ops import preprocess_ops\npreprocess_ops.random_crop_image(x)",
        "from official.vision.ops.preprocess_ops import random_horizontal_flip",
        "from official.vision.ops import augment\naugment.RandAugment()",
        "dataset = dataset.shuffle(1000)",
        "dataset.shuffle(1000).batch(2)",
        "import numpy as np\nnp.random.rand(3)",
        "import random\nrandom.random()",
    ],
)
def test_a_draw_with_hidden_state_is_found(source: str):
    assert draws_with_hidden_state(ast.parse(source)) != []


@pytest.mark.parametrize(
    "source",
    [
        "import tensorflow as tf\ntf.random.stateless_uniform([2], seed)",
        "import tensorflow as tf\ntf.random.experimental.index_shuffle(i, seed, n)",
        "import tensorflow as tf\ntf.image.stateless_random_crop(x, size, seed)",
        "from official.vision.ops import preprocess_ops\npreprocess_ops.resize_and_crop_image(x)",
        "import numpy as np\nnp.random.default_rng(7).permutation(3)",
        "import random\nrandom.Random(7).choice([1, 2])",
        "def order(words, draws):\n    draws.shuffle(words)",
    ],
)
def test_a_draw_from_a_seed_is_allowed(source: str):
    assert draws_with_hidden_state(ast.parse(source)) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=trusted)",
        "eval(text)",
        "keras.models.load_model(path, safe_mode=False)",
        "keras.models.load_model(path, safe_mode=trusted)",
        "import keras\nkeras.config.enable_unsafe_deserialization()",
        "from keras.config import enable_unsafe_deserialization",
        "import yaml\nyaml.load(text)",
        "import yaml\nyaml.load(text, Loader=yaml.FullLoader)",
        "import yaml\nyaml.load(text, yaml.Loader)",
        "import yaml as y\ny.load(text, Loader=chosen)",
        "import yaml\nyaml.load_all(text)",
        "from yaml import load\nload(text)",
        "import yaml\nyaml.unsafe_load(text)",
        "from yaml import full_load",
    ],
)
def test_running_what_is_read_is_found(source: str):
    assert runs_what_it_reads(ast.parse(source)) != []


@pytest.mark.parametrize(
    "source",
    [
        "np.load(path, allow_pickle=False)",
        "keras.models.load_model(path, safe_mode=True)",
        "import yaml\nyaml.safe_load(text)",
        "import yaml\nyaml.load(text, Loader=yaml.SafeLoader)",
        "import yaml\nyaml.load(text, yaml.CSafeLoader)",
        "import json\njson.load(stream)",
    ],
)
def test_loading_plain_data_is_allowed(source: str):
    assert runs_what_it_reads(ast.parse(source)) == []
