"""`prepare` reads and writes an object store as it does a folder, by a real S3 protocol."""

from __future__ import annotations

import json
import shutil
import tarfile
from dataclasses import asdict
from pathlib import Path

import pytest
import tensorflow as tf

from pipelines.prepare import main
from pipelines.train import main as train
from tests.errors import printed_code
from tests.extras.object_store import BUCKET, endpoint, objects, s3, upload
from tests.unit.datasets.tables import write
from tests.unit.datasets.test_layouts import LAYOUTS, build
from tests.unit.pipelines.test_embed import draw_images
from tests.unit.search.plain import files_of
from tf_dpce.data.manifest import MANIFEST_FILE
from tf_dpce.data.shards import write_shards
from tf_dpce.datasets.layouts import recognise
from tf_dpce.remote_path import open_path

__all__ = ["endpoint", "s3"]

URL, OUT = f"{BUCKET}/raw", f"{BUCKET}/data"


def kaggles(root: Path) -> None:
    """Kaggle's layout: a copy, names written otherwise, a cut file, an empty one, a lost one."""
    draw_images(root / "Images", 30)
    names = sorted(path.name for path in (root / "Images").iterdir())
    shutil.copy(root / "Images" / names[3], root / "Images" / "copy.png")
    (root / "Images" / names[5]).write_bytes(b"\x89PNG\r\n\x1a\n cut")
    (root / "Images" / names[7]).write_bytes(b"")
    listed = [*names[:9], names[9].upper(), f"/home/me/{names[10]}", *names[11:], "copy.png"]
    lines = [f"{name},a dog number {place}" for place, name in enumerate([*listed, "lost.jpg"])]
    (root / "captions.txt").write_text("\n".join(["image,caption", *lines]))


def texts_beside(root: Path) -> None:
    """Images in the folders of splits, each with a text."""
    for split in ("train", "validation", "test"):
        draw_images(root / split, 5)
        for path in sorted((root / split).iterdir()):
            path.with_suffix(".txt").write_text(f"a {split} thing\nnumber {path.stem}\n")
        (root / split / "alone.txt").write_text("no image")
        (root / split / ".hidden").mkdir()
        (root / split / ".hidden" / "a.jpg").write_bytes(b"hidden")


def a_table(root: Path) -> None:
    """A table beside its images."""
    draw_images(root / "images", 12)
    names = sorted(path.name for path in (root / "images").iterdir())
    splits = ["val", "test", "train"] * 4
    rows = [
        {"image": n, "caption": f"a cat {n}", "split": s}
        for n, s in zip(names, splits, strict=True)
    ]
    write(root / "pairs.csv", rows)


def cocos(root: Path) -> None:
    """The format of COCO, of 2017."""
    for split in ("train", "val"):
        draw_images(root / f"{split}2017", 8)
        entries = [
            {"id": number, "file_name": path.name}
            for number, path in enumerate(sorted((root / f"{split}2017").iterdir()))
        ]
        said = [{"image_id": e["id"], "caption": f"a {split} dog {e['id']}"} for e in entries]
        file = root / "annotations" / f"captions_{split}2017.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps({"images": entries, "annotations": said}))


def readdressed(folder: Path, here: str, there: str, scratch: Path) -> dict[str, bytes]:
    """The files of a prepared folder as if its images had been read there and not here."""
    found = files_of(folder)
    manifest = json.loads(found[MANIFEST_FILE])
    for split, info in manifest["splits"].items():
        records = []
        for shard in info["shards"]:
            for record in tf.data.TFRecordDataset(str(folder / shard["file"])).as_numpy_iterator():
                example = tf.train.Example.FromString(record)
                (path,) = example.features.feature["path"].bytes_list.value
                example.features.feature["path"].bytes_list.value[0] = path.replace(
                    here.encode(), there.encode()
                )
                records.append(example.SerializeToString(deterministic=True))
        (written,) = write_shards(scratch, split, records)
        found[written.file] = (scratch / written.file).read_bytes()
        info["shards"] = [asdict(written)]
    found[MANIFEST_FILE] = f"{json.dumps(manifest, indent=1, ensure_ascii=False)}\n".encode()
    name = "rejected.jsonl"
    found[name] = found[name].replace(here.encode(), there.encode())
    return found


