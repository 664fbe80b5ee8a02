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
from tests.unit.search.plain import embedded

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
    scores = embedded(line / "vectors", "images") @ query
    rows = np.argsort(-scores)[:5]
    files = sorted((line / "images").iterdir())
    assert [hit["rank"] for hit in answer["hits"]] == [1, 2, 3, 4, 5]
    assert [hit["path"] for hit in answer["hits"]] == [str(files[row]) for row in rows]
    assert [hit["id"] for hit in answer["hits"]] == [files[row].name for row in rows]
    np.testing.assert_allclose([hit["score"] for hit in answer["hits"]], scores[rows], atol=1e-5)


def test_the_table_holds_ranks_scores_and_texts_as_they_are(search):
    status, out, _ = search("--text", "a cats dog", "--for", "texts", "--top", "3")
    assert status == 0
    assert all(caption in out for caption in CAPTIONS), "square brackets are no markup"
    assert all(f" {rank} │" in out for rank in (1, 2, 3))


@pytest.mark.parametrize(
    ("folder", "options", "kind"),
    [
        ("index", ["--text", "a dog"], "images"),
        ("index", ["--text", "a dog", "--for", "texts"], "texts"),
        ("index", ["--image", "{image}"], "texts"),
        ("index", ["--image", "{image}", "--for", "images"], "images"),
        ("images-only", ["--image", "{image}"], "images"),
    ],
)
def test_what_is_found_unless_it_is_said(line: Path, search, folder, options, kind):
    image = str(line / "images" / "0004.png")
    options = [option.format(image=image) for option in options]
    status, out, _ = search(*options, "--top", "2", "--json", folder=folder)
    answer = json.loads(out)
    assert (status, answer["for"]) == (0, kind)
    assert all(("path" in hit) == (kind == "images") for hit in answer["hits"])
    if "--image" in options and kind == "images":
        assert answer["query"] == {"image": image}
        assert answer["hits"][0]["path"] == image, "an image is most like itself"


def test_asking_for_more_than_there_is_gives_all_and_says_so(search):
    status, out, err = search("--text", "a dog", "--top", "99", "--json")
    assert status == 0
    assert len(json.loads(out)["hits"]) == 12
    assert err == "asked for 99, found 12 of the 12 images in the index\n"


def test_a_sheet_is_drawn_and_named(tmp_path: Path, search):
    sheet = tmp_path / "sheet.png"
    status, out, _ = search("--text", "a dog", "--sheet", str(sheet))
    assert (status, out.splitlines()[-1]) == (0, str(sheet))
    with Image.open(sheet) as image:
        assert image.format == "PNG"
    status, out, err = search("--text", "a dog", "--sheet", str(sheet), "--json")
    assert (status, err) == (0, f"{sheet}\n")
    json.loads(out)  # nothing but JSON


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--text", "xyzzy"], "search.query"),
        (["--text", "a dog", "--top", "0"], "search.top"),
        (["--text", "a dog", "--index", "{tmp}/none"], "index.missing"),
        (["--text", "a dog", "--sheet", "{tmp}/sheet.jpg"], "sheet.suffix"),
        (["--image", "{tmp}/none.jpg"], "search.query"),
        (["--image", "{tmp}/text.jpg"], "search.query"),
        (["--image", "{tmp}/cut.jpg"], "search.query"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, search, options: list[str], code: str):
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut")
    status, out, err = search(*(option.format(tmp=tmp_path) for option in options))
    assert (status, out) == (1, ""), "it is reported before anything is shown"
    assert printed_code(err) == code
    assert not (tmp_path / "sheet.jpg").exists()


def test_a_kind_that_the_index_lacks_is_one_line(search):
    status, _, err = search("--text", "a dog", "--for", "texts", folder="images-only")
    assert (status, printed_code(err)) == (1, "search.kind")


def test_an_index_of_another_model_is_one_line(line: Path, tmp_path: Path, capsys):
    from tests.unit.export.tiny import tiny_run

    (tmp_path / "run").mkdir()
    run = tiny_run(tmp_path / "run", seed=1)
    capsys.readouterr()
    assert main(["--index", str(line / "index"), "--model", str(run), "--text", "a dog"]) == 1
    assert printed_code(capsys.readouterr().err) == "search.other_model"


def test_a_run_folder_serves_as_the_model(tmp_path: Path, capsys):
    from tests.unit.export.tiny import tiny_run

    (tmp_path / "run").mkdir()
    model = ["--model", str(tiny_run(tmp_path / "run"))]
    pattern, out = draw_images(tmp_path / "images", 3), str(tmp_path / "vectors")
    assert embed.main([*model, "--images", pattern, "--out", out]) == 0
    assert index.main(["--embeddings", out, "--out", str(tmp_path / "index")]) == 0
    capsys.readouterr()
    argv = ["--index", str(tmp_path / "index"), *model, "--text", "two cats", "--json"]
    assert main(argv) == 0
    assert len(json.loads(capsys.readouterr().out)["hits"]) == 3


@pytest.mark.parametrize("options", [[], ["--text", "a", "--image", "b"], ["--top", "few"]])
def test_bad_usage_is_status_2(options: list[str]):
    with pytest.raises(SystemExit) as exit:
        main(["--index", "i", "--model", "m", *options])
    assert exit.value.code == 2
