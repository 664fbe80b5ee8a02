"""`export`: a run in, a published version out."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import yaml
from PIL import Image, ImageOps

import tf_dpce
from pipelines import export
from tests.errors import printed_code
from tests.unit.export.tiny import pairs_to_calibrate, tiny_data
from tf_dpce.data.manifest import Manifest
from tf_dpce.data.pieces import training_captions
from tf_dpce.evaluation.calibration import CALIBRATION_FILE, CALIBRATION_FOLDER, Calibration
from tf_dpce.evaluation.cut import cut, principal_axes
from tf_dpce.evaluation.embed import SplitEncoder
from tf_dpce.evaluation.tta import PLAIN
from tf_dpce.export.calibrate import calibrate
from tf_dpce.export.model_card import model_card, run_metrics, run_provenance
from tf_dpce.export.serving_module import ServingModule
from tf_dpce.files import sha256_file
from tf_dpce.training.run_folder import load_run, run_config, write_sources

METRICS = {
    "image_to_text": {"r1": 27.04, "r5": 58.0, "r10": 71.0, "medr": 4.0, "meanr": 13.25},
    "text_to_image": None,
    "rsum": 156.04,
    # Of the split that was scored, which need not be the one that was trained on.
    "split_digest": "b329218869cc" + "0" * 52,
}


@pytest.mark.process
def test_run_is_published_with_its_provenance_and_metrics(run, tmp_path, capsys):
    trained = load_run(run)
    best = sha256_file(trained.checkpoint)
    for name, fields in (
        ("both-sides", {"checkpoint": "best", "checkpoint_sha256": best, "flip": True}),
        ("plain", {"checkpoint": "best", "checkpoint_sha256": best}),
        ("last", {"checkpoint": "last", "checkpoint_sha256": best[::-1], "flip": True}),
        # Measured before another stage made another checkpoint the best.
        ("before", {"checkpoint": "best", "checkpoint_sha256": best[::-1], "flip": True}),
    ):
        (run / f"metrics-{name}.json").write_text(json.dumps({**METRICS, **fields}))
    folder = tmp_path / "saved_models" / "drawn"
    limits = ["--max-bytes", "50000", "--max-pixels", "60000"]
    data = ["--data", str(pairs_to_calibrate(tmp_path / "pairs"))]

    assert export.main(["--run", str(run), "--to", str(folder), "--flip", *limits, *data]) == 0

    files = {str(path) for path in (folder / "1").rglob("*") if path.is_file()}
    assert set(capsys.readouterr().out.splitlines()) == files
    card = (folder / "1" / "model_card.md").read_text()
    for fact in (
        "# drawn",
        "| image tower | small, weights none |",
        "| images are seen | from both sides |",
        "| split digest | " + "5" * 64,
        "| seed | 0 |",
        "50,000 bytes",
        "60,000 pixels",
        "| both-sides | image to text | 27.0 |",
        "| 13.2 | b329218869cc |",
    ):
        assert fact in card
    # Of the measurements, the card has those made with these weights, seen so.
    assert card.count("| image to text |") == 1
    assert list(run_metrics(trained, "best", PLAIN)) == ["plain"]

    calibration = Calibration.read(folder / "1" / CALIBRATION_FOLDER / CALIBRATION_FILE)
    assert (calibration.images, calibration.texts) == (200, 200)
    assert "Fitted on 200 images and 200 captions" in card
    assert f"{CALIBRATION_FOLDER}/calibration.npz" in (folder / "1" / "files.sha256").read_text()

    image = Image.new("RGB", (40, 30), "red")
    image.paste("blue", (0, 0, 10, 30))
    for name, side in (("one.png", image), ("other.png", ImageOps.mirror(image))):
        side.resize((32, 32)).save(tmp_path / name)
    one, other = tf_dpce.load(folder).encode_images([tmp_path / "one.png", tmp_path / "other.png"])
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_the_card_says_what_a_run_was_made_of(finished, scenes, tmp_path):
    run, manifest = shutil.copytree(finished, tmp_path / "run"), Manifest.load(scenes)
    vectors = tmp_path / "private" / "glove | 1.txt"
    vectors.parent.mkdir()
    vectors.write_text("red 1 2 3 4 5 6 7 8\n")
    # As if it had been trained from this file, which is gone when the run is exported.
    saved = json.loads((run / "config.json").read_text())
    saved["config"] |= {"vectors": [str(vectors)], "teacher": "/private/clip.npz"}
    saved["data"]["teacher_sha256"] = "12ab"
    (run / "config.json").write_text(json.dumps(saved))
    write_sources(run, manifest, run_config(run))
    vectors.unlink()
    trained = load_run(run)
    card = run_provenance(trained, "best", PLAIN)

    digest = hashlib.sha256(b"red 1 2 3 4 5 6 7 8\n").hexdigest()
    assert card["word vectors"] == f"glove | 1.txt (SHA-256 {digest})"
    assert card["images and captions"] == "; ".join(
        f"{name} {split.images:,}, {split.captions:,}" for name, split in manifest.splits.items()
    )
    assert (card["split digest"], card["seed"]) == (manifest.split_digest, 7)
    assert card["training data"] == "scenes"
    assert card["teacher"] == "clip.npz (SHA-256 12ab)"
    assert card["weights SHA-256"] == sha256_file(trained.checkpoint)
    for number in (1, 2):
        stage = trained.config.stage(number)
        said = f"{stage.epochs} of {stage.epochs} epochs, batches of {stage.batch_size}, "
        assert card[f"stage {number}"].startswith(said + stage.optimizer)
    # Two exports have one card, and it names no folder.
    texts = {
        model_card(
            "m",
            ServingModule(again.model, again.tokenizer),
            run_provenance(again, "best", PLAIN),
            run_metrics(again, "best", PLAIN),
        )
        for again in (trained, load_run(run))
    }
    (text,) = texts
    assert "private" not in text and "glove \\| 1.txt" in text and "Not evaluated." in text
    assert text.startswith("---\n") and set(yaml.safe_load(text.split("---\n")[1])) == {
        *("library_name", "pipeline_tag", "tags")
    }
    parts = ("Model", "Intended use", "Limits", "Endpoints", "Training", "Evaluation", "Hashes")
    assert [text.index(f"\n## {part}\n") for part in parts] == sorted(
        text.index(f"\n## {part}\n") for part in parts
    )


def test_a_run_of_an_earlier_version_has_a_card_too(run):
    # It knows no counts, no digests and no history.
    trained = load_run(run)
    card = run_provenance(trained, "best", PLAIN)
    assert (card["word vectors"], card["teacher"]) == ("from random", "none")
    assert card["images and captions"] == "not recorded"
    config = replace(trained.config, vectors=("/home/me/glove.npz", "word2vec.bin"))
    provenance = run_provenance(replace(trained, config=config), "best", PLAIN)
    assert provenance["word vectors"] == "glove.npz, word2vec.bin"


@pytest.mark.process
@pytest.mark.full
def test_numbers_along_axes_say_most(run, tmp_path):
    data = tmp_path / "data"
    tiny_data(data, images=6)
    model, images = tf_dpce.load(run), sorted((data / "images").glob("train*.png"))
    whole = model.encode_images(images)
    # The axes of all training images and captions: fewer than are taken at most.
    axes = principal_axes(whole, model.encode_texts(training_captions(data)))
    for dimension in (16, 3):
        folder = tmp_path / f"short{dimension}"
        options = ["--dim", str(dimension), "--data", str(data)]
        assert export.main(["--run", str(run), "--to", str(folder), *options]) == 0
        short, expected = tf_dpce.load(folder).encode_images(images), cut(whole @ axes, dimension)
        assert short.shape == (6, dimension)
        # An axis may point the other way, which changes no cosine.
        np.testing.assert_allclose(short @ short.T, expected @ expected.T, atol=1e-4)
    turned = whole @ axes
    np.testing.assert_allclose(turned @ turned.T, whole @ whole.T, atol=1e-5)
    said = "| numbers of an embedding | 3 along the principal axes"
    assert said in (folder / "1" / "model_card.md").read_text()


def test_too_few_pairs_leave_an_export_without_probabilities(run, tmp_path, caplog):
    trained = load_run(run)
    encoder = SplitEncoder(trained.model, trained.tokenizer, trained.config.image, PLAIN)
    data = pairs_to_calibrate(tmp_path, val=3)
    for place in (None, data):
        assert calibrate(encoder, place, 16) is None
        assert caplog.records[-1].levelname == "WARNING"


def test_mistakes_have_their_codes_and_publish_nothing(run, tmp_path, capsys):
    folder = tmp_path / "saved_models" / "drawn"
    for change, code in (
        ({"--checkpoint": "last"}, "checkpoint.missing"),
        ({"--size": "48"}, "model.image_size"),
        ({"--dim": "17"}, "export.dim"),
        ({"--data": str(tmp_path)}, "data.unfinished"),
    ):
        options = {"--run": str(run), "--to": str(folder), **change}
        assert export.main([part for option in options.items() for part in option]) == 1
        assert printed_code(capsys.readouterr().err) == code
        assert not folder.exists()
    (run / "vocabulary.txt").write_text("".join(f"word{number}\n" for number in range(10)))
    assert export.main(["--run", str(run), "--to", str(folder)]) == 1
    assert printed_code(capsys.readouterr().err) == "run.vocabulary"