@pytest.mark.parametrize("build_data", [kaggles, texts_beside, a_table, cocos])
def test_a_bucket_gives_the_same_bytes_as_a_folder(s3, tmp_path: Path, build_data, capsys):
    root, scratch = tmp_path / "raw", tmp_path / "scratch"
    root.mkdir(), scratch.mkdir()
    build_data(root)
    upload(s3, root, URL)
    assert main(["--root", str(root), "--out", str(tmp_path / "here")]) == 0
    said = capsys.readouterr().out.replace(f"{tmp_path}/here", OUT)
    # Both ways through the store, and out of it alone.
    assert main(["--root", URL, "--out", OUT]) == 0
    assert capsys.readouterr().out == said
    assert objects(s3, OUT) == readdressed(tmp_path / "here", str(root), URL, scratch)
    assert main(["--root", str(root), "--out", f"{BUCKET}/copy"]) == 0
    assert objects(s3, f"{BUCKET}/copy") == files_of(tmp_path / "here")


@pytest.mark.parametrize(("files", "source", "options"), LAYOUTS[::2])
def test_layouts_are_recognised_in_a_bucket(s3, tmp_path: Path, files, source, options):
    root = build(tmp_path / "root", files)
    here, there = recognise(root), recognise(open_path(upload(s3, root, URL)))
    options = {name: str(path).replace(str(root), URL) for name, path in here.options.items()}
    assert (there.source, {name: str(path) for name, path in there.options.items()}) == (
        source,
        options,
    )


def test_tar_shards_of_a_bucket_are_written_into_a_folder_and_not_into_a_bucket(
    s3, tmp_path: Path, capsys
):
    draw_images(tmp_path / "images", 12)
    (tmp_path / "raw").mkdir()
    with tarfile.open(tmp_path / "raw" / "0.tar.gz", "w:gz") as tar:
        for path in sorted((tmp_path / "images").iterdir()):
            path.with_suffix(".txt").write_text(f"number {path.stem}")
            for part in (path, path.with_suffix(".txt")):
                tar.add(part, arcname=part.name)
    upload(s3, tmp_path / "raw", URL)
    out, found = tmp_path / "out", []
    for source in (str(tmp_path / "raw"), URL, f"{URL}/*.tar.gz"):
        assert main(["--root", source, "--out", str(out)]) == 0
        text = (out / "rejected.jsonl").read_text().replace(str(tmp_path / "raw"), URL)
        found.append({**files_of(out), "rejected.jsonl": text})
    assert found[0] == found[1] == found[2]
    for options in (["--root", URL], ["--source", "scenes"]):
        assert main([*options, "--out", OUT]) == 1
        assert printed_code(capsys.readouterr().err) == "extracted.remote"
        assert objects(s3, OUT) == {}


def test_a_path_sees_a_bucket_as_it_was_when_it_was_opened(s3, tmp_path: Path):
    before = open_path(URL)
    assert [*before.iterdir()] == []
    s3.pipe_file(f"{URL}/pairs.csv", b"image,caption")
    after = open_path(URL)
    assert [path.name for path in after.iterdir()] == ["pairs.csv"]
    # Of data that are read for hours every part is of one state.
    assert [(path / "pairs.csv").is_file() for path in (before, after)] == [False, True]


