"""What is shown of a validation: the hits of fixed queries, similarities, the projector."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from PIL import Image
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from tests.samples import image as sample
from tests.samples import write_images
from tests.scenes import prepare_scenes
from tf_dpce.data.prepare import prepare
from tf_dpce.datasets.table import read_table
from tf_dpce.drawing.hit_rows import RIGHT, WRONG, Cell, HitRow, hit_rows
from tf_dpce.evaluation.embed import Embeddings
from tf_dpce.monitoring import retrieval_panel
from tf_dpce.monitoring.projector import Projector, choose_points
from tf_dpce.monitoring.retrieval_panel import choose_panel
from tf_dpce.monitoring.validation_items import ValidationItems
from tf_dpce.monitoring.validation_view import similarities


@pytest.fixture(scope="module")
def items(scenes: Path) -> ValidationItems:
    return ValidationItems(scenes, "center_crop")


def embeddings(items: ValidationItems) -> tuple[Embeddings, Embeddings]:
    """Random ones, of which many are near those that belong to them."""
    draw, own = np.random.default_rng(0), items.image_of
    images = draw.normal(size=(own[-1] + 1, 8)).astype("float32")
    texts = images[own] + draw.normal(size=(len(own), 8)).astype("float32")
    # Instances are numbered otherwise than images.
    return Embeddings(images, 100 + np.arange(len(images))), Embeddings(texts, 100 + own)


def test_items_are_in_the_order_of_their_embeddings(items: ValidationItems, scenes: Path):
    from tf_dpce.datasets.shapes.scene import make_scene

    assert items.image_of.tolist() == [n // 5 for n in range(60)]
    for image in range(12):
        scene = make_scene(0, int(items.names[image]))
        assert items.captions[5 * image : 5 * image + 5] == list(scene.captions)
    assert items.thumbnail(3).size == (96, 96)


def test_a_file_that_pillow_refuses_has_a_thumbnail(tmp_path: Path):
    whole = sample("JPEG", size=(40, 24))
    # A JFIF header that is too short is no fault to TensorFlow.
    (tmp_path / "a.jpg").write_bytes(whole[:2] + b"\xff\xe0\0\7JFIF\0" + whole[2:])
    write_images(tmp_path, ["b.jpg", "c.jpg"])
    rows = "a.jpg,a dog,val\nb.jpg,a dog,train\nc.jpg,a dog,test\n"
    (tmp_path / "pairs.csv").write_text(f"image,caption,split\n{rows}")
    prepare(read_table(tmp_path / "pairs.csv"), tmp_path / "data", source="table")
    assert ValidationItems(tmp_path / "data", "center_crop").thumbnail(0).size == (96, 96)


def test_the_panel_shows_the_best_hits_and_the_rank_of_the_first_right_one(
    items: ValidationItems, monkeypatch: pytest.MonkeyPatch
):
    drawn: list[list[HitRow]] = []
    monkeypatch.setattr(retrieval_panel, "hit_rows", drawn.append)
    images, texts = embeddings(items)
    # An image's embedding is that of another: the wrong one comes first.
    images.vectors[1] = images.vectors[0]
    panel = choose_panel(items, seed=3)
    panel.draw(images, texts)
    again = choose_panel(items, seed=3)
    assert panel.captions.tolist() == again.captions.tolist(), "the same in every epoch"
    for query, row in zip(panel.captions, drawn[0], strict=True):
        own, scores = items.image_of[query], images.vectors @ texts.vectors[query]
        order = sorted(range(12), key=lambda n, s=scores, o=own: (-round(float(s[n]), 5), n == o))
        assert row.query == items.captions[query]
        assert [cell.shown for cell in row.hits] == [items.thumbnail(n) for n in order[:5]]
        assert [cell.is_right for cell in row.hits] == [n == own for n in order[:5]]
        assert row.rank == order.index(own) + 1
    for query, row in zip(panel.images, drawn[1], strict=True):
        best = np.argsort(-(texts.vectors @ images.vectors[query]))[:5]
        assert row.query is items.thumbnail(query)
        assert [cell.shown for cell in row.hits] == [items.captions[n] for n in best]


def test_right_and_wrong_hits_are_framed():
    grey = Image.new("RGB", (96, 96), "#808080")
    hits = [Cell(grey, is_right=True), Cell(grey, is_right=False)]
    pixels = hit_rows([HitRow("a red circle", hits, 1), HitRow("two", hits, 3)]).load()
    # A rank of 56 pixels, a text of 230, two hits of 96, and ten between.
    for left, colour in ((316, RIGHT), (422, WRONG)):
        rgb = tuple(int(colour[n : n + 2], 16) for n in (1, 3, 5))
        assert pixels[left, 60] == pixels[left, 60 + 116] == rgb
        assert pixels[left + 40, 60] == (128, 128, 128)
    assert grey.load()[0, 0] == (128, 128, 128), "thumbnails are drawn again in the next epoch"


def test_similarities_of_pairs_are_apart_from_all_others(items: ValidationItems):
    images, texts = embeddings(items)
    points = choose_points(items, seed=1)
    found = similarities(images, texts, points)
    pairs = list(zip(points.images, points.captions, strict=True))
    assert [items.image_of[caption] for _, caption in pairs] == list(range(12))
    own = [images.vectors[i] @ texts.vectors[c] for i, c in pairs]
    np.testing.assert_allclose(sorted(found["similarity/positive"]), sorted(own), rtol=1e-5)
    assert len(found["similarity/negative"]) == 12 * 11


def test_the_projector_has_a_row_a_label_and_a_thumbnail_for_each_point(
    items: ValidationItems, tmp_path: Path
):
    images, texts = embeddings(items)
    points = choose_points(items, seed=1)
    projector = Projector(tmp_path, items, points)
    projector.write(images.vectors + 1, texts.vectors)
    projector.write(images.vectors, texts.vectors)
    config = text_format.Parse((tmp_path / "projector_config.pbtxt").read_text(), ProjectorConfig())
    (embedding,) = config.embeddings
    rows = np.loadtxt(tmp_path / embedding.tensor_path, delimiter="\t")
    assert list(embedding.tensor_shape) == [24, 8] == list(rows.shape)
    np.testing.assert_allclose(rows[:12], images.vectors, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(rows[12:], texts.vectors[points.captions], rtol=1e-4, atol=1e-6)
    head, *labels = (tmp_path / embedding.metadata_path).read_text().splitlines()
    assert head.split("\t") == ["modality", "caption", "image"]
    for number, label in enumerate(labels):
        image, caption = number % 12, items.captions[points.captions[number % 12]]
        expected = ["image" if number < 12 else "caption", caption, items.names[image]]
        assert label.split("\t") == expected
    # 24 thumbnails of 48 pixels in a square of 5 by 5.
    with Image.open(tmp_path / embedding.sprite.image_path) as sprite:
        assert sprite.size == (240, 240)
        blue, plain = sprite.getpixel((2 * 48 + 1, 2 * 48 + 24)), sprite.getpixel((49, 24))
    assert blue[2] > 180 > 100 > blue[0] and plain != blue, "captions have a frame"


def test_two_images_with_a_strange_caption_each_are_enough(tmp_path: Path):
    prepare_scenes(tmp_path / "data", val=2)
    items = ValidationItems(tmp_path / "data", "stretch")
    # One caption an image, and signs that a table of labels has a meaning for.
    items.captions, items.image_of = ["a\ttab\nand a line", ""], np.arange(2)
    images, texts = embeddings(items)
    panels = choose_panel(items, seed=0).draw(images, texts)
    assert all(panel.width > 300 for panel in panels.values())
    Projector(tmp_path, items, choose_points(items, seed=0)).write(images.vectors, texts.vectors)
    labels = (tmp_path / "metadata.tsv").read_text().splitlines()
    assert len(labels) == 5 and all(label.count("\t") == 2 for label in labels)
    assert labels[1].split("\t")[1] == "a tab and a line"
