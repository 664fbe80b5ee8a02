"""Training on persons: captions of all their images, and negatives of other persons alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.samples import encoded, person_image, write_json
from tests.unit.training.kills import history
from tests.unit.training.test_stages import stage
from tests.unit.training.tiny import run_tiny
from tf_dpce.config import ImageConfig, TextConfig
from tf_dpce.data.caption_table import CaptionTable, captions_of_instances, encode_captions
from tf_dpce.data.feature_cache import FeatureCache
from tf_dpce.data.index_shuffle import IndexShuffle
from tf_dpce.data.input_pipeline import caption_groups, training_batches
from tf_dpce.data.prepare import prepare
from tf_dpce.datasets.cuhk_pedes import read_cuhk_pedes
from tf_dpce.losses import RankingLoss
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer
from tf_dpce.preprocessing.vocabulary import read_vocabulary

PERSONS, IMAGES, PLACES = 3, 4, 8
IMAGE = ImageConfig("small", 32, crop=False, flip=False)
TEXT = TextConfig(max_length=PLACES, shift=False)
# Every image of training, once: 2 persons of 3 are alike in many pairs of a batch.
ORDER = IndexShuffle(seed=0, images=PERSONS * IMAGES, batch_size=4)


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> Path:
    """A CUHK-PEDES of 3 persons in training; each image has a word of its own."""
    folder = tmp_path_factory.mktemp("people")
    listed = []
    for split, persons in (("train", PERSONS), ("val", 1), ("test", 1)):
        for number in range(persons * IMAGES):
            name, person = f"{split}{number}.png", number % persons
            image = Image.new("RGB", (12, 30), (60 * person, 20 * number, 90))
            (folder / "raw" / "imgs").mkdir(parents=True, exist_ok=True)
            (folder / "raw" / "imgs" / name).write_bytes(encoded(image, "PNG"))
            captions = [f"A person p{person} in w{number}.", f"Person p{person}, again w{number}."]
            reported = person_image(name, 100 * len(split) + person, split)
            listed.append(reported | {"captions": captions})
    write_json(folder / "raw" / "reid_raw.json", listed)
    prepare(read_cuhk_pedes(folder / "raw"), folder / "data", source="cuhk_pedes", lowercase=True)
    return folder / "data"


@pytest.fixture(scope="module")
def tokenizer(people: Path) -> CaptionTokenizer:
    return CaptionTokenizer(read_vocabulary(people / "vocabulary.txt"), PLACES, lowercase=True)


@pytest.fixture(scope="module")
def table(people: Path, tokenizer: CaptionTokenizer) -> CaptionTable:
    return encode_captions(people, "train", tokenizer)


def captions_by_instance(people: Path, tokenizer: CaptionTokenizer) -> dict[int, set[bytes]]:
    """The captions of each person, as ids."""
    found: dict[int, set[bytes]] = {}
    for batch in caption_groups(people, "train", 1):
        ids = tokenizer(batch["captions"].flat_values).numpy()
        found.setdefault(int(batch["instance"][0]), set()).update(row.tobytes() for row in ids)
    return found


def rows(batches: Iterator[dict]) -> list[tuple[int, bytes]]:
    return [
        (int(instance), text.tobytes())
        for batch in batches
        for instance, text in zip(batch["instance"], batch["text"], strict=True)
    ]


def test_any_caption_of_the_person_goes_with_an_image(
    people: Path, tokenizer: CaptionTokenizer, table: CaptionTable
):
    captions = captions_of_instances(table)

    def drawn(start: int, stop: int, order: IndexShuffle = ORDER) -> list[tuple[int, bytes]]:
        batches = training_batches(
            people, tokenizer, IMAGE, TEXT, order, start, stop, captions=captions
        )
        return rows(batches.as_numpy_iterator())

    steps = 90
    found = drawn(0, steps)
    expected = captions_by_instance(people, tokenizer)
    assert all(len(texts) == 2 * IMAGES for texts in expected.values())
    for person, texts in expected.items():
        # 120 draws from 8 captions: that one is missing has a chance of one in a million.
        assert {text for instance, text in found if instance == person} == texts
    # Resumed in the middle of an epoch, and shared by two workers, it is the same.
    assert drawn(7, steps) == found[7 * 4 :]
    halves = [drawn(0, 3, replace(ORDER, part=part, parts=2)) for part in range(2)]
    by_step = [half[2 * step : 2 * step + 2] for step in range(3) for half in halves]
    assert [row for part in by_step for row in part] == found[: 3 * 4]
    # Cached features come with the same captions.
    cache = FeatureCache(np.zeros((len(table.instances), 1, 2), np.float16), table)
    from_cache = cache.training_batches(TEXT, ORDER, 0, steps, captions)
    assert rows(from_cache.as_numpy_iterator()) == found


@pytest.mark.parametrize(
    ("backbone", "pool"),
    [pytest.param("cached", "instance", marks=pytest.mark.full), ("trained", "image")],
)
def test_a_stage_reads_the_captions_of_what_its_configuration_names(
    people: Path, table: CaptionTable, backbone: str, pool: str
):
    options = {"text__caption_pool": pool, "text__shift": False, "stage2__backbone": backbone}
    training, steps, others = stage(2, people, stage2__batch_size=4, **options), 30, 0
    shown = training.order.steps(0, steps).as_numpy_iterator()
    batches = training.training_batches(0, steps).as_numpy_iterator()
    own = [set(map(words_of, part)) for part in np.split(table.ids, table.first[1:-1])]
    for (places, _), (inputs, _) in zip(shown, batches, strict=True):
        for place, text in zip(places, inputs["text"], strict=True):
            others += words_of(text) not in own[place]
    # Of the 8 captions of a person, 2 are the image's own: of 120 draws, 90 are not.
    assert 60 < others < 115 if pool == "instance" else others == 0


def words_of(ids: np.ndarray) -> tuple[int, ...]:
    return tuple(ids[ids > 0])


def test_where_images_are_alone_nothing_changes(table: CaptionTable):
    alone = replace(table, instances=np.arange(len(table.instances)))
    draws = np.random.default_rng(0).uniform(size=len(alone.instances)).astype(np.float32)
    own = alone.first[:-1] + (draws * np.diff(alone.first)).astype(int)
    found = captions_of_instances(alone)(alone.instances, draws).numpy()
    np.testing.assert_array_equal(found, alone.ids[own])


def test_no_negative_of_the_anchors_person_counts_in_the_loss(people: Path):
    """The batches of a run, and a loss whose worth is known: all vectors are alike."""
    training = stage(2, people, stage2__batch_size=4, text__caption_pool="instance", seed=1)
    loss, alike, margins = RankingLoss(1.0, "paired"), np.ones((4, 2, 1), np.float32), []
    for _, targets in training.training_batches(0, 60).as_numpy_iterator():
        ids = targets["pair"][:, 0]
        # Two hinges at the margin for an anchor whose negative is another person, else nothing.
        expected = np.where(ids[0::2] != ids[1::2], 2.0, 0.0)
        found = loss.call(targets["pair"], alike).numpy()
        np.testing.assert_allclose(found[0::2], expected)
        np.testing.assert_array_equal(found[1::2], 0)
        margins += expected.tolist()
    assert 0 < margins.count(0.0) < len(margins), "both kinds of pairs were drawn"


@pytest.mark.full
def test_both_stages_train_on_persons(people: Path, tmp_path: Path):
    run = tmp_path / "run"
    options = {
        "stage1__epochs": 1,
        "stage2__epochs": 1,
        "text__caption_pool": "instance",
        "image__resize": "stretch",
        "stage2__loss__negatives": "paired",
    }
    assert run_tiny(people, run, **options) == 0
    # All pairs at the margin would be 1; those of one person take nothing.
    first, second = history(run)
    assert (first["stage"], second["stage"]) == ("1", "2")
    assert 0 < float(second["pair_loss"]) < 1