def test_an_object_that_vanishes_is_rejected_and_one_that_is_refused_ends_it(
    s3, tmp_path: Path, capsys, monkeypatch
):
    a_table(tmp_path / "raw")
    upload(s3, tmp_path / "raw", URL)
    read, faults = s3.cat_file, [FileNotFoundError("Not Found")]

    def trapped(path: str, **options: object) -> bytes:
        if path.endswith("0003.jpg"):
            raise faults[-1]
        return read(path, **options)

    monkeypatch.setattr(s3, "cat_file", trapped)
    command = ["--root", URL, "--out", OUT]
    assert main(command) == 0
    lines = objects(s3, OUT)["rejected.jsonl"].splitlines()
    lost = f"{URL}/images/0003.jpg"
    assert [json.loads(line) for line in lines] == [
        {"path": lost, "reason": "no such file", "nearest": lost}
    ]
    before = objects(s3, OUT)
    for fault, code in ((PermissionError("No"), "storage.denied"), (OSError(), "storage.failed")):
        faults.append(fault)
        capsys.readouterr()
        assert main([*command, "--log-format", "json"]) == 1
        said = json.loads(capsys.readouterr().err.splitlines()[-1])
        assert (said["code"], said["path"]) == (code, lost)
        # What was there stays.
        assert objects(s3, OUT) == before


def test_what_is_wrong_with_a_bucket_is_said_in_a_line(s3, tmp_path: Path, capsys):
    a_table(tmp_path / "raw")
    upload(s3, tmp_path / "raw", URL)
    foreign = f"{BUCKET}/foreign"
    s3.pipe_file(f"{foreign}/notes.txt", b"mine")
    for options, code in (
        (["--root", "s3://nowhere/raw", "--out", OUT], "source.none"),
        (["--root", "ftp://host/raw", "--out", OUT], "storage.scheme"),
        (["--root", "gs://archive/raw", "--out", OUT], "storage.package"),
        (["--source", "flickr8k", "--root", f"{BUCKET}/none", "--out", OUT], "dataset.folder"),
        (["--source", "table", "--annotations", f"{URL}/none.csv", "--out", OUT], "dataset.file"),
        (["--root", URL, "--out", "s3://nowhere/data"], "storage.missing"),
        (["--root", URL, "--out", foreign], "prepare.foreign"),
    ):
        assert main(options) == 1, options
        assert printed_code(capsys.readouterr().err) == code, options
    assert objects(s3, OUT) == {} and set(objects(s3, foreign)) == {"notes.txt"}
    for method in ("info", "ls", "get_file", "pipe_file"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(s3, method, refuse)
            assert main(["--root", URL, "--out", OUT]) == 1, method
        assert printed_code(capsys.readouterr().err) == "storage.denied", method


def refuse(*arguments: object, **options: object) -> None:
    raise PermissionError("Access Denied")


def test_a_folder_that_is_published_by_half_counts_as_not_prepared(
    s3, tmp_path: Path, capsys, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    a_table(tmp_path / "raw")
    command = ["--root", upload(s3, tmp_path / "raw", URL), "--out", OUT]
    assert main(command) == 0
    before, put, sent = objects(s3, OUT), s3.put_file, []

    def broken(*arguments: object, **options: object) -> None:
        sent.append(arguments)
        if len(sent) == 3:
            raise ConnectionResetError("gone")
        put(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(s3, "put_file", broken)
        assert main(command) == 1
    assert printed_code(capsys.readouterr().err) == "storage.failed"
    assert MANIFEST_FILE not in objects(s3, OUT)
    assert trained(OUT, capsys) == "data.unfinished"
    assert main(command) == 0
    assert objects(s3, OUT) == before
    # It is read, and only then found that nothing is to be trained.
    assert trained(OUT, capsys) == "training.epochs"
    assert trained(f"{BUCKET}/none", capsys) == "storage.missing"


def trained(data: str, capsys: pytest.CaptureFixture[str]) -> str | None:
    """The code with which training refuses data."""
    assert train(["--data", data, "--run", "unwritten"]) == 1
    return printed_code(capsys.readouterr().err)
