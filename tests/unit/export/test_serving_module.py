"""The exported endpoints, in a Session as TF Serving runs them."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from PIL import Image

from tests.samples import encoded
from tests.unit.export.tiny import SIZE, WIDTH, encode
from tf_dpce.export.serving_module import ServingModule, decode_images, input_signature
from tf_dpce.preprocessing import status
from tf_dpce.preprocessing.image import evaluation_pixels
from tf_dpce.preprocessing.image_header import check

BAD = (b"", b"GIF89a no image", b"\xff\xd8\xff\xe0 cut short", b"\x89PNG\r\n\x1a\n cut")
BAD_STATUS = [status.EMPTY, status.WRONG_TYPE, status.UNDECODABLE, status.UNDECODABLE]


def drawn(mode: str = "RGB", size: tuple[int, int] = (50, 40), seed: int = 0) -> Image.Image:
    """A smooth random image of any of Pillow's modes."""
    draw = np.random.default_rng(seed)
    coarse = Image.fromarray(draw.integers(0, 256, (4, 5, 3), np.uint8))
    colour = coarse.resize(size, Image.Resampling.BICUBIC)
    if mode == "I;16":
        return Image.fromarray(np.asarray(colour.convert("L")).astype(np.uint16) * 257)
    return colour.convert(mode)


JPEG = encoded(drawn(), "JPEG")
PNG = encoded(drawn(), "PNG")
ANIMATED = {"save_all": True, "append_images": [drawn(seed=1), drawn(seed=2)]}
ACCEPTED = {
    **{f"jpeg {mode}": encoded(drawn(mode), "JPEG") for mode in ("RGB", "L", "CMYK")},
    **{
        f"png {mode}": encoded(drawn(mode), "PNG")
        for mode in ("RGB", "L", "LA", "RGBA", "P", "1", "I;16")
    },
    **{f"{kind} 1x1": encoded(drawn(size=(1, 1)), kind) for kind in ("JPEG", "PNG")},
    "jpeg progressive": encoded(drawn(), "JPEG", progressive=True),
    "png 1x300": encoded(drawn(size=(1, 300)), "PNG"),
    "png animated": encoded(drawn(), "PNG", **ANIMATED),
    "jpeg with trailing bytes": JPEG + b"trailing",
    "png with trailing bytes": PNG + b"trailing",
}
REFUSED = [encoded(drawn(), kind) for kind in ("GIF", "BMP", "WEBP", "TIFF")]


def test_pixels_are_equal_eagerly_in_tf_data_and_in_the_graph():
    graph = tf.function(
        lambda c: decode_images(c, SIZE), input_signature=input_signature("encode_image")
    )
    for kind, content in ACCEPTED.items():
        eager = evaluation_pixels(tf.constant(content), SIZE).numpy()
        rows = tf.data.Dataset.from_tensors(content).map(lambda c: evaluation_pixels(c, SIZE))
        pixels, statuses = graph(tf.constant([content]))
        np.testing.assert_array_equal(rows.get_single_element(), eager, err_msg=kind)
        np.testing.assert_array_equal(pixels[0], eager, err_msg=kind)
        assert statuses.numpy().tolist() == [status.OK] == [int(check(tf.constant(content)))]


def test_batches_of_bad_images_alone_and_of_none_do_not_fail(served):
    bad, codes = [*BAD, *REFUSED], [*BAD_STATUS, *[status.WRONG_TYPE] * len(REFUSED)]
    for rows in ([], [0], [1], [2], [3], [*range(len(bad))] * 2):
        embeddings, statuses = encode(served, "encode_image", [bad[row] for row in rows])
        assert statuses.tolist() == [codes[row] for row in rows]
        assert embeddings.shape == (len(rows), WIDTH) and not embeddings.any()


def test_bad_image_costs_only_its_own_row(served):
    good = [encoded(drawn(seed=seed), "JPEG") for seed in range(6)]
    before, _ = encode(served, "encode_image", good)
    for row in (0, 3, 5):
        for bad in BAD:
            batch = [*good[:row], bad, *good[row + 1 :]]
            after, statuses = encode(served, "encode_image", batch)
            others = [other for other in range(6) if other != row]
            assert np.flatnonzero(statuses).tolist() == [row]
            assert not after[row].any()
            np.testing.assert_array_equal(after[others], before[others])


