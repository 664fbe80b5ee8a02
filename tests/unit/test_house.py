"""Rules of the code that neither ruff nor import-linter (`make lint`) can express."""

from __future__ import annotations

import re
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
LIBRARY = sorted((PROJECT / "tf_dpce").rglob("*.py"))
VERBS = sorted((PROJECT / "pipelines").glob("*.py"))
OUTSIDE = [path for name in ("benchmarks", "examples") for path in (PROJECT / name).glob("*.py")]
MODELS = sorted((PROJECT / "tf_dpce" / "models").glob("*.py"))
# The log goes to stderr, which is filtered; a verification is a process of its own.
TALKERS = ("display.py", "logging.py", "native_noise.py", "session_process.py")

# Every draw is a function of a seed that is handed in; all else keeps a hidden state. A list is
# shuffled in place by a generator with a seed; the buffer of a data set that is shuffled is a state
# that resuming would have to refill.
HIDDEN_STATE = re.compile(
    r"\btf\.random\.(?!stateless_|split|fold_in|experimental\.(?:index_shuffle|stateless_))"
    r"|\btf\.image\.random_|\bfrom tensorflow\b.* import random"
    r"|(?<![\w.])random\.[a-z]|\bfrom random import"
    r"|_ops\.random_|\bimport random_|\b(?:Rand|Auto)Augment|\bMixup"
    r"|^(?!\s*\w+\.shuffle\().*\.shuffle\("
)
# Keras's own dropout gives every replica the same mask.
ONE_MASK = re.compile(r"\blayers\.Dropout\(|\bimport .*\bDropout\b")
TALK = re.compile(r"\bsys\.(?:stdout|stderr|argv)|\bfrom sys import")
# What a file holds is never run.
UNSAFE = re.compile(r"allow_pickle=(?!False)|safe_mode=(?!True)")

RULES = {
    # The pairs of a script of one's own are shuffled as Keras's users expect; it is not resumed.
    HIDDEN_STATE: [path for path in [*LIBRARY, *VERBS] if path.name != "pairs.py"],
    ONE_MASK: MODELS,
    TALK: [path for path in LIBRARY if path.name not in TALKERS],
    UNSAFE: [*LIBRARY, *VERBS, *OUTSIDE],
}
# A rule that finds nothing anywhere would pass as well.
BROKEN = {
    "tf.random.uniform([2])": HIDDEN_STATE,
    "tf.random.Generator.from_seed(1)": HIDDEN_STATE,
    "tf.image.random_flip_left_right(x)": HIDDEN_STATE,
    "preprocess_ops.random_crop_image(x)": HIDDEN_STATE,
    "augment.RandAugment()": HIDDEN_STATE,
    "rows = dataset.shuffle(1000).batch(2)": HIDDEN_STATE,
    "random.random()": HIDDEN_STATE,
    "x = keras.layers.Dropout(0.5)(x)": ONE_MASK,
    "sys.stderr.write('done')": TALK,
    "np.load(path, allow_pickle=trusted)": UNSAFE,
    "keras.models.load_model(path, safe_mode=False)": UNSAFE,
}


def test_the_code_keeps_the_rules():
    for rule, paths in RULES.items():
        assert paths
        lines = [(path, line) for path in paths for line in path.read_text().splitlines()]
        # Examples in docstrings are the user's code.
        assert [f"{p}: {x}" for p, x in lines if ">>> " not in x and rule.search(x)] == []


def test_the_rules_can_fail():
    assert [line for line, rule in BROKEN.items() if not rule.search(line)] == []
