"""`export`: a run in, a published version out."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image, ImageOps

import tf_dpce
from pipelines import export
from tf_dpce.files import sha256_file

BEST = "checkpoints/stage1-best.npz"
LIMITS = ["--max-bytes", "50000", "--max-pixels", "60000"]
METRICS = {
    "image_to_text": {"r1": 27.04, "r5": 58.0, "r10": 71.0, "medr": 4.0, "meanr": 13.25},
    "text_to_image": None,
    "rsum": 156.04,
    # Of the split that was scored, which need not be the one that was trained on.
    "split_digest": "b329218869cc" + "0" * 52,
}


def test_run_is_published_with_its_origin_and_metrics(run, tmp_path, capsys):
    best = sha256_file(run / BEST)
    for name, checkpoint, weights in (
        ("a-test-all", "best", {"checkpoint_sha256": best}),
        ("b-test-all", "last", {"checkpoint_sha256": best[::-1]}),
        # Measured before another stage made another checkpoint the best.
        ("c-test-all", "best", {"checkpoint_sha256": best[::-1]}),
        # By a version that did not note which weights it measured.
        ("d-test-all", "best", {}),
    ):
        content = json.dumps({**METRICS, "checkpoint": checkpoint, **weights})
        (run / f"metrics-{name}.json").write_text(content)
    folder = tmp_path / "saved_models" / "drawn"

    assert export.main(["--run", str(run), "--to", str(folder)]) == 0

    named = capsys.readouterr().out.splitlines()
    files = {str(path) for path in (folder / "1").rglob("*") if path.is_file()}
    assert set(named) == files
    card = (folder / "1" / "model_card.md").read_text()
    assert "# drawn" in card
    assert "| image tower | small, weights none |" in card
    assert "| split digest | " + "5" * 64 in card
    assert "| seed | 0 |" in card
    # Of the measurements, the one made with these weights.
    assert "| a-test-all | image to text | 27.0 |" in card
    assert "| MedR | MeanR | split digest |" in card and "| 13.2 | b329218869cc |" in card
    assert card.count("-test-all") == 1
    assert tf_dpce.load(folder).encode_texts(["a dog"]).shape == (1, 16)


def test_an_export_may_see_both_sides_and_says_so(run, tmp_path, capsys):
    best = {"checkpoint": "best", "checkpoint_sha256": sha256_file(run / BEST)}
    for name, views in (("plain", {}), ("both", {"flip": True})):
        (run / f"metrics-{name}.json").write_text(json.dumps({**METRICS, **best, **views}))
    folder = tmp_path / "saved_models" / "drawn"

    assert export.main(["--run", str(run), "--to", str(folder), "--flip", *LIMITS]) == 0

    card = (folder / "1" / "model_card.md").read_text()
    assert "| images are seen | from both sides |" in card
    assert "Files up to 50,000 bytes, images up to 60,000 pixels" in card
    assert "| both | image to text |" in card and "| plain |" not in card
    image = Image.new("RGB", (40, 30), "red")
    image.paste("blue", (0, 0, 10, 30))
    for name, side in (("one.png", image), ("other.png", ImageOps.mirror(image))):
        side.resize((32, 32)).save(tmp_path / name)
    one, other = tf_dpce.load(folder).encode_images([tmp_path / "one.png", tmp_path / "other.png"])
    np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"--run": "nowhere"}, "nowhere is not a run"),
        # Before the run is even looked for.
        ({"--run": "nowhere", "--to": "bad name"}, "bad name: name a model by letters, digits"),
        ({"--checkpoint": "last"}, "checkpoint.missing"),
        ({"--max-bytes": "100"}, "max_bytes is 100: choose it from 20,000"),
        ({"--size": "48"}, "small takes only squares of the 32 pixels"),
    ],
)
def test_mistakes_are_one_line_and_publish_nothing(run, tmp_path, capsys, change, complaint):
    folder = tmp_path / "saved_models" / "drawn"
    options = {"--run": str(run), "--to": str(folder), **change}
    assert export.main([part for option in options.items() for part in option]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert complaint in line
    assert not folder.exists()


def test_run_of_another_vocabulary_is_refused(run, tmp_path, capsys):
    (run / "vocabulary.txt").write_text("".join(f"word{place}\n" for place in range(10)))
    assert export.main(["--run", str(run), "--to", str(tmp_path / "out")]) == 1
    assert "vocabulary.txt" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
