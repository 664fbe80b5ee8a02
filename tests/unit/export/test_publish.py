"""What an exported version holds, and what its card says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.errors import raises
from tests.unit.export.tiny import SIZE, WORDS, tiny_model
from tf_dpce.export.golden import record_examples
from tf_dpce.export.model_card import model_card
from tf_dpce.export.publish import export_model
from tf_dpce.export.serving_module import ServingModule
from tf_dpce.files import sha256_lines
from tf_dpce.models.fuse_batch_norm import folded
from tf_dpce.preprocessing import status
from tf_dpce.preprocessing.image import evaluation_pixels

ROW = {"r1": 12.34, "r5": 30.0, "r10": 50.0, "medr": 9.0, "meanr": 20.5}


def names(folder: Path) -> set[str]:
    return {item.name for item in folder.iterdir()}


def test_version_holds_everything(exported):
    whole = {"saved_model.pb", "variables", "assets.extra", "model_card.md", "files.sha256"}
    assert names(exported) >= whole and names(exported.parent) == {"1"}
    assert names(exported / "assets.extra") == {"examples.npz", "tf_serving_warmup_requests"}
    card = (exported / "model_card.md").read_text()
    for fact in (
        *("# tiny", "| data | drawn |", f"{SIZE} x {SIZE} pixels", "| vocabulary | 10 words |"),
        *(sha256_lines(WORDS), "Not evaluated."),
        *(f"| {code} | {reason} |" for code, reason in status.REASONS.items()),
    ):
        assert fact in card


def test_export_holds_only_the_variables_of_the_encoders(exported, model):
    shapes = [shape for _, shape in tf.train.list_variables(str(exported / "variables/variables"))]
    numbers = sum(int(np.prod(shape)) for shape in shapes if shape)
    # The classifier of 5 instances would add 5 (D + 1); two counters of the archive are scalars.
    encoders = [folded(encoder) for encoder in (model.image_encoder, model.text_encoder)]
    assert numbers == sum(encoder.count_params() for encoder in encoders)


def test_card_shows_metrics_of_several_protocols(model, tokenizer):
    metrics = {
        "people-test-all": {"image_to_text": ROW, "text_to_image": ROW, "rsum": 184.68},
        "people-test-cuhk_pedes": {
            "image_to_text": None,
            "text_to_image": {**ROW, "map": 11.0, "minp": 4.75},
            "rsum": None,
            "split_digest": "b329218869cc" + "0" * 52,
            "protocol": "cuhk_pedes",
        },
    }
    card = model_card("tiny", ServingModule(model, tokenizer), {}, metrics)
    numbers = "12.3 | 30.0 | 50.0 | 9.0 | 20.5"
    assert "| R@1 | R@5 | R@10 | MedR | MeanR | mAP | mINP | split digest | protocol |" in card
    assert f"| people-test-all | image to text | {numbers} |  |  |" in card
    more = "11.0 | 4.8 | b329218869cc | cuhk_pedes"
    pedes = f"| people-test-cuhk_pedes | text to image | {numbers} | {more} |"
    assert pedes in card
    assert "| people-test-cuhk_pedes | image to text" not in card
    assert "Not recorded." in card


@pytest.mark.full
def test_an_export_stretches_images_as_its_model_was_trained(model, tokenizer):
    module = ServingModule(model, tokenizer, resize="stretch")
    recorded = record_examples(module)["encode_image"]
    pixels = evaluation_pixels(tf.constant(recorded.inputs[0]), SIZE, resize="stretch")
    expected = model.image_encoder(pixels[tf.newaxis], training=False)[0]
    np.testing.assert_allclose(recorded.embeddings[0], expected, atol=1e-6)
    assert "stretched" in model_card("tiny", module, {}, {})


@pytest.mark.full
def test_weights_may_be_stored_in_float16(half, exported):
    reader = tf.train.load_checkpoint(str(half / "variables/variables"))
    types = reader.get_variable_to_dtype_map()
    kinds = [types[name] for name in reader.get_variable_to_shape_map()]
    # Every BatchNorm is within a matrix, or within the table of words; the rest are counters.
    assert kinds.count(tf.float16) > 8 >= kinds.count(tf.float32)
    sizes = [
        (folder / "variables/variables.data-00000-of-00001").stat().st_size
        for folder in (half, exported)
    ]
    assert sizes[0] < 0.6 * sizes[1]


def test_mistakes_are_refused_before_the_work(tokenizer, tmp_path):
    # Without a model: it is not looked at.
    for name in ("bad name", "it's", "naïve", ".."):
        with raises("export.name"):
            export_model(None, tokenizer, Path("saved_models") / name)
    for limits in ({"max_bytes": 1_000}, {"max_pixels": 2**31}):
        with raises("export.limits") as caught:
            export_model(None, tokenizer, tmp_path / "no", limits=status.Limits(**limits))
        assert next(iter(limits)) in str(caught.value)
    assert not (tmp_path / "no").exists()


@pytest.mark.process
def test_failed_verification_publishes_nothing(tokenizer, tmp_path):
    # A diverged model: what it answers is not even equal to itself.
    model = tiny_model()
    kernel = model.image_tower.trainable_variables[-2]
    kernel.assign(np.full(kernel.shape, np.nan))
    with raises("export.rejected", tmp_path / "tiny"):
        export_model(model, tokenizer, tmp_path / "tiny")
    assert names(tmp_path / "tiny") == set()
