"""The exported endpoints, in a Session as TF Serving runs them."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.unit.export.tiny import SIZE, WIDTH
from tf_dpce.export.record import example_images
from tf_dpce.export.session import SessionModel, open_session
from tf_dpce.export.signatures import Signatures, decode_images, input_signature
from tf_dpce.preprocessing import status
from tf_dpce.preprocessing.image import evaluation_pixels
from tf_dpce.preprocessing.image_header import check

BAD = (b"", b"GIF89a no image", b"\xff\xd8\xff\xe0 cut short", b"\x89PNG\r\n\x1a\n cut")
BAD_STATUS = [status.EMPTY, status.WRONG_TYPE, status.UNDECODABLE, status.UNDECODABLE]


@pytest.fixture(scope="module")
def served(exported) -> Iterator[SessionModel]:
    with open_session(exported) as model:
        yield model


def drawn(mode: str = "RGB", size: tuple[int, int] = (50, 40), seed: int = 0) -> Image.Image:
    """A smooth random image of any of Pillow's modes."""
    draw = np.random.default_rng(seed)
    coarse = Image.fromarray(draw.integers(0, 256, (4, 5, 3), np.uint8))
    colour = coarse.resize(size, Image.Resampling.BICUBIC)
    if mode == "I;16":
        return Image.fromarray(np.asarray(colour.convert("L")).astype(np.uint16) * 257)
    return colour.convert(mode)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


JPEG = encoded(drawn(), "JPEG")
PNG = encoded(drawn(), "PNG")
ANIMATED = {"save_all": True, "append_images": [drawn(seed=1), drawn(seed=2)]}
ACCEPTED = {
    "jpeg": JPEG,
    "jpeg grey": encoded(drawn("L"), "JPEG"),
    "jpeg cmyk": encoded(drawn("CMYK"), "JPEG"),
    "jpeg progressive": encoded(drawn(), "JPEG", progressive=True),
    "jpeg 1x1": encoded(drawn(size=(1, 1)), "JPEG"),
    "png": PNG,
    "png grey": encoded(drawn("L"), "PNG"),
    "png grey, alpha": encoded(drawn("LA"), "PNG"),
    "png alpha": encoded(drawn("RGBA"), "PNG"),
    "png palette": encoded(drawn("P"), "PNG"),
    "png black and white": encoded(drawn("1"), "PNG"),
    "png 16 bits": encoded(drawn("I;16"), "PNG"),
    "png 1x1": encoded(drawn(size=(1, 1)), "PNG"),
    "png 1x300": encoded(drawn(size=(1, 300)), "PNG"),
    "png animated": encoded(drawn(), "PNG", **ANIMATED),
    "jpeg with trailing bytes": JPEG + b"trailing",
    "png with trailing bytes": PNG + b"trailing",
}
REFUSED = {
    "gif": encoded(drawn("P"), "GIF"),
    "gif animated": encoded(drawn(), "GIF", **ANIMATED),
    "bmp": encoded(drawn(), "BMP"),
    "webp": encoded(drawn(), "WEBP"),
    "tiff": encoded(drawn(), "TIFF"),
    "text": b"a dog",
}


@pytest.mark.parametrize("kind", ACCEPTED)
def test_image_of_every_accepted_kind_is_embedded(served, model, kind):
    embeddings, statuses = served.encode("encode_image", [ACCEPTED[kind]])
    assert statuses.tolist() == [status.OK]
    assert np.linalg.norm(embeddings) == pytest.approx(1, abs=1e-5)

    pixels = evaluation_pixels(tf.constant(ACCEPTED[kind]), SIZE)
    expected = model.image_encoder(pixels[tf.newaxis], training=False)
    np.testing.assert_allclose(embeddings, expected, atol=1e-5)


@pytest.mark.parametrize("kind", REFUSED)
def test_other_files_are_refused_by_their_first_bytes(served, kind):
    embeddings, statuses = served.encode("encode_image", [REFUSED[kind]])
    assert statuses.tolist() == [status.WRONG_TYPE]
    assert not embeddings.any()


@pytest.mark.parametrize("kind", ACCEPTED)
def test_pixels_are_equal_eagerly_in_tf_data_and_in_the_graph(kind):
    content = ACCEPTED[kind]
    eager = evaluation_pixels(tf.constant(content), SIZE).numpy()
    rows = tf.data.Dataset.from_tensors(content).map(lambda c: evaluation_pixels(c, SIZE))
    graph = tf.function(
        lambda c: decode_images(c, SIZE), input_signature=input_signature("encode_image")
    )
    pixels, statuses = graph(tf.constant([content]))
    np.testing.assert_array_equal(rows.get_single_element(), eager)
    np.testing.assert_array_equal(pixels[0], eager)
    assert statuses.numpy().tolist() == [status.OK] == [int(check(tf.constant(content)))]


