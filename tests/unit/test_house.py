"""Rules of the code that neither ruff nor import-linter (`make lint`) can express.

Each rule is a function from a syntax tree to complaints. Each is also shown lines that break it,
because a rule that finds nothing anywhere would pass as well.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
LIBRARY = sorted((PROJECT / "tf_dpce").rglob("*.py"))
MODELS = sorted((PROJECT / "tf_dpce" / "models").glob("*.py"))
OUTSIDE = [
    path
    for name in ("pipelines", "benchmarks", "examples")
    for path in (PROJECT / name).glob("*.py")
]
MAX_LINES = 300
# The log goes to stderr; a verification is a process of its own.
TALKERS = ("logging.py", "session_process.py")

# Every draw is a function of a seed that is handed in; what is not listed keeps a hidden state.
STATELESS = {
    "random": ("Random",),
    "tensorflow.random": (
        *("experimental", "fold_in", "split"),
        *("stateless_normal", "stateless_truncated_normal", "stateless_uniform"),
        *("stateless_categorical", "stateless_binomial"),
    ),
}
# Functions and classes of official.vision.ops that draw for themselves.
AUGMENTERS = ("rand", "autoaug", "mix")


def _imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yields (local name, full dotted name) of everything imported, inside functions as well."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                # `import a.b` binds `a`; `import a.b as c` binds a.b.
                full = alias.name if alias.asname else alias.name.split(".")[0]
                yield alias.asname or full, full
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


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


def _calls(tree: ast.AST) -> Iterator[tuple[ast.Call, str]]:
    """Yields every call with the full dotted name of what is called."""
    names = dict(_imports(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            root, _, rest = (_dotted(node.func) or "").partition(".")
            yield node, ".".join(filter(None, (names.get(root, root), rest)))


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
    shuffled = [call for call, name in _calls(tree) if name.endswith(".shuffle")]
    return found + [".shuffle(" for call in shuffled if id(call) not in in_place]


def gives_replicas_one_mask(tree: ast.AST) -> list[str]:
    return [name for _, name in _calls(tree) if name == "keras.layers.Dropout"]


def talks_to_a_terminal(tree: ast.AST) -> list[str]:
    banned = ("sys.stdout", "sys.stderr", "sys.argv")
    return [name for name in _uses(tree) if name in banned]


def loads_code_from_files(tree: ast.AST) -> list[str]:
    safe = {"allow_pickle": False, "safe_mode": True}
    return [
        keyword.arg
        for call, _ in _calls(tree)
        for keyword in call.keywords
        if keyword.arg in safe
        and not (
            isinstance(keyword.value, ast.Constant) and keyword.value.value is safe[keyword.arg]
        )
    ]


RULES = {
    draws_with_hidden_state: [*LIBRARY, *(PROJECT / "pipelines").glob("*.py")],
    gives_replicas_one_mask: MODELS,
    talks_to_a_terminal: [path for path in LIBRARY if path.name not in TALKERS],
    loads_code_from_files: [*LIBRARY, *OUTSIDE],
}
BROKEN = {
    draws_with_hidden_state: [
        "import tensorflow as tf\ntf.random.uniform([2])",
        "import tensorflow as tf\ntf.random.Generator.from_seed(1)",
        "import tensorflow as tf\ntf.image.random_flip_left_right(x)",
        "from tensorflow import random\nrandom.normal([2])",
        "from official.vision.ops import preprocess_ops\npreprocess_ops.random_crop_image(x)",
        "from official.vision.ops.preprocess_ops import random_horizontal_flip",
        "from official.vision.ops import augment\naugment.RandAugment()",
        "dataset.shuffle(1000).batch(2)",
        "import random\nrandom.random()",
    ],
    gives_replicas_one_mask: [
        "from keras import layers\nx = layers.Dropout(0.5)(x)",
        "import keras\nx = keras.layers.Dropout(0.5)(x)",
        "from keras.layers import Dropout\nx = Dropout(0.5)(x)",
    ],
    talks_to_a_terminal: ["import sys\nsys.stderr.write('done')", "from sys import argv"],
    loads_code_from_files: [
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=trusted)",
        "keras.models.load_model(path, safe_mode=False)",
    ],
}
ALLOWED = {
    draws_with_hidden_state: [
        "import tensorflow as tf\ntf.random.stateless_uniform([2], seed)",
        "import tensorflow as tf\ntf.random.experimental.index_shuffle(i, seed, n)",
        "from official.vision.ops import preprocess_ops\npreprocess_ops.resize_and_crop_image(x)",
        "import random\nrandom.Random(7).choice([1, 2])",
        "def order(words, draws):\n    draws.shuffle(words)",
    ],
    gives_replicas_one_mask: ["import keras\nclass RowDropout(keras.layers.Dropout):\n    pass"],
    talks_to_a_terminal: ["import sys\nsys.modules"],
    loads_code_from_files: ["np.load(path, allow_pickle=False)"],
}


def test_the_code_keeps_the_rules():
    for rule, paths in RULES.items():
        assert paths
        assert _complaints(rule, paths) == []


def test_the_rules_can_fail():
    for rule, sources in BROKEN.items():
        for source in sources:
            assert rule(ast.parse(source)) != [], source
    for rule, sources in ALLOWED.items():
        for source in sources:
            assert rule(ast.parse(source)) == [], source


def test_no_module_is_longer_than_a_few_screens():
    lengths = {path: path.read_text().count("\n") for path in [*LIBRARY, *OUTSIDE]}
    assert {str(path): lines for path, lines in lengths.items() if lines > MAX_LINES} == {}


def _complaints(rule: Callable[[ast.AST], list[str]], paths: list[Path]) -> list[str]:
    return [
        f"{path.relative_to(PROJECT)}: {complaint}"
        for path in paths
        for complaint in rule(ast.parse(path.read_text()))
    ]
