"""Towers, losses and model run without TensorFlow: under JAX, with the import blocked."""

from __future__ import annotations

import pytest

from tests.blocked import WITHOUT_TENSORFLOW

PROGRAM = """
import keras
import numpy as np

from tf_dpce.losses import ContrastiveLoss, InstanceLoss, RankingLoss
from tf_dpce.models.dual_path import DualPath
from tf_dpce.models import (
    bag_of_words_tower, image_tower, recurrent_tower, small_text_tower, text_tower
)

assert keras.backend.backend() == "jax"
keras.utils.set_random_seed(0)
draw = np.random.default_rng(0)

# A real backbone (VGG has the fewest layers to compile), and the small one.
assert image_tower("VGG16", input_size=32, output_dim=8, head_dim=8).output_shape == (None, 8)
assert bag_of_words_tower(20, 8, 4, (8,), 8).output_shape == (None, 8)
for build in (recurrent_tower, small_text_tower):
    assert build(20, 8, 4, (8,), 8).predict(np.ones((2, 8), int), verbose=0).shape == (2, 8)
image = image_tower("small", input_size=16, output_dim=8, head_dim=8)
text = text_tower(20, 8, 4, (1, 1), 8, widths=(8, 8))

ids = np.arange(4)
pairs = np.zeros((4, 2, 4), np.float32)
pairs[np.arange(4), :, np.arange(4)] = 1
roles = np.stack([ids, np.arange(4)], axis=1)
# Perfect pairs, wrong cosines of 0: no hinge at margin 1; ln(1 + 3 / e) at temperature 1.
values = [
    float(InstanceLoss()(ids, np.zeros((4, 4), np.float32))),
    float(RankingLoss()(ids, pairs)),
    float(RankingLoss(negatives="paired")(roles, pairs)),
    float(ContrastiveLoss(1.0)(ids, pairs)),
]
np.testing.assert_allclose(values, [np.log(4), 0, 0, np.log1p(3 / np.e)], atol=1e-5)

model = DualPath(image, text, 4)
losses = {
    "image_logits": InstanceLoss(),
    "text_logits": InstanceLoss(),
    "pair": RankingLoss(negatives="paired"),
}
model.compile(keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True), losses)
inputs = {
    "image": draw.uniform(0, 255, (8, 16, 16, 3)).astype("float32"),
    "text": draw.integers(0, 21, (8, 8)),
}
rows = np.tile(ids, 2)
targets = {"image_logits": rows, "text_logits": rows, "pair": np.tile(roles, (2, 1))}
before = model.get_weights()
history = model.fit(inputs, targets, batch_size=4, epochs=1, shuffle=False, verbose=0).history
assert int(model.optimizer.iterations) == 2
assert all(np.isfinite(history["loss"]))
moved = [(a != b).any() for a, b in zip(before, model.get_weights())]
assert all(moved[: len(model.trainable_variables)])
vectors = model.text_encoder.predict(inputs["text"], verbose=0)
np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)

assert not [name for name in sys.modules if name.split(".")[0] == "tensorflow"]
"""


@pytest.mark.process
def test_the_model_trains_under_jax_without_tensorflow(run_program):
    run_program(WITHOUT_TENSORFLOW + PROGRAM, KERAS_BACKEND="jax", JAX_PLATFORMS="cpu")
