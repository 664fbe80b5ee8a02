"""`search` with a real exported model: the last step from a query to images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tf_dpce
from pipelines import embed, index
from pipelines.search import main
from tests.errors import printed_code
from tests.unit.pipelines.test_embed import draw_images
from tests.unit.search.plain import indexed

CAPTIONS = ["A dog on the grass.", "Two cats sleep.", "A [bold]cats[/bold] dog."]


@pytest.fixture(scope="module")
def line(tiny_export: Path, tmp_path_factory) -> Path:
    """Holds `images`, `captions.txt`, `vectors`, `index` of both and `images-only`."""
    root = tmp_path_factory.mktemp("line")
    pattern = draw_images(root / "images", 12)
    (root / "captions.txt").write_text("\n".join(CAPTIONS))
    model = ["--model", str(tiny_export)]
    for name, kind in (("vectors", "texts"), ("vectors", "images"), ("image-vectors", "images")):
        source = pattern if kind == "images" else str(root / "captions.txt")
        assert embed.main([*model, f"--{kind}", source, "--out", str(root / name)]) == 0
    for name, out in (("vectors", "index"), ("image-vectors", "images-only")):
        assert index.main(["--embeddings", str(root / name), "--out", str(root / out)]) == 0
    return root


@pytest.fixture
def search(line: Path, tiny_export: Path, capsys):
    """Runs the verb and returns its status, stdout and stderr."""
    capsys.readouterr()

    def run(*options: str, folder: str = "index") -> tuple[int, str, str]:
        argv = ["--index", str(line / folder), "--model", str(tiny_export), *options]
        status = main(argv)
        output = capsys.readouterr()
        return status, output.out, output.err

    return run


def test_json_ranks_as_the_vectors_do(line: Path, tiny_export: Path, search):
    status, out, err = search("--text", "A dog on the grass.", "--top", "5", "--json")
    answer = json.loads(out)
    assert (status, err) == (0, "")
    assert answer["query"] == {"text": "A dog on the grass."}
    assert answer["for"] == "images"
    query = tf_dpce.load(tiny_export).encode_texts(["A dog on the grass."])[0]
    scores = indexed(line / "vectors", "images") @ query
    rows = np.argsort(-scores)[:5]
    files = sorted((line / "images").iterdir())
    assert [hit["rank"] for hit in answer["hits"]] == [1, 2, 3, 4, 5]
    assert [hit["path"] for hit in answer["hits"]] == [str(files[row]) for row in rows]
    assert [hit["id"] for hit in answer["hits"]] == [files[row].name for row in rows]
    np.testing.assert_allclose([hit["score"] for hit in answer["hits"]], scores[rows], atol=1e-5)


def test_what_is_found_unless_it_is_said(line: Path, search):
    image = str(line / "images" / "0004.png")
    for folder, kind, *options in (
        ("index", "images", "--text", "a dog"),
        ("index", "texts", "--image", image),
        ("index", "images", "--image", image, "--for", "images"),
        ("images-only", "images", "--image", image),
    ):
        status, out, _ = search(*options, "--top", "2", "--json", folder=folder)
        answer = json.loads(out)
        assert (status, answer["for"]) == (0, kind)
        assert all(("path" in hit) == (kind == "images") for hit in answer["hits"])
        if options[0] == "--image" and kind == "images":
            assert answer["query"] == {"image": image}
            assert answer["hits"][0]["path"] == image, "an image is most like itself"


def test_the_table_and_the_sheet_hold_ranks_scores_and_texts_as_they_are(tmp_path: Path, search):
    sheet = tmp_path / "sheet.png"
    options = ("--text", "a cats dog", "--for", "texts", "--top", "3", "--sheet", str(sheet))
    status, out, _ = search(*options)
    assert (status, out.splitlines()[-1]) == (0, str(sheet))
    assert all(caption in out for caption in CAPTIONS), "square brackets are no markup"
    assert all(f" {rank} │" in out for rank in (1, 2, 3))
    with Image.open(sheet) as image:
        assert image.format == "PNG"
    # More than there is gives all, and says so; stdout has nothing but JSON.
    status, out, err = search("--text", "a dog", "--top", "99", "--json", "--sheet", str(sheet))
    assert len(json.loads(out)["hits"]) == 12
    assert err == f"asked for 99, found 12 of the 12 images in the index\n{sheet}\n"


def test_words_that_the_model_does_not_know_are_named(search):
    # The ten words of the model include neither animal; marks around a word are no part of it.
    status, out, err = search("--text", '"A dog!" left of: two Zebras, (zebra-elephant)', "--json")
    assert status == 0
    unknown = json.loads(out)["unknown_words"]
    assert unknown == ["left", "of", "Zebras", "zebra", "elephant"]
    assert err.splitlines()[0].endswith("left out: left, of, Zebras, zebra, elephant")
    # It is the query without them, and of a long list no more is printed than fits a line.
    hits = json.loads(search("--text", "a dog two", "--json")[1])["hits"]
    assert json.loads(out)["hits"] == hits
    _, out, err = search("--text", "dog " + " ".join(f"q{n}" for n in range(300)), "--json")
    assert len(json.loads(out)["unknown_words"]) == 255, "of the first 256 words"
    assert len(err) < 150
    status, out, err = search("--text", "a dog", "--json")
    assert (json.loads(out)["unknown_words"], err) == ([], "")


def test_a_combined_query_is_filtered_paged_and_freed_of_duplicates(
    line: Path, tiny_export: Path, search
):
    image = line / "images" / "0004.png"
    encoder = tf_dpce.load(tiny_export)
    text = encoder.encode_texts(["a dog"])[0]
    query = 2 * text - encoder.encode_images([image])[0]
    scores = indexed(line / "vectors", "images") @ (query / np.linalg.norm(query))
    expected = [f"{row:04d}.png" for row in np.argsort(-scores) if row != 7]
    options = ("--query", f'2 * "a dog" - "{image}"', "--where", "name != '0007.png'", "--json")
    status, out, err = search(*options, "--top", "4", "--skip", "3")
    answer = json.loads(out)
    assert (status, err, answer["more"]) == (0, "", True)
    assert [hit["id"] for hit in answer["hits"]] == expected[3:7]
    assert [hit["rank"] for hit in answer["hits"]] == [4, 5, 6, 7]
    metadata = answer["hits"][0]["metadata"]
    assert (metadata["name"], metadata["folder"]) == (expected[3], "")
    # Whatever has a positive cosine with a better one hides behind it.
    status, out, err = search(*options, "--hide-duplicates", "0.000001", "--top", "12")
    hits = json.loads(out)["hits"]
    assert len(hits) + sum(len(hit.get("duplicates", ())) for hit in hits) == 11
    assert len(hits) < 11
    _, out, _ = search("--query", str(image), "--for", "images", "--json")
    assert json.loads(out)["hits"][0]["id"] == "0004.png", "the name of an image is a query"


def test_images_that_were_moved_are_missed_and_found_again(line: Path, tmp_path: Path, search):
    moved = tmp_path / "moved"
    options = ("--text", "a dog", "--top", "5", "--json")
    before = json.loads(search(*options)[1])["hits"]
    (line / "images").rename(moved)
    try:
        status, out, err = search(*options)
        assert (status, json.loads(out)["hits"]) == (0, before)
        assert err.startswith("5 of 5 images") and "--images-from" in err
        sheet = tmp_path / "sheet.png"
        _, out, err = search(*options, "--images-from", str(moved), "--sheet", str(sheet))
        assert err == f"{sheet}\n"
        expected = [{**hit, "path": str(moved / hit["id"])} for hit in before]
        assert json.loads(out)["hits"] == expected
        (moved / before[1]["id"]).rename(tmp_path / "lost.png")
        _, out, err = search(*options, "--images-from", str(moved))
        assert err.startswith("1 of 5 images")
        expected[1] = before[1]
        assert json.loads(out)["hits"] == expected
        (tmp_path / "lost.png").rename(moved / before[1]["id"])
    finally:
        moved.rename(line / "images")


def test_a_run_folder_serves_as_the_model_and_another_model_does_not(
    line: Path, tiny_run: Path, tmp_path: Path, capsys
):
    model = ["--model", str(tiny_run)]
    out, made = str(tmp_path / "vectors"), str(tmp_path / "index")
    assert embed.main([*model, "--texts", str(line / "captions.txt"), "--out", out]) == 0
    assert index.main(["--embeddings", out, "--out", made]) == 0
    capsys.readouterr()
    query = [*model, "--text", "two cats", "--for", "texts", "--json"]
    assert main(["--index", made, *query]) == 0
    assert len(json.loads(capsys.readouterr().out)["hits"]) == 3
    assert main(["--index", str(line / "index"), *query]) == 1
    assert printed_code(capsys.readouterr().err) == "search.other_model"


def test_bad_usage_is_status_2():
    for options in ([], ["--text", "a", "--image", "b"], ["--text", "a", "--top", "few"]):
        with pytest.raises(SystemExit) as exit:
            main(["--index", "i", "--model", "m", *options])
        assert exit.value.code == 2