def test_rows_stay_in_the_order_of_the_batch(served):
    # Large and small in turn, so that decoding ends in another order than it begins.
    batch = [
        encoded(drawn(size=(2000, 1500) if seed % 2 else (8, 8), seed=seed), "JPEG")
        for seed in range(10)
    ]
    together, _ = encode(served, "encode_image", batch)
    alone = [encode(served, "encode_image", [content])[0][0] for content in batch]
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert len(np.unique(together.round(4), axis=0)) == len(batch)


def test_bomb_is_refused_by_its_header(served):
    # A PNG of 67 bytes that declares 100,000 x 100,000 pixels.
    bomb = PNG[:16] + (100_000).to_bytes(4, "big") * 2 + PNG[24:67]
    too_long = JPEG + bytes(status.MAX_BYTES)
    _, statuses = encode(served, "encode_image", [bomb, too_long, JPEG])
    assert statuses.tolist() == [status.TOO_MANY_PIXELS, status.TOO_MANY_BYTES, status.OK]


def test_limits_of_bytes_and_pixels_may_be_chosen(model, tokenizer):
    limits = status.Limits(max_bytes=30_000, max_pixels=20_000)
    # 200 x 100 pixels are the most; a file may be lengthened by bytes after its end.
    image = tf.io.encode_png(tf.zeros([100, 200, 3], tf.uint8)).numpy()
    larger = tf.io.encode_png(tf.zeros([100, 201, 3], tf.uint8)).numpy()
    longest, longer = (image + bytes(size - len(image)) for size in (30_000, 30_001))
    module = ServingModule(model, tokenizer, limits=limits)
    answer = module.encode_image(tf.constant([image, larger, longest, longer]))
    wanted = [status.OK, status.TOO_MANY_PIXELS, status.OK, status.TOO_MANY_BYTES]
    assert answer["status"].numpy().tolist() == wanted


def test_largest_batch_needs_no_new_trace(model, tokenizer):
    module = ServingModule(model, tokenizer)
    for endpoint, row in (("encode_image", PNG), ("encode_text", b"a dog")):
        function = tf.function(getattr(module, endpoint), input_signature(endpoint))
        for size in (3, 0, 1, 70):
            assert function(tf.constant([row] * size, tf.string))["status"].shape == (size,)
        assert function.experimental_get_tracing_count() == 1


def test_a_caption_has_a_status_and_a_bad_one_costs_only_its_own_row(served):
    cases = {
        b"A dog on the grass.": status.OK,
        b"two  CATS": status.OK,
        "Naïve 狗".encode(): status.OK,
        b"zebra dog zebra": status.OK,
        b"": status.EMPTY,
        b" \t\r\n": status.EMPTY,
        "\u00a0\u3000".encode(): status.EMPTY,
        b"zebra": status.NO_KNOWN_WORD,
        b"\x00": status.NO_KNOWN_WORD,
        b"\x01\x02\x1b[2J\x7f": status.NO_KNOWN_WORD,
        b"\xed\xa0\x80": status.NO_KNOWN_WORD,
        b"dog \xff": status.OK,
        b"dog " * 250_000: status.TOO_MANY_BYTES,
        b"x" * 1_000_000: status.TOO_MANY_BYTES,
        b"." * status.MAX_CAPTION_BYTES: status.NO_KNOWN_WORD,
        b"dog " * (status.MAX_CAPTION_BYTES // 4): status.OK,
    }
    embeddings, statuses = encode(served, "encode_text", list(cases))
    assert dict(zip(cases, statuses.tolist(), strict=True)) == cases
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), statuses == 0, atol=1e-5)
    # A bad caption costs only its own row, and a batch of bad ones, or of none, does not fail.
    good = statuses == status.OK
    captions = np.array(list(cases), object)
    found, _ = encode(served, "encode_text", list(captions[good]))
    np.testing.assert_allclose(found, embeddings[good], atol=1e-6)
    for rows in (~good, good & ~good):
        assert not encode(served, "encode_text", list(captions[rows]))[0].any()


def test_signatures_have_the_promised_names_types_and_shapes(served):
    def described(tensors) -> dict:
        return {
            name: (tf.as_dtype(t.dtype), [d.size for d in t.tensor_shape.dim])
            for name, t in tensors.items()
        }

    for endpoint, key in (("encode_image", "image"), ("encode_text", "text")):
        signature = served.meta_graph.signature_def[endpoint]
        assert described(signature.inputs) == {key: (tf.string, [-1])}
        assert described(signature.outputs) == {
            "embedding": (tf.float32, [-1, WIDTH]),
            "status": (tf.int32, [-1]),
        }
