"""Batches of a bundle: each draw has its distribution, and comes again exactly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from tf_dpce.config import Config, from_dict
from tf_dpce.offload.batches import Pairs
from tf_dpce.offload.bundle import Split
from tf_dpce.preprocessing.image import crop_window

PICTURES, BATCH, SIDE, SIZE = 22, 4, 48, 32
STEPS = PICTURES // BATCH


def config(crop: bool = False, flip: bool = False, shift: bool = False, **loss: object) -> Config:
    stage = {"epochs": 1, "batch_size": BATCH, "loss": {"pair": 1.0, **loss}}
    image = {"input_size": SIZE, "crop": crop, "flip": flip}
    text = {"max_length": 6, "shift": shift}
    return from_dict({"image": image, "text": text, "stage1": stage, "stage2": stage})


@pytest.fixture(scope="module")
def split() -> Split:
    """Pictures that grow red to the right and green downwards; blue is their number.

    Picture n has the instance n // 2 and 1 + n % 3 captions of the words 10 * n + 1 and on.
    """
    ramp = np.arange(SIDE, dtype=np.uint8) * 5
    pictures = np.empty((PICTURES, SIDE, SIDE, 3), np.uint8)
    pictures[..., 0], pictures[..., 1] = ramp, ramp[:, None]
    pictures[..., 2] = np.arange(PICTURES)[:, None, None]
    shapes = np.stack([30 + np.arange(PICTURES), np.full(PICTURES, 50)], axis=1)
    counts = 1 + np.arange(PICTURES) % 3
    first = np.cumsum([0, *counts])
    ids = np.zeros((first[-1], 6), np.int32)
    for picture in range(PICTURES):
        for caption in range(counts[picture]):
            ids[first[picture] + caption, :2] = 10 * picture + 1 + caption
    instances = np.arange(PICTURES) // 2
    return Split(pictures, shapes.astype(np.int32), ids, first, instances)


def numbers(batch: tuple) -> np.ndarray:
    return batch[0]["image"][:, 0, 0, 2].astype(int)


def epoch(pairs: Pairs, number: int) -> list[tuple]:
    pairs.begin(number)
    return [pairs[step] for step in range(pairs.num_batches)]


def test_a_batch_is_what_network_and_losses_take(split: Split):
    pairs = Pairs(split, config(image_instance=0.0), stage=2)
    assert pairs.num_batches == STEPS
    inputs, targets = pairs[1]
    assert inputs["image"].shape == (BATCH, SIDE, SIDE, 3) and inputs["image"].dtype == np.float32
    assert inputs["text"].shape == (BATCH, 6) and inputs["text"].dtype == np.int32
    assert set(targets) == {"text_logits", "pair"}, "a loss of weight 0 is left out"
    instances = split.instances[numbers((inputs, targets))]
    np.testing.assert_array_equal(targets["text_logits"], instances)
    # Every second pair is the negative of the one before it.
    np.testing.assert_array_equal(targets["pair"], np.stack([instances, range(BATCH)], axis=1))
    _, hardest = Pairs(split, config(negatives="batch"), stage=2)[0]
    assert hardest["pair"].shape == (BATCH,)


def test_threads_make_the_same_batches(split: Split):
    settings = config(crop=True, flip=True, shift=True)
    threaded, plain = Pairs(split, settings, 1, threads=3), Pairs(split, settings, 1)
    # As Keras does: it looks at a batch before the first epoch, and leaves others unused.
    threaded[0]
    for number in (0, 1):
        for one, other in zip(epoch(threaded, number), epoch(plain, number), strict=True):
            for part, expected in zip(one, other, strict=True):
                for key in expected:
                    np.testing.assert_array_equal(part[key], expected[key])


def test_batches_come_again_in_any_order(split: Split):
    settings = config(crop=True, flip=True, shift=True)
    straight = epoch(Pairs(split, settings, 1), 3)
    again = Pairs(split, settings, 1)
    epoch(again, 2)
    again.begin(3)
    for step in reversed(range(STEPS)):
        for part, other in zip(again[step], straight[step], strict=True):
            for key in other:
                np.testing.assert_array_equal(part[key], other[key])


def test_an_epoch_meets_a_picture_once_and_no_two_orders_are_alike(split: Split):
    plain = config()
    orders = [
        np.concatenate([numbers(batch) for batch in epoch(Pairs(split, settings, stage), number)])
        for settings, stage, number in (
            *((plain, 1, 0), (plain, 1, 1), (plain, 2, 0)),
            (replace(plain, seed=1), 1, 0),
        )
    ]
    for order in orders:
        assert len(set(order)) == len(order) == STEPS * BATCH
    assert len({tuple(order) for order in orders}) == len(orders)


def test_captions_are_the_pictures_own_and_all_are_drawn_alike(split: Split):
    pairs, seen = Pairs(split, config(), 1), []
    for number in range(200):
        for batch in epoch(pairs, number):
            picture, caption = np.divmod(batch[0]["text"][:, 0] - 1, 10)
            np.testing.assert_array_equal(picture, numbers(batch))
            seen += list(zip(picture % 3, caption, strict=True))
    for extra in range(3):
        drawn = np.bincount([c for p, c in seen if p == extra], minlength=extra + 1)
        assert len(drawn) == extra + 1
        # About 1,300 draws: five standard deviations are below 7 %.
        np.testing.assert_allclose(drawn / drawn.sum(), 1 / (extra + 1), atol=0.07)


def test_a_persons_pictures_share_their_captions(split: Split):
    persons = replace(config(), text=replace(config().text, captions_of="instance"))
    pairs, seen = Pairs(split, persons, 1), set()
    for number in range(60):
        for batch in epoch(pairs, number):
            of_caption = (batch[0]["text"][:, 0] - 1) // 10
            # The pictures 2n and 2n + 1 are of person n.
            np.testing.assert_array_equal(of_caption // 2, numbers(batch) // 2)
            seen |= set(zip(numbers(batch), of_caption, strict=True))
    assert len(seen) == 2 * PICTURES


def test_captions_start_anywhere_only_where_they_may(split: Split):
    left = [batch[0]["text"] for batch in epoch(Pairs(split, config(), 1), 0)]
    assert (np.concatenate(left)[:, 0] > 0).all()
    pairs, starts = Pairs(split, config(shift=True), 1), []
    for number in range(50):
        texts = np.concatenate([batch[0]["text"] for batch in epoch(pairs, number)])
        assert (np.count_nonzero(texts, axis=1) == 2).all()
        starts += list((texts > 0).argmax(axis=1))
    # Two words fit at five places, 1,000 draws.
    np.testing.assert_allclose(np.bincount(starts, minlength=5) / 1000, 0.2, atol=0.07)


def test_half_of_the_pictures_are_mirrored(split: Split):
    pairs, mirrored = Pairs(split, config(flip=True), 1), []
    for number in range(50):
        for batch in epoch(pairs, number):
            for pixels, picture in zip(batch[0]["image"], numbers(batch), strict=True):
                side = pixels[0, 0, 0] > pixels[0, -1, 0]
                own = split.pictures[picture]
                np.testing.assert_array_equal(pixels, own[:, ::-1] if side else own)
                mirrored.append(side)
    assert 0.42 < np.mean(mirrored) < 0.58


@pytest.mark.parametrize("squash", [False, True])
def test_crops_are_the_recipes_rectangles_of_the_whole_picture(split: Split, squash: bool):
    settings = config(crop=True)
    settings = replace(settings, image=replace(settings.image, squash=squash))
    pairs = Pairs(split, settings, 1)
    for batch in epoch(pairs, 0)[:2]:
        for pixels, picture in zip(batch[0]["image"], numbers(batch), strict=True):
            assert pixels.shape == (SIZE, SIZE, 3)
            height, width = split.shapes[picture]
            order, chance = pairs._plan
            draws = tf.constant(chance[list(order).index(picture), 3:])
            top, left, rows, columns = crop_window(height, width, draws, squash).numpy()
            # On the ramps, the mean tells the middle of a window, the last minus the first its
            # side but for one pixel. They rise by 5 a pixel of 48.
            middle = np.array([(left + columns / 2) / width, (top + rows / 2) / height])
            shown = (pixels[..., :2].mean(axis=(0, 1)) / 5 + 0.5) / SIDE
            np.testing.assert_allclose(shown, middle, atol=0.02)
            side = np.array([columns / width, rows / height]) * (SIZE - 1) / SIZE
            spans = [np.ptp(pixels[SIZE // 2, :, 0]), np.ptp(pixels[:, SIZE // 2, 1])]
            np.testing.assert_allclose(np.array(spans) / 5 / SIDE, side, atol=0.04)
