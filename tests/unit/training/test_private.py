"""Keras is still what `training.private` was written for."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable

import keras
import pytest
from keras.src.backend.tensorflow import trainer

Trainer = trainer.TensorFlowTrainer
KERAS = {
    # They call `_maybe_symbolic_build(iterator=...)`, `make_*_function()`, then `*_function`.
    Trainer.fit: "a9a6dc02a7ddafa8",
    Trainer.evaluate: "a1facf6528168e8d",
    # They leave a function alone that is there.
    Trainer.make_train_function: "a9703da4a49beb28",
    Trainer.make_test_function: "ad5e9155b9298ef1",
    # Builds what is not built from whatever has shape and dtype.
    Trainer._symbolic_build: "96220cc3b88fe768",
    # The two faults. Where one is mended, the module may need less.
    Trainer._maybe_symbolic_build: "92a504f5eba9b29f",
    trainer.reduce_per_replica: "2e7d54b1e6edc29a",
}


def check_source(function: Callable, expected: str, version: str) -> None:
    found = hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:16]
    assert found == expected, (
        f"{function.__qualname__} is another in {version}: read it, run "
        "`pytest -m '' tests/unit/training/test_machines.py`, "
        "mend tf_dpce/training/keras_compat.py or "
        f"take out what is not needed any more, then write {found} here"
    )


@pytest.mark.parametrize(
    ("function", "digest"), KERAS.items(), ids=lambda value: getattr(value, "__qualname__", "")
)
def test_keras_is_as_it_was(function: Callable, digest: str):
    check_source(function, digest, f"Keras {keras.__version__}")


def test_another_source_is_told():
    with pytest.raises(AssertionError, match="check_source is another in Keras 9: read it, run"):
        check_source(check_source, "0" * 16, "Keras 9")
