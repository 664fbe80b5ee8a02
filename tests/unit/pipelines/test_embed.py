"""`embed` with a real exported model: from files to the vectors that serving would give."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tf_dpce
from pipelines.embed import main
from tests.errors import printed_code
from tests.unit.search.plain import embedded, files_of
from tf_dpce.files import read_json, write_json


def draw_images(folder: Path, count: int) -> str:
    """Draws small noise, every third a JPEG, and returns the glob of all."""
    folder.mkdir(parents=True)
    for number in range(count):
        draw = np.random.default_rng(number)
        image = Image.fromarray(draw.integers(0, 256, (24, 32, 3), np.uint8))
        image.save(folder / f"{number:04d}.{'png' if number % 3 else 'jpg'}")
    return str(folder / "*")


def test_images_get_the_vectors_of_the_model_and_a_rerun_has_nothing_to_do(
    tiny_export: Path, tmp_path: Path, capsys
):
    pattern = draw_images(tmp_path / "images", 5)
    (tmp_path / "images" / "0002.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    (tmp_path / "images" / "notes.txt").write_text("not an image")
    out = tmp_path / "vectors"
    argv = ["--model", str(tiny_export), "--images", pattern, "--out", str(out)]
    argv += ["--shard-size", "4"]
    assert main(argv) == 0
    assert capsys.readouterr().out.splitlines() == [
        "4 images embedded, 2 rejected",
        str(out / "images.json"),
        str(out / "rejected-images.jsonl"),
    ]
    names = ["0000.jpg", "0001.png", "0003.jpg", "0004.png"]
    expected = tf_dpce.load(tiny_export).encode_images([tmp_path / "images" / n for n in names])
    np.testing.assert_allclose(embedded(out, "images"), expected, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(expected, axis=1), 1, atol=1e-6)
    lines = (out / "rejected-images.jsonl").read_text().splitlines()
    rejected = [json.loads(line) for line in lines]
    reasons = {item["id"]: item["reason"] for item in rejected}
    assert reasons == {"0002.png": "cannot be decoded", "notes.txt": "text, neither JPEG nor PNG"}
    before = files_of(out)
    assert main(argv) == 0
    assert capsys.readouterr().out.startswith(f"nothing to do: {out} already holds these images\n")
    assert files_of(out) == before
    # As a run leaves it that was killed in its second shard.
    manifest = read_json(out / "images.json")
    assert [shard["taken"] for shard in manifest["shards"]] == [4, 2]
    write_json(out / "images.json", manifest | {"shards": []})
    (out / "images-00001.json").unlink()
    assert main(argv) == 0
    assert capsys.readouterr().out.startswith("continued after 4 of 6 images\n4 images embedded, 2")
    assert files_of(out) == before


def test_texts_and_shards_get_the_vectors_of_the_model(tiny_export: Path, tmp_path: Path, capsys):
    from tests.unit.export.tiny import tiny_data

    path, out, data = tmp_path / "captions.txt", tmp_path / "vectors", tmp_path / "data"
    path.write_text("A dog on the grass.\n\nxyzzy\nTwo cats sleep.\n")
    model = ["--model", str(tiny_export), "--out"]
    assert main([*model, str(out), "--texts", str(path)]) == 0
    expected = tf_dpce.load(tiny_export).encode_texts(["A dog on the grass.", "Two cats sleep."])
    np.testing.assert_allclose(embedded(out, "texts"), expected, atol=1e-6)
    data.mkdir()
    tiny_data(data)
    parts = [*model, str(tmp_path / "parts"), "--images", str(data)]
    for part in ("1/2", "2/2"):
        assert main([*parts, "--shard", part]) == 0
    assert main([*model, str(tmp_path / "parts"), "--texts", str(data / "test-*.tfrecord")]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if line.endswith("rejected")]
    # The three splits, of three images each, are a shard each.
    assert said == [
        "2 texts embedded, 2 rejected",
        *("6 images embedded, 0 rejected", "3 images embedded, 0 rejected"),
        "6 texts embedded, 0 rejected",
    ]


def test_a_mistake_is_one_line_and_leaves_nothing(tiny_export: Path, tmp_path: Path, capsys):
    (tmp_path / "odd.jsonl").write_text("no json\n")
    argv = ["--model", str(tiny_export), "--out", str(tmp_path / "out")]
    assert main([*argv, "--texts", str(tmp_path / "odd.jsonl")]) == 1
    assert printed_code(capsys.readouterr().err) == "inputs.line"
    assert not (tmp_path / "out").exists()


def test_bad_usage():
    images = ["--images", "a"]
    parts = ("0/2", "1", "1/0", "-1/2", "1/2/3", "a/2", "")
    for options in (
        *([], [*images, "--texts", "b"], [*images, "--shard-size", "0"]),
        *([*images, "--shard", part] for part in parts),
        *([*images, "--engine", "spark"], [*images, "--engine", "ray", "--shard", "1/2"]),
    ):
        with pytest.raises(SystemExit) as exit:
            main(["--model", "m", "--out", "o", *options])
        assert exit.value.code == 2, options
