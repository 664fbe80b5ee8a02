"""The feature cache: the frozen backbone sees each image a few times, then no more."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.scenes import SIZE
from tf_dpce.config import ImageConfig, TextConfig
from tf_dpce.data.feature_cache import FeatureCache, cached_features, features_path
from tf_dpce.data.index_shuffle import IndexShuffle
from tf_dpce.data.input_pipeline import (
    evaluation_captions,
    evaluation_images,
    training_batches,
    view_batches,
)
from tf_dpce.logging import run_context
from tf_dpce.models.image_tower import image_backbone
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer
from tf_dpce.preprocessing.vocabulary import read_vocabulary

PLACES, VIEWS = 40, 3
IMAGE = ImageConfig("small", SIZE)
TEXT = TextConfig(max_length=PLACES)


@pytest.fixture(scope="module")
def data(scenes: Path, tmp_path_factory) -> Path:
    """A copy without the caches of other tests."""
    folder = tmp_path_factory.mktemp("features") / "data"
    return shutil.copytree(scenes, folder, ignore=shutil.ignore_patterns("features", "scenes"))


@pytest.fixture(scope="module")
def backbone() -> keras.Model:
    keras.utils.set_random_seed(0)
    return image_backbone("small", None, SIZE)


@pytest.fixture(scope="module")
def tokenizer(data: Path) -> CaptionTokenizer:
    return CaptionTokenizer(read_vocabulary(data / "vocabulary.txt"), PLACES, lowercase=True)


@pytest.fixture(scope="module")
def cached(
    backbone: keras.Model, data: Path, tokenizer: CaptionTokenizer
) -> Callable[..., FeatureCache]:
    def run(
        split: str, views: int = 1, image: ImageConfig = IMAGE, words: CaptionTokenizer = tokenizer
    ) -> FeatureCache:
        return cached_features(backbone, data, split, image, words, views, tf.function)

    return run


@pytest.fixture(scope="module")
def cache(cached: Callable[..., FeatureCache]) -> FeatureCache:
    return cached("train", VIEWS)


@contextmanager
def watched(update: Callable[[int, int], None]) -> Iterator[None]:
    """Calls `update` with what is done and the total, of every display in the block."""

    @contextmanager
    def display(description: str, transient: bool) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(update=lambda done, total=None, note="": update(done, total))

    with run_context(display=display):
        yield


def files(data: Path) -> set[str]:
    return {item.name for item in (data / "features").iterdir()}


def test_it_holds_what_the_backbone_says_of_each_view(
    cache: FeatureCache, backbone: keras.Model, data: Path
):
    assert cache.features.shape == (48, VIEWS, 2 * 2 * 128)
    assert cache.features.dtype == np.float16
    for view in range(VIEWS):
        pixels = view_batches(data, "train", IMAGE, view, 10).as_numpy_iterator()
        expected = backbone.predict(np.concatenate(list(pixels)), verbose=0)
        # Half precision keeps 11 bits.
        np.testing.assert_allclose(cache.features[:, view], expected, rtol=2e-3, atol=1e-3)
    assert np.abs(cache.features[:, 0] - cache.features[:, 1]).max() > 0.01


def test_it_holds_every_caption(cache: FeatureCache, data: Path, tokenizer: CaptionTokenizer):
    batches = list(evaluation_captions(data, "train", tokenizer, 100).as_numpy_iterator())
    ids = np.concatenate([batch["text"] for batch in batches])
    np.testing.assert_array_equal(cache.captions.ids, ids)
    owners = np.repeat(cache.captions.instances, np.diff(cache.captions.first))
    np.testing.assert_array_equal(owners, np.concatenate([b["instance"] for b in batches]))


def test_the_second_time_the_backbone_rests_whatever_the_head_and_the_words(
    cache: FeatureCache, cached: Callable, data: Path, tokenizer: CaptionTokenizer
):
    before, calls = files(data), []
    words = CaptionTokenizer(tokenizer.words[::-1], PLACES - 1, lowercase=True)
    with watched(lambda *call: calls.append(call)):
        again = cached("train", VIEWS, replace(IMAGE, head_dim=7), words)
    assert calls == [] and files(data) == before
    np.testing.assert_array_equal(again.features, cache.features)
    assert again.captions.ids.shape == (len(cache.captions.ids), PLACES - 1)
    first = [[tokenizer.words[i - 1] for i in row if i] for row in cache.captions.ids]
    second = [[words.words[i - 1] for i in row if i] for row in again.captions.ids]
    assert second == [row[: PLACES - 1] for row in first]
    # A missing one is computed, and says how far it is: one view of 12 images.
    with watched(lambda *call: calls.append(call)):
        cached("val")
    assert calls == [(12, 12)] and len(files(data)) == len(before) + 1


def test_another_backbone_flip_or_number_of_views_is_another_cache(
    backbone: keras.Model, data: Path
):
    keras.utils.set_random_seed(1)
    other = image_backbone("small", None, SIZE)
    paths = {
        features_path(network, data, "test", image, views)
        for network, image, views in (
            (backbone, IMAGE, 1),
            (other, IMAGE, 1),
            (backbone, replace(IMAGE, flip=False), 1),
            (backbone, replace(IMAGE, resize="stretch"), 1),
            (backbone, replace(IMAGE, rotation=5.0), 1),
            (backbone, replace(IMAGE, colour=0.2), 1),
            (backbone, replace(IMAGE, cutout=0.2), 1),
            (backbone, IMAGE, 2),
        )
    }
    assert len(paths) == 8


def test_training_from_it_is_training_through_the_backbone(
    cached: Callable, backbone: keras.Model, data: Path, tokenizer: CaptionTokenizer
):
    order = IndexShuffle(0, 48, 8)
    plain = replace(IMAGE, crop=False, flip=False)
    from_cache = cached("train", 1, plain).training_batches(TEXT, order, 2, 5).as_numpy_iterator()
    from_pixels = training_batches(data, tokenizer, plain, TEXT, order, 2, 5).as_numpy_iterator()
    for cached, direct in zip(from_cache, from_pixels, strict=True):
        np.testing.assert_array_equal(cached["instance"], direct["instance"])
        np.testing.assert_array_equal(cached["text"], direct["text"])
        features = backbone.predict(direct["image"], verbose=0)
        np.testing.assert_allclose(cached["image"], features, rtol=2e-3, atol=1e-3)
        assert cached["image"].dtype == np.float32


def test_training_takes_every_view_and_only_the_images_own(cache: FeatureCache):
    order, views = IndexShuffle(0, 48, 8), []
    place = {int(instance): row for row, instance in enumerate(cache.captions.instances)}
    for batch in cache.training_batches(TEXT, order, 0, 12).as_numpy_iterator():
        for features, instance in zip(batch["image"], batch["instance"], strict=True):
            own = cache.features[place[int(instance)]].astype(np.float32)
            views.append(int((own == features).all(axis=1).argmax()))
            assert (own[views[-1]] == features).all()
    # 96 draws of 3 views: 32 each on average, 4 standard deviations are 18.
    assert all(14 <= n <= 50 for n in np.bincount(views, minlength=VIEWS))


def test_a_later_start_and_a_share_of_the_rows_are_parts_of_the_whole(cache: FeatureCache):
    order = IndexShuffle(0, 48, 8)
    share = replace(order, part=1, parts=2)
    whole, resumed, own = (
        list(cache.training_batches(TEXT, rows, start, 9).as_numpy_iterator())
        for rows, start in ((order, 0), (order, 4), (share, 0))
    )
    for found, expected, first in ((resumed, whole[4:], 0), (own, whole, 4)):
        for batch, other in zip(found, expected, strict=True):
            for key in other:
                np.testing.assert_array_equal(batch[key], other[key][first:])


def test_evaluation_from_it_is_evaluation_through_the_backbone(
    cached: Callable, backbone: keras.Model, data: Path
):
    found = list(cached("val").evaluation_images(5).as_numpy_iterator())
    direct = list(evaluation_images(data, "val", SIZE, 5).as_numpy_iterator())
    assert [len(batch["image"]) for batch in found] == [5, 5, 2]
    for batch, expected in zip(found, direct, strict=True):
        np.testing.assert_array_equal(batch["instance"], expected["instance"])
        features = backbone(expected["image"], training=False)
        np.testing.assert_allclose(batch["image"], features, rtol=2e-3, atol=1e-3)


def test_a_file_that_was_cut_is_made_anew(cached: Callable, backbone: keras.Model, data: Path):
    path = features_path(backbone, data, "val", IMAGE, 1)
    cached("val")
    contents = path.read_bytes()
    for length in (0, 100, len(contents) // 2):
        path.write_bytes(contents[:length])
        cached("val")
        assert path.read_bytes() == contents


def test_a_full_disk_is_met_before_the_work(
    cached: Callable, data: Path, monkeypatch: pytest.MonkeyPatch
):
    asked, calls, before = [], [], files(data)

    def full(descriptor: int, start: int, length: int) -> None:
        asked.append((start, length))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError) as caught, watched(lambda *call: calls.append(call)):
        cached("test", 5)
    assert caught.value.errno == errno.ENOSPC
    assert "features" in caught.value.filename
    assert calls == [] and files(data) == before
    # 12 images, 5 views, 512 features of 2 bytes, and NumPy's header.
    ((start, length),) = asked
    assert start == 0 and 0 < length - 12 * 5 * 512 * 2 <= 256
