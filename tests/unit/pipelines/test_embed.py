"""`embed` with a real exported model: from files to the vectors that serving would give."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tf_dpce
from pipelines.embed import main
from tests.errors import printed_code
from tests.unit.search.plain import embedded, files_of


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
    assert main(argv) == 0
    assert capsys.readouterr().out.splitlines() == [
        "4 images embedded, 2 rejected",
        str(out / "embeddings.json"),
        str(out / "rejected-images.jsonl"),
    ]
    names = ["0000.jpg", "0001.png", "0003.jpg", "0004.png"]
    expected = tf_dpce.load(tiny_export).encode_images([tmp_path / "images" / n for n in names])
    np.testing.assert_allclose(embedded(out, "images"), expected, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(expected, axis=1), 1, atol=1e-6)
    lines = (out / "rejected-images.jsonl").read_text().splitlines()
    rejected = [json.loads(line) for line in lines]
    reasons = {item["id"]: item["reason"] for item in rejected}
    assert reasons == {"0002.png": "cannot be decoded", "notes.txt": "neither JPEG nor PNG"}
    before = files_of(out)
    assert main(argv) == 0
    assert capsys.readouterr().out.startswith(f"nothing to do: {out} already holds these images\n")
    assert files_of(out) == before


def test_texts_get_the_vectors_of_the_model(tiny_export: Path, tmp_path: Path, capsys):
    path, out = tmp_path / "captions.txt", tmp_path / "vectors"
    path.write_text("A dog on the grass.\n\nxyzzy\nTwo cats sleep.\n")
    assert main(["--model", str(tiny_export), "--texts", str(path), "--out", str(out)]) == 0
    assert capsys.readouterr().out.startswith("2 texts embedded, 2 rejected\n")
    expected = tf_dpce.load(tiny_export).encode_texts(["A dog on the grass.", "Two cats sleep."])
    np.testing.assert_allclose(embedded(out, "texts"), expected, atol=1e-6)


def test_shards_give_images_and_captions(tiny_export: Path, tmp_path: Path, capsys):
    from tests.unit.export.tiny import tiny_data

    (tmp_path / "data").mkdir()
    tiny_data(tmp_path / "data")
    options = ["--model", str(tiny_export), "--out", str(tmp_path / "vectors")]
    assert main([*options, "--images", str(tmp_path / "data")]) == 0
    assert main([*options, "--texts", str(tmp_path / "data" / "test-*.tfrecord")]) == 0
    output = capsys.readouterr().out
    assert "9 images embedded, 0 rejected\n" in output
    assert "6 texts embedded, 0 rejected\n" in output
    assert len(embedded(tmp_path / "vectors", "images")) == 9


@pytest.mark.process
def test_a_killed_embed_goes_on_to_the_same_bytes(
    tiny_export: Path, project_root: Path, tmp_path: Path, capsys
):
    pattern = draw_images(tmp_path / "images", 200)
    options = ["--model", str(tiny_export), "--images", pattern, "--shard-size", "10"]
    whole, out = tmp_path / "whole", tmp_path / "vectors"
    assert main([*options, "--out", str(whole)]) == 0
    command = [sys.executable, "-m", "pipelines.embed", *options, "--out", str(out)]
    process = subprocess.Popen(command, cwd=project_root, stderr=subprocess.DEVNULL)
    while not (out / "images-00001.npy").exists():
        assert process.poll() is None, "it lives until it has begun"
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = json.loads((out / "embeddings.json").read_text())["kinds"]["images"]
    assert 10 <= done["embedded"] < 200 and not done["complete"]
    capsys.readouterr()
    assert main([*options, "--out", str(out)]) == 0
    said = f"continued after {done['embedded']} of 200 images\n200 images embedded, 0 rejected\n"
    assert capsys.readouterr().out.startswith(said)
    assert files_of(out) == files_of(whole)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--images", "{folder}/*.gif"], "inputs.no_match"),
        (["--images", "{folder}"], "inputs.not_prepared"),
        (["--texts", "{folder}/odd.jsonl"], "inputs.line"),
        (["--texts", "{folder}/empty.txt"], "inputs.empty"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    tiny_export: Path, tmp_path: Path, capsys, options: list[str], code: str
):
    folder = tmp_path / "inputs"
    folder.mkdir()
    for name, content in {"odd.jsonl": "no json\n", "empty.txt": ""}.items():
        (folder / name).write_text(content)
    argv = ["--model", str(tiny_export), "--out", str(tmp_path / "out")]
    assert main([*argv, *(option.format(folder=folder) for option in options)]) == 1
    assert printed_code(capsys.readouterr().err) == code
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("options", [[], ["--images", "a", "--texts", "b"], ["--shard-size", "0"]])
def test_one_kind_at_a_time_and_whole_shards(options: list[str]):
    with pytest.raises(SystemExit) as exit:
        main(["--model", "m", "--out", "o", *options])
    assert exit.value.code == 2
