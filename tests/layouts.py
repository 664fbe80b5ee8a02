"""Small data sets of drawn scenes, laid out as the originals in the table of docs/datasets.md."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

from tests.samples import karpathy_image, write_json
from tests.unit.datasets.tables import write as write_table
from tf_dpce.datasets.shapes.drawing import draw_png
from tf_dpce.datasets.shapes.scene import make_scene

NAMES = tuple(f"{number}.jpg" for number in range(12))
SPLITS = {name: ("train", "train", "val", "test")[n % 4] for n, name in enumerate(NAMES)}
HALVES = {"train": "train", "val": "val", "test": "val"}
Captions = dict[str, tuple[str, str]]


def draw(folder: Path, names: Iterable[str] = NAMES) -> Captions:
    """Draws a scene for each name and returns two captions of each."""
    captions = {}
    for number, name in enumerate(names):
        scene = make_scene(1, number)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(draw_png(scene, 32))
        captions[name] = scene.captions[:2]
    return captions


def rows(captions: Captions, split: str = "") -> list[dict[str, Any]]:
    """Returns a row for each caption: of all images, or of those of a split."""
    return [
        {"image": name, "caption": caption}
        for name, both in captions.items()
        for caption in both
        if not split or split == SPLITS[name]
    ]


def official_lists(folder: Path) -> None:
    folder.mkdir()
    for split, part in (("train", "train"), ("val", "dev"), ("test", "test")):
        names = "".join(f"{name}\n" for name in NAMES if SPLITS[name] == split)
        (folder / f"Flickr_8k.{part}Images.txt").write_text(names)


def token_file(path: Path, captions: Captions) -> None:
    lines = [f"{name}#{n}\t{both[n]}\n" for name, both in captions.items() for n in range(2)]
    path.write_text("".join(lines))


def karpathy(path: Path, captions: Captions) -> None:
    split = {name: SPLITS[name.rpartition("/")[2]] for name in captions}
    entries = [karpathy_image(name, split[name], both) for name, both in captions.items()]
    write_json(path, {"images": entries})


def coco(path: Path, captions: Captions) -> None:
    images = [{"id": n, "file_name": name} for n, name in enumerate(captions)]
    texts = [(n, text) for n, both in enumerate(captions.values()) for text in both]
    notes = [{"id": n, "image_id": i, "caption": text} for n, (i, text) in enumerate(texts)]
    write_json(path, {"images": images, "annotations": notes})


def flickr8k_of_kaggle(here: Path) -> None:
    captions = draw(here / "flickr8k" / "Images")
    write_table(here / "flickr8k" / "captions.txt", rows(captions))
    official_lists(here / "Flickr8k_text")


def flickr8k(here: Path) -> None:
    captions = draw(here / "flickr8k" / "Flicker8k_Dataset")
    official_lists(here / "flickr8k" / "Flickr8k_text")
    token_file(here / "flickr8k" / "Flickr8k_text" / "Flickr8k.token.txt", captions)


def flickr30k_of_kaggle(here: Path) -> None:
    captions = draw(here / "flickr30k" / "flickr30k_images")
    bars = [f"{row['image']}| 0| {row['caption']}\n" for row in rows(captions)]
    heading = "image_name| comment_number| comment\n"
    (here / "flickr30k" / "results.csv").write_text("".join([heading, *bars]))
    karpathy(here / "dataset_flickr30k.json", captions)


def flickr30k(here: Path) -> None:
    captions = draw(here / "flickr30k" / "flickr30k-images")
    token_file(here / "flickr30k" / "results_20130124.token", captions)
    karpathy(here / "dataset_flickr30k.json", captions)


def _in_halves(here: Path, year: str) -> Captions:
    return draw(here / "coco", [f"{HALVES[SPLITS[name]]}{year}/{name}" for name in NAMES])


def coco_of_karpathy(here: Path) -> None:
    karpathy(here / "coco" / "dataset_coco.json", _in_halves(here, "2014"))


def _official_coco(here: Path, year: str) -> None:
    captions = _in_halves(here, year)
    for half in (f"train{year}", f"val{year}"):
        inside = {n.rpartition("/")[2]: c for n, c in captions.items() if n.startswith(half)}
        coco(here / "coco" / "annotations" / f"captions_{half}.json", inside)


def cuhk_pedes(here: Path) -> None:
    captions = draw(here / "CUHK-PEDES" / "imgs")
    listed = [
        {"split": SPLITS[name], "captions": list(both), "file_path": name, "id": number}
        | {"processed_tokens": [text.split() for text in both]}
        for number, (name, both) in enumerate(captions.items())
    ]
    write_json(here / "CUHK-PEDES" / "reid_raw.json", listed)


def own_coco(here: Path) -> None:
    coco(here / "captions.json", draw(here / "images"))


def table(here: Path) -> None:
    write_table(here / "pairs.csv", rows(draw(here / "images")))


def table_for_each_split(here: Path) -> None:
    captions = draw(here / "folder" / "images")
    for split in ("train", "val", "test"):
        write_table(here / "folder" / f"{split}.csv", rows(captions, split))


def parquet(here: Path) -> None:
    captions = draw(here / "images")
    (here / "data").mkdir()
    for split in ("train", "validation", "test"):
        table = [
            {"image": {"bytes": (here / "images" / name).read_bytes()}, "caption": both[0]}
            for name, both in captions.items()
            if split.startswith(SPLITS[name])
        ]
        write_table(here / "data" / f"{split}-00000-of-00001.parquet", table)


def imagefolder(here: Path) -> None:
    named = [{"file_name": r["image"], "text": r["caption"]} for r in rows(draw(here / "folder"))]
    write_table(here / "folder" / "metadata.csv", named)


def texts_beside(here: Path) -> None:
    for name, both in draw(here / "folder").items():
        (here / "folder" / name).with_suffix(".txt").write_text("\n".join(both))


def tar_shards(here: Path) -> None:
    captions = draw(here / "images")
    (here / "shards").mkdir()
    with tarfile.open(here / "shards" / "00000.tar", "w") as shard:
        for name, both in captions.items():
            texts = (name.replace(".jpg", ".txt"), both[0].encode())
            for file, contents in ((name, (here / "images" / name).read_bytes()), texts):
                entry = tarfile.TarInfo(file)
                entry.size = len(contents)
                shard.addfile(entry, BytesIO(contents))


def img2dataset(here: Path) -> None:
    captions = draw(here / "00000")
    table = [
        {"key": name[:-4], "caption": both[0], "status": "success", "url": "http://x/" + name}
        for name, both in captions.items()
    ]
    write_table(here / "00000.parquet", table)


# By the beginnings of the rows, in their order.
LAYOUTS: dict[str, Callable[[Path], None]] = {
    "Kaggle's Flickr8k": flickr8k_of_kaggle,
    "Flickr8k of its authors": flickr8k,
    "Kaggle's Flickr30k": flickr30k_of_kaggle,
    "Flickr30k of its authors": flickr30k,
    "MSCOCO of 2014 with Karpathy's split": coco_of_karpathy,
    "MSCOCO of 2014:": lambda here: _official_coco(here, "2014"),
    "COCO of 2017": lambda here: _official_coco(here, "2017"),
    "your own captions in COCO's JSON": own_coco,
    "CUHK-PEDES": cuhk_pedes,
    "a table of names and captions": table,
    "a table for each split": table_for_each_split,
    "Parquet of Hugging Face": parquet,
    "imagefolder of Hugging Face": imagefolder,
    "images with a text beside each": texts_beside,
    "tar shards": tar_shards,
    "Parquet that img2dataset writes": img2dataset,
}
