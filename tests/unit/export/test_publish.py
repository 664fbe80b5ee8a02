"""What an exported version holds, and that it is there whole or not at all."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import tf_dpce
from tests.unit.export.tiny import CONFIG, SIZE, WORDS, tiny_model
from tf_dpce.errors import UserError
from tf_dpce.evaluation import tta
from tf_dpce.export import ENDPOINTS, examples, replay, versions
from tf_dpce.export.model_card import model_card
from tf_dpce.export.publish import export_model
from tf_dpce.export.versions import find_version, publish_version, version_numbers
from tf_dpce.files import sha256_lines, sole_writer
from tf_dpce.models.fuse_batch_norm import folded
from tf_dpce.preprocessing import status
from tf_dpce.preprocessing.image import evaluation_pixels

WHOLE = {"saved_model.pb", "variables", "assets.extra", "model_card.md", "files.sha256"}

EXPORT = """
import sys
from pathlib import Path
from tests.unit.export.tiny import WORDS, tiny_model
from tf_dpce.export.model_card import model_card
from tf_dpce.export.publish import export_model
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer
export_model(tiny_model(), CaptionTokenizer(WORDS, 6, True), Path(sys.argv[1]))
"""

PUBLISH = """
import sys
from pathlib import Path
from tf_dpce.export.versions import publish_version
for _ in range(10):
    publish_version(Path(sys.argv[1]), lambda f: (f / "a").write_text("a" * 1000))