def test_batch_of_none(served):
    for endpoint in ("encode_image", "encode_text"):
        embeddings, statuses = served.encode(endpoint, [])
        assert embeddings.shape == (0, WIDTH)
        assert statuses.shape == (0,)


@pytest.mark.parametrize(("content", "expected"), [*zip(BAD, BAD_STATUS, strict=True)])
def test_one_bad_image_alone(served, content, expected):
    embeddings, statuses = served.encode("encode_image", [content])
    assert statuses.tolist() == [expected]
    assert embeddings.shape == (1, WIDTH)
    assert not embeddings.any()


def test_all_bad_images(served):
    embeddings, statuses = served.encode("encode_image", BAD * 3)
    assert statuses.tolist() == BAD_STATUS * 3
    assert not embeddings.any()


@pytest.mark.parametrize("place", [0, 3, 5])
@pytest.mark.parametrize("bad", BAD)
def test_bad_image_costs_only_its_own_row(served, bad, place):
    good = [encoded(drawn(seed=seed), "JPEG") for seed in range(6)]
    before, _ = served.encode("encode_image", good)

    after, statuses = served.encode("encode_image", [*good[:place], bad, *good[place + 1 :]])

    others = [row for row in range(6) if row != place]
    assert np.flatnonzero(statuses).tolist() == [place]
    assert not after[place].any()
    np.testing.assert_array_equal(after[others], before[others])


def test_flipped_bits_never_fail_the_call_nor_change_another_row(served):
    # Most JPEGs with a flipped bit still decode, to other pixels: their own row may be anything.
    draw = np.random.default_rng(0)
    before, _ = served.encode("encode_image", [PNG] * 33)
    batch = []
    for _ in range(32):
        damaged = bytearray(JPEG if draw.random() < 0.5 else PNG)
        damaged[draw.integers(len(damaged))] ^= 1 << draw.integers(8)
        batch.append(bytes(damaged))
    after, statuses = served.encode("encode_image", [*batch, PNG])
    np.testing.assert_array_equal(after[-1], before[-1])
    assert statuses[-1] == status.OK
    lengths = np.linalg.norm(after, axis=1)
    np.testing.assert_allclose(lengths, statuses == status.OK, atol=1e-5)


def test_order_of_a_batch_is_kept(served):
    # Large and small in turn, so that decoding ends in another order than it begins.
    batch = [
        encoded(drawn(size=(2000, 1500) if seed % 2 else (8, 8), seed=seed), "JPEG")
        for seed in range(10)
    ]
    together, _ = served.encode("encode_image", batch)
    alone = [served.encode("encode_image", [content])[0][0] for content in batch]
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert len(np.unique(together.round(4), axis=0)) == len(batch)


def test_bomb_is_refused_by_its_header(served):
    # A PNG of 67 bytes that declares 100,000 x 100,000 pixels.
    bomb = PNG[:16] + (100_000).to_bytes(4, "big") * 2 + PNG[24:67]
    too_long = JPEG + bytes(status.MAX_BYTES)
    _, statuses = served.encode("encode_image", [bomb, too_long, JPEG])
    assert statuses.tolist() == [status.TOO_MANY_PIXELS, status.TOO_MANY_BYTES, status.OK]


def test_largest_batch_needs_no_new_trace(model, tokenizer):
    signatures = Signatures(model, tokenizer)
    for endpoint, row in (("encode_image", PNG), ("encode_text", b"a dog")):
        function = tf.function(
            getattr(signatures, endpoint), input_signature=input_signature(endpoint)
        )
        for size in (3, 0, 1, 70):
            assert function(tf.constant([row] * size, tf.string))["status"].shape == (size,)
        assert function.experimental_get_tracing_count() == 1


