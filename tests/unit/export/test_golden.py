"""The golden examples and the warm-up requests that go with an export."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tests.errors import raises
from tests.unit.export.tiny import SIZE
from tf_dpce.export import ENDPOINTS, SIGNATURES
from tf_dpce.export.golden import EXAMPLES_FILE, Examples, load_examples, read_warmup, save_examples
from tf_dpce.preprocessing import status
from tf_dpce.preprocessing.image import evaluation_pixels


def test_examples_are_what_the_model_answers(exported, model, tokenizer):
    recorded = load_examples(exported)
    images, captions = recorded["encode_image"], recorded["encode_text"]
    for example in (images, captions):
        usable = example.statuses == status.OK
        assert usable.sum() >= 5
        assert (~usable).sum() >= 4
        assert not example.embeddings[~usable].any()
    bad = {status.EMPTY, status.WRONG_TYPE, status.TOO_MANY_PIXELS, status.UNDECODABLE}
    assert set(images.statuses.tolist()) == bad | {status.OK}
    for row in np.flatnonzero(images.statuses == status.OK):
        pixels = evaluation_pixels(tf.constant(images.inputs[row]), SIZE)
        expected = model.image_encoder(pixels[tf.newaxis], training=False)[0]
        np.testing.assert_allclose(images.embeddings[row], expected, atol=1e-6)
    for row in np.flatnonzero(captions.statuses == status.OK):
        ids = tokenizer(tf.constant([captions.inputs[row]]))
        expected = model.text_encoder(ids, training=False)[0]
        np.testing.assert_allclose(captions.embeddings[row], expected, atol=1e-6)


def test_byte_strings_of_examples_keep_their_zeros(tmp_path):
    inputs = (b"", b"\x00", b"a\x00\x00", b"\x00b", b"")
    example = Examples(inputs, np.zeros((5, 2), np.float32), np.zeros(5, np.int32))
    save_examples(tmp_path, dict.fromkeys(ENDPOINTS, example))
    assert load_examples(tmp_path)["encode_text"].inputs == inputs


def test_missing_and_damaged_examples_are_refused(tmp_path):
    path = tmp_path / EXAMPLES_FILE
    with raises("export.examples", path):
        load_examples(tmp_path)
    path.parent.mkdir()
    path.write_bytes(b"no zip")
    with raises("export.examples", path):
        load_examples(tmp_path)


def test_warm_up_holds_the_examples_of_all_signatures(exported):
    recorded, sizes = load_examples(exported), {}
    for signature, inputs in read_warmup(exported):
        endpoint = SIGNATURES[signature]
        assert list(inputs) == [ENDPOINTS[endpoint]]
        (batch,) = inputs.values()
        assert tuple(batch) == recorded[endpoint].inputs[: len(batch)]
        sizes.setdefault(signature, []).append(len(batch))
    assert sizes == {name: [1, len(recorded[e].inputs)] for name, e in SIGNATURES.items()}