"""


def publish(folder: Path) -> Path:
    return publish_version(folder, lambda aside: (aside / "saved_model.pb").write_text("x"))


def names(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir())


def test_version_holds_everything(exported):
    assert exported.name == "1"
    assert set(names(exported)) >= WHOLE
    assert names(exported.parent) == ["1"]
    assert names(exported / "assets.extra") == ["examples.npz", "tf_serving_warmup_requests"]


def test_export_holds_only_the_variables_of_the_encoders(exported, model):
    shapes = [shape for _, shape in tf.train.list_variables(str(exported / "variables/variables"))]
    numbers = sum(int(np.prod(shape)) for shape in shapes if shape)
    # The classifier of 5 instances would add 5 (D + 1); two counters of the archive are scalars.
    encoders = [folded(encoder) for encoder in (model.image_encoder, model.text_encoder)]
    assert numbers == sum(encoder.count_params() for encoder in encoders)


def test_examples_are_what_the_model_answers(exported, model, tokenizer):
    recorded = examples.load_examples(exported / examples.FILE, ENDPOINTS)
    images, sentences = recorded["encode_image"], recorded["encode_text"]
    for example in (images, sentences):
        usable = example.statuses == status.OK
        assert usable.sum() >= 5
        assert (~usable).sum() >= 4
        assert not example.embeddings[~usable].any()
    for row in np.flatnonzero(images.statuses == status.OK):
        pixels = evaluation_pixels(tf.constant(images.inputs[row]), SIZE)
        vector = model.image_encoder(pixels[tf.newaxis], training=False)[0]
        np.testing.assert_allclose(images.embeddings[row], vector, atol=1e-6)
    for row in np.flatnonzero(sentences.statuses == status.OK):
        ids = tokenizer(tf.constant([sentences.inputs[row]]))
        vector = model.text_encoder(ids, training=False)[0]
        np.testing.assert_allclose(sentences.embeddings[row], vector, atol=1e-6)


def test_byte_strings_of_examples_keep_their_zeros(tmp_path):
    inputs = (b"", b"\x00", b"a\x00\x00", b"\x00b", b"")
    answers = examples.Examples(inputs, np.zeros((5, 2), np.float32), np.zeros(5, np.int32))
    path = tmp_path / "examples.npz"
    examples.save_examples(path, {"encode_text": answers})
    assert examples.load_examples(path, ["encode_text"])["encode_text"].inputs == inputs


def test_warm_up_holds_requests_of_all_signatures(exported):
    requests = list(replay.read_warmup(exported / replay.FILE))
    endpoints = {"serving_default": "encode_image", **{name: name for name in ENDPOINTS}}
    inputs = {(signature, ENDPOINTS[endpoint]) for signature, endpoint in endpoints.items()}
    assert {(signature, *given) for signature, given in requests} == inputs
    recorded = examples.load_examples(exported / examples.FILE, ENDPOINTS)
    for signature, given in requests:
        (batch,) = given.values()
        assert tuple(batch) == recorded[endpoints[signature]].inputs[: len(batch)]


def test_card_says_what_the_model_is(exported):
    card = (exported / "model_card.md").read_text()
    for fact in (
        "# tiny",
        "| data | drawn |",
        f"{SIZE} x {SIZE} pixels",
        "| vocabulary | 10 words |",
        sha256_lines(WORDS),
        "Not measured.",
        *(f"| {code} | {reason} |" for code, reason in status.REASONS.items()),
    ):
        assert fact in card


def test_an_export_squashes_images_as_its_model_was_trained(model, tokenizer, tmp_path):
    version = export_model(model, tokenizer, tmp_path / "tall", squash=True)
    recorded = examples.load_examples(version / examples.FILE, ENDPOINTS)["encode_image"]
    pixels = evaluation_pixels(tf.constant(recorded.inputs[0]), SIZE, squash=True)
    expected = model.image_encoder(pixels[tf.newaxis], training=False)[0]
    np.testing.assert_allclose(recorded.embeddings[0], expected, atol=1e-6)
    assert "All of the image is squashed to 32 x 32" in (version / "model_card.md").read_text()


def kept_types(version: Path) -> list[tf.DType]:
    """The types of the variables of an export."""
    reader = tf.train.load_checkpoint(str(version / "variables/variables"))
    types = reader.get_variable_to_dtype_map()
    return [types[name] for name in reader.get_variable_to_shape_map()]


def test_weights_may_be_kept_in_float16(model, tokenizer, exported, tmp_path):
    half = tta.augmented_model(model, "small", tta.TestTimeAugmentation(float16=True))
    # Published at all, it has answered in a Session as the model with rounded weights does.
    version = export_model(half, tokenizer, tmp_path / "half")
    kinds = kept_types(version)
    # Every BatchNorm is within a matrix, but for the four vectors of each member's own behind the
    # table of words, which both share.
    assert kinds.count(tf.float16) > 8 == kinds.count(tf.float32)
    sizes = [
        (folder / "variables/variables.data-00000-of-00001").stat().st_size
        for folder in (version, exported)
    ]
    assert sizes[0] < 0.6 * sizes[1]


def test_one_member_keeps_no_weight_in_float32(tokenizer, tmp_path):
    alone = tiny_model(config=replace(CONFIG, model=replace(CONFIG.model, members=1)))
    half = tta.augmented_model(alone, "small", tta.TestTimeAugmentation(float16=True))
    kinds = kept_types(export_model(half, tokenizer, tmp_path / "half"))
    # Every BatchNorm is within a matrix, or within the table of words.
    assert kinds.count(tf.float16) > 0 == kinds.count(tf.float32)


def test_limits_of_images_are_chosen_at_export(model, tokenizer, tmp_path):
    limits = status.Limits(max_bytes=30_000, max_pixels=20_000)
    version = export_model(model, tokenizer, tmp_path / "small", limits=limits)
    colour = tf.zeros([100, 200, 3], tf.uint8)
    image = tf.io.encode_png(colour).numpy()
    # 200 x 100 pixels are as many as may be; a file may be lengthened by what follows its end.
    larger = tf.io.encode_png(tf.zeros([100, 201, 3], tf.uint8)).numpy()
    longest, longer = (image + bytes(size - len(image)) for size in (30_000, 30_001))
    _, codes = tf_dpce.load(version).images([image, larger, longest, longer])
    assert codes.tolist() == [
        *(status.OK, status.TOO_MANY_PIXELS, status.OK, status.TOO_MANY_BYTES)
    ]
    card = (version / "model_card.md").read_text()
    assert "Files up to 30,000 bytes, images up to 20,000 pixels" in card


@pytest.mark.parametrize(
    ("limits", "name"), [({"max_bytes": 1_000}, "max_bytes"), ({"max_pixels": 2**31}, "max_pixels")]
)
def test_limits_out_of_reach_are_a_users_mistake(model, tokenizer, tmp_path, limits, name):
    with pytest.raises(UserError, match=f"{name} is .*: choose it from 20,000 to 2,147,483,647"):
        export_model(model, tokenizer, tmp_path / "no", limits=status.Limits(**limits))
    assert not (tmp_path / "no").exists()


def test_card_shows_metrics(model, tokenizer):
    row = {"r1": 12.34, "r5": 30.0, "r10": 50.0, "medr": 9.0, "meanr": 20.5}
    metrics = {"flickr8k-test-all": {"image_to_text": None, "text_to_image": row, "rsum": 92.34}}
    card = model_card("tiny", model, tokenizer, {}, metrics)
    assert "| flickr8k-test-all | text to image | 12.3 | 30.0 | 50.0 | 9.0 | 20.5 |" in card
    assert "image to text" not in card and "mAP" not in card
    assert "Not recorded." in card


def test_card_shows_metrics_of_several_protocols(model, tokenizer):
    row = {"r1": 12.34, "r5": 30.0, "r10": 50.0, "medr": 9.0, "meanr": 20.5}
    metrics = {
        "people-test-all": {"image_to_text": row, "text_to_image": row, "rsum": 184.68},
        "people-test-cuhk_pedes": {
            "image_to_text": None,
            "text_to_image": {**row, "map": 11.0, "minp": 4.75},
            "rsum": None,
        },
    }
    card = model_card("tiny", model, tokenizer, {}, metrics)
    numbers = "12.3 | 30.0 | 50.0 | 9.0 | 20.5"
    assert "| measured on | direction | R@1 | R@5 | R@10 | MedR | MeanR | mAP | mINP |" in card
    assert f"| people-test-all | image to text | {numbers} |  |  |" in card
    assert f"| people-test-cuhk_pedes | text to image | {numbers} | 11.0 | 4.8 |" in card
    assert "| people-test-cuhk_pedes | image to text" not in card


def test_failed_verification_publishes_nothing(tokenizer, tmp_path):
    # A diverged model: what it answers is not even equal to itself.
    model = tiny_model()
    kernel = model.image_tower.get_layer("image_head").get_layer("image1_fc2").kernel
    kernel.assign(np.full(kernel.shape, np.nan))
    with pytest.raises(UserError, match="failed its verification: encode_image: .* differ"):
        export_model(model, tokenizer, tmp_path / "tiny")
    assert names(tmp_path / "tiny") == []


def test_versions_are_the_next_integers(tmp_path):
    assert publish(tmp_path).name == "1"
    assert publish(tmp_path).name == "2"
    (tmp_path / "9").mkdir()
    (tmp_path / "9" / "saved_model.pb").touch()
    (tmp_path / "notes").mkdir()
    assert publish(tmp_path).name == "10"


def test_what_is_no_version_is_passed_over_but_keeps_its_number(tmp_path):
    publish(tmp_path)
    # TF Serving would read 007 as 7, and counts in int64.
    (tmp_path / "007").mkdir()
    (tmp_path / "9").touch()
    (tmp_path / "9223372036854775808").mkdir()
    assert version_numbers(tmp_path) == [1]
    assert find_version(tmp_path).name == "1"
    assert publish(tmp_path).name == "10"
    (tmp_path / "9223372036854775807").mkdir()
    with pytest.raises(UserError, match="has the largest version there can be"):
        publish(tmp_path)


@pytest.mark.parametrize("name", ["bad name", "it's", "naïve", ".."])
def test_a_name_that_no_request_could_have_is_refused_before_the_work(tokenizer, name):
    # Without a model: it is not looked at.
    with pytest.raises(UserError, match="name a model by letters, digits and - _ . alone"):
        export_model(None, tokenizer, Path("saved_models") / name)


def test_newest_version_is_found(tmp_path):
    for _ in range(11):
        publish(tmp_path)
    # By number: as text, 9 would come last.
    assert find_version(tmp_path).name == "11"
    assert find_version(tmp_path / "3").name == "3"
    (tmp_path / "12").mkdir()
    for path in (tmp_path, tmp_path / "nowhere", tmp_path / "12"):
        with pytest.raises(UserError):
            find_version(path)


def test_failure_while_writing_leaves_nothing(tmp_path):
    def write(aside: Path) -> None:
        (aside / "saved_model.pb").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        publish_version(tmp_path, write)
    assert names(tmp_path) == []


def test_an_export_in_another_container_is_left_alone(tmp_path):
    aside = tmp_path / ".export.0123456789ab.tmp"
    aside.mkdir()
    with sole_writer(aside):
        assert publish(tmp_path).name == "1"
        assert names(tmp_path) == [aside.name, "1"]
    assert publish(tmp_path).name == "2"
    assert names(tmp_path) == ["1", "2"]


def test_a_version_is_locked_while_it_is_written(tmp_path):
    def write(aside: Path) -> None:
        with pytest.raises(UserError, match="another process is writing"), sole_writer(aside):
            pass
        (aside / "saved_model.pb").write_text("x")

    assert publish_version(tmp_path, write).name == "1"


@pytest.mark.parametrize("moment", ["flush", "rename"])
def test_a_version_is_locked_until_it_has_its_number(tmp_path, monkeypatch, moment):
    # Otherwise an export in another container would take it for one that was left aside.
    place = versions if moment == "flush" else versions.os
    work, locked = getattr(place, moment), []

    def watched(path: Path, *rest: Path) -> None:
        # Not the folder of the model, which is flushed as the last.
        if ".export" in str(path):
            with suppress(UserError), sole_writer(path if path.is_dir() else path.parent):
                pytest.fail(f"nobody holds {path}")
            locked.append(path)
        work(path, *rest)

    monkeypatch.setattr(place, moment, watched)
    assert publish(tmp_path).name == "1"
    assert len(locked) == {"flush": 2, "rename": 1}[moment]


def test_processes_that_publish_at_once_get_a_number_each(tmp_path, project_root):
    command = [sys.executable, "-c", PUBLISH, str(tmp_path)]
    running = [subprocess.Popen(command, cwd=project_root) for _ in range(4)]
    assert [process.wait() for process in running] == [0] * 4
    assert sorted(map(int, names(tmp_path))) == list(range(1, 41))
    assert all(names(item) == ["a"] for item in tmp_path.iterdir())


KILLED = """
import os, signal, sys
from pathlib import Path
from tf_dpce.export import versions
folder, moment = Path(sys.argv[1]), sys.argv[2]
real = versions.flush
def die(*ignored):
    os.kill(os.getpid(), signal.SIGKILL)