def test_statuses_of_sentences(served):
    cases = {
        "A dog on the grass.": status.OK,
        "two  CATS": status.OK,
        "Naïve 狗": status.OK,
        "(the)": status.OK,
        "zebra dog zebra": status.OK,
        "": status.EMPTY,
        " \t\r\n": status.EMPTY,
        "\u00a0\u3000": status.EMPTY,
        "zebra": status.NO_KNOWN_WORD,
        "...": status.NO_KNOWN_WORD,
        "\x00": status.NO_KNOWN_WORD,
        "\x01\x02\x1b[2J\x7f": status.NO_KNOWN_WORD,
        "dog " * 250_000: status.TOO_MANY_BYTES,
        "x" * 1_000_000: status.TOO_MANY_BYTES,
        "." * status.MAX_SENTENCE_BYTES: status.NO_KNOWN_WORD,
        "dog " * (status.MAX_SENTENCE_BYTES // 4): status.OK,
    }
    embeddings, statuses = served.encode("encode_text", [case.encode() for case in cases])
    assert dict(zip(cases, statuses.tolist(), strict=True)) == cases
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), statuses == 0, atol=1e-5)


def test_bad_sentence_costs_only_its_own_row(served):
    good = [b"a dog", b"two cats sleep", b"grass"]
    before, _ = served.encode("encode_text", good * 4)
    batch = good * 4
    for place, bad in ((1, b""), (4, b"dog " * 250_000), (5, b"\xff\xfe"), (9, b"\x00\x1b")):
        batch[place] = bad
    after, statuses = served.encode("encode_text", batch)
    others = np.setdiff1d(np.arange(12), [1, 4, 5, 9])
    assert np.flatnonzero(statuses).tolist() == [1, 4, 5, 9]
    np.testing.assert_allclose(after[others], before[others], atol=1e-6)
    assert not after[[1, 4, 5, 9]].any()


def test_all_bad_sentences(served):
    embeddings, statuses = served.encode("encode_text", [b"", b"x" * 1_000_000, b"zebra"])
    assert statuses.tolist() == [status.EMPTY, status.TOO_MANY_BYTES, status.NO_KNOWN_WORD]
    assert embeddings.shape == (3, WIDTH)
    assert not embeddings.any()


def test_sentence_that_is_not_utf8_does_not_fail(served):
    _, statuses = served.encode("encode_text", [b"\xff\xfe", b"dog \xff", b"\xed\xa0\x80"])
    assert statuses.tolist() == [status.NO_KNOWN_WORD, status.OK, status.NO_KNOWN_WORD]


def test_sentences_get_the_vectors_of_the_model(served, model, tokenizer):
    sentences = ["A dog on the grass", "two cats", "Sleep, dog.", "naïve 狗 sleep on two cats"]
    ids = tokenizer(tf.constant(sentences))
    expected = model.text_encoder(ids, training=False)
    embeddings, _ = served.encode("encode_text", [s.encode() for s in sentences])
    np.testing.assert_allclose(embeddings, expected, atol=1e-5)
    # Rows differ, so equality with the model says something.
    assert len(np.unique(embeddings.round(4), axis=0)) == len(sentences)


def test_ids_are_equal_eagerly_in_tf_data_and_in_a_graph(tokenizer):
    sentences = ["A dog, the 狗!", "", "cats (two) naïve-grass", "zebra", "a " * 20]
    eager = tokenizer(tf.constant(sentences)).numpy()
    rows = tf.data.Dataset.from_tensors(sentences).map(tokenizer)
    graph = tf.function(tokenizer, input_signature=input_signature("encode_text"))
    np.testing.assert_array_equal(rows.get_single_element(), eager)
    np.testing.assert_array_equal(graph(tf.constant(sentences)), eager)


def test_signatures_are_what_operators_call(served):
    signatures = served.meta_graph.signature_def
    for endpoint, key in (("encode_image", "image"), ("encode_text", "text")):
        taken = signatures[endpoint].inputs
        given = signatures[endpoint].outputs
        assert {name: (t.dtype, _shape(t)) for name, t in taken.items()} == {
            key: (tf.string.as_datatype_enum, [-1])
        }
        assert {name: (t.dtype, _shape(t)) for name, t in given.items()} == {
            "embedding": (tf.float32.as_datatype_enum, [-1, WIDTH]),
            "status": (tf.int32.as_datatype_enum, [-1]),
        }


def test_example_images_are_of_every_kind(served):
    _, statuses = served.encode("encode_image", example_images())
    found = {int(code) for code in statuses}
    expected = {status.EMPTY, status.WRONG_TYPE, status.TOO_MANY_PIXELS, status.UNDECODABLE}
    assert found == expected | {status.OK}


def _shape(tensor) -> list[int]:
    return [dimension.size for dimension in tensor.tensor_shape.dim]