def write(aside):
    (aside / "saved_model.pb").write_text("x")
    if moment == "write":
        die()
if moment == "flush":
    versions.flush = die
if moment == "rename":
    versions.os.rename = die
if moment == "end":
    versions.flush = lambda path: die() if path == folder else real(path)
versions.publish_version(folder, write)
"""


@pytest.mark.parametrize(
    ("moment", "left"), [("write", []), ("flush", []), ("rename", []), ("end", [1])]
)
def test_a_version_is_whole_or_absent_whenever_its_process_is_killed(
    tmp_path, project_root, moment, left
):
    command = [sys.executable, "-c", KILLED, str(tmp_path), moment]
    assert subprocess.run(command, cwd=project_root).returncode == -signal.SIGKILL
    assert version_numbers(tmp_path) == left
    assert all((tmp_path / str(number) / "saved_model.pb").is_file() for number in left)
    # The next one clears away what was left, and has the next number.
    publish(tmp_path)
    assert names(tmp_path) == [str(number) for number in range(1, len(left) + 2)]


def test_killed_export_leaves_no_version(tmp_path, project_root):
    folder = tmp_path / "tiny"
    process = subprocess.Popen([sys.executable, "-c", EXPORT, str(folder)], cwd=project_root)
    # Killed once the graph is written: while it records or verifies.
    deadline = time.monotonic() + 120
    while not list(folder.glob(".export.*/saved_model.pb")) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL

    (left,) = folder.iterdir()
    assert left.name.startswith(".export.")
    with pytest.raises(UserError):
        find_version(folder)

    # The next one clears it away and is number 1.
    publish(folder)
    assert names(folder) == ["1"]
