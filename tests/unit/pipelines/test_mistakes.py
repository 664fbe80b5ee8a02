"""Mistakes are found in a second: of every verb, before TensorFlow is imported."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.__main__ import VERBS
from tests.blocked import WITHOUT_TENSORFLOW
from tests.unit.search.plain import PlainEncoder, files_of
from tf_dpce.search.embedding.embed import embed
from tf_dpce.search.embedding.fingerprint import model_digest
from tf_dpce.search.embedding.inputs import find_images
from tf_dpce.search.index.build import build_index

# Runs each command, a list of arguments, and prints their statuses and what they said.
RUN = """
import io, json
from contextlib import redirect_stderr, redirect_stdout
from pipelines.__main__ import main
from tests.errors import printed_code

answers = []
for command in json.load(sys.stdin):
    said = io.StringIO()
    with redirect_stderr(said), redirect_stdout(io.StringIO()):
        try:
            status = main(command)
        except SystemExit as exit:
            status = exit.code
        except ImportError as error:
            status = f"imports: {error}"
    answers.append([status, printed_code(said.getvalue()) if status == 1 else None])
print(json.dumps(answers))
"""

# Each verb with options that are right, or as good as that until the model itself is needed, and
# for each mistake the option, or argument, that takes its place with the code or usage status.
# Values are names in the folder of `world`, unless they begin with a colon.
TRAIN = (
    "--preset :flickr8k_small --data data --run new "
    "--stage1.batch_size :16 --stage2.batch_size :16 --stage2.epochs :1 "
    "--image.backbone :EfficientNetLite0"
)
RIGHT = {
    "prepare": "--source :table --annotations pairs.csv --images images --out new",
    "train": TRAIN,
    "evaluate": "--run run --data data",
    "export": "--run run --to new/model",
    "verify": "model",
    "serve": "--models models --write new",
    "embed": "--model model --images images --out new",
    "index": "--embeddings embedded --out new",
    "find": "images --model model --index new",
    "search": "--index index --model model --text :dog",
    "ablate": ":objective --data data --out new",
    "web": "--index index --model model --port :7861",
    "demo": "--out new",
}
DATA = (
    ("--data", "none", "data.folder"),
    ("--data", "file", "data.folder"),
    ("--data", "images", "data.unfinished"),
    ("--data", "damaged", "data.manifest"),
)
RUNS = (
    ("--run", "none", "run.config"),
    ("--run", "file", "run.config"),
    ("--run", "untrained", "checkpoint.missing"),
    ("--run", "damaged", "file.json"),
)
MODELS = (
    ("--model", "none", "export.missing"),
    ("--model", "file", "export.missing"),
    ("--model", "untrained", "checkpoint.missing"),
)
UNWRITABLE = ("--out", "file/new", "file.not_writable")
MISTAKES = {
    "prepare": (
        ("--annotations", "none.csv", "dataset.file"),
        ("--images", "none", "dataset.folder"),
        ("--images", "file", "dataset.folder"),
        ("--vectors", "none", "vectors.file"),
        ("--split-file", "none", "dataset.file"),
        ("--out", "untrained", "prepare.foreign"),
        ("--source", ":flicker", 2),
        UNWRITABLE,
    ),
    "train": (
        *DATA,
        ("--run", "images", "run.not_empty"),
        ("--run", "file", "run.not_writable"),
        ("--vectors", "none", "vectors.file"),
        ("--weights", "none", "model.weights"),
        ("--weights", "images", "model.weights"),
        ("--weights", ":imagenet", "model.imagenet"),
        ("--init-from", "none", "run.config"),
        ("--init-from", "run", "run.other_data"),
        ("--from-weights", "none", "run.weights"),
        ("--stage", ":2", "run.init_from"),
        ("--stage1.batch_size", ":1000000", "training.batch_size"),
        ("--text.widths", ":[7]", "config.widths"),
        ("--stage1.learning_rate", ":-7", 2),
        ("--stage1.epoch", ":7", 2),
        ("--preset", ":scene", 2),
    ),
    "evaluate": (
        *DATA,
        *RUNS,
        ("--split", ":tests", "evaluation.split"),
        ("--protocol", ":coco", "evaluation.protocol"),
        ("--protocol", ":coco5k", "evaluation.protocol_images"),
        ("--querybank", ":test", "evaluation.querybank"),
        ("--querybank", ":tests", "evaluation.split"),
        ("--report", "images", "report.folder"),
        ("--report", "file/new", "file.not_writable"),
        ("--learning-curve", "pairs.csv", "report.folder"),
    ),
    "export": (
        *RUNS,
        ("--to", "a model", "export.name"),
        ("--to", "file/model", "file.not_writable"),
        ("--max-bytes", ":1", "export.limits"),
    ),
    "verify": (
        ("", "none", "export.missing"),
        ("", "file", "export.missing"),
        ("--serving-version", ":1.0", "verify.serving_version"),
    ),
    "serve": (
        ("--models", "none", "serving.no_models"),
        ("--models", "file", "serving.no_models"),
        ("--models", "images", "serving.no_models"),
        ("--write", "file", "file.not_writable"),
        ("--rest-port", ":70000", 2),
    ),
    "embed": (
        *MODELS,
        ("--images", "none", "inputs.no_match"),
        ("--images", "models", "inputs.no_match"),
        ("--images", "images/*.png", "inputs.no_match"),
        ("--shard", ":2/1", "inputs.parts"),
        ("--shard", ":7/7", "inputs.parts"),
        ("--out", "embedded", "embeddings.other_inputs"),
        ("--model", "run", "embeddings.other_model"),
        UNWRITABLE,
    ),
    "index": (
        ("--embeddings", "none", "embeddings.missing"),
        ("--embeddings", "file", "embeddings.missing"),
        ("--querybank", "none", "embeddings.missing"),
        ("--factory", ":HNSW0", "index.factory"),
        ("--factory", ":Flatt", "index.factory"),
        ("--out", "images", "index.target"),
        ("--out", "file/new", "system.file"),
    ),
    "find": (
        *(("", name, "find.folder") for name in ("none", "file")),
        ("", "embedded", "find.no_images"),
        *MODELS,
        ("--index", "index", "find.other_index"),
        ("--index", "file", "find.other_index"),
        ("--index", "file/new", "file.not_writable"),
        ("--where", ":colour = 1", "search.where"),
        ("--sheet", "new.jpg", "sheet.suffix"),
        ("--sheet", "file/new.png", "file.not_writable"),
        ("--at-least", ":0.5", "search.at_least"),  # the model has no calibration
        ("--top", ":0", 2),
        ("--at-least", ":2", 2),
    ),
    "search": (
        *(("--index", name, "index.missing") for name in ("none", "file")),
        *MODELS,
        ("--model", "run", "search.other_model"),
        ("--image", "none", "search.query"),
        ("--image", "images", "search.query"),
        ("--images-from", "none", "search.images_from"),
        ("--images-from", "file", "search.images_from"),
        ("--for", ":texts", "search.kind"),
        ("--top", ":0", "search.top"),
        ("--skip", ":-1", "search.top"),
        ("--where", ":widht > 640", "search.where"),
        ("--where", ":width > '640'", "search.where"),
        ("--hide-duplicates", ":both", "search.duplicates"),
        ("--at-least", ":2", "search.at_least"),
        ("--at-least", ":0.5", "search.at_least"),
        ("--query", ':"dog" -', "search.query"),
        ("--query", ':"dog" - none.jpg', "search.query"),
        ("--sheet", "new.jpg", "sheet.suffix"),
        ("--sheet", "file/new.png", "file.not_writable"),
        ("--top", ":many", 2),
    ),
    "ablate": (
        *DATA,
        ("", ":object", "ablation.question"),
        ("", ":parts", "ablation.vectors"),
        ("", ":transfer", "ablation.other"),
        ("--other", "data", "ablation.other"),
        ("--vectors", "none", "vectors.file"),
        UNWRITABLE,
    ),
    "web": (
        *(("--index", name, "index.missing") for name in ("none", "file")),
        *MODELS,
        ("--model", "run", "search.other_model"),
        ("--model", ":http://localhost:8501", "client.address"),
        ("--model", ":ftp://localhost#scenes", "client.address"),
        ("--login", "none", "web.login"),
        ("--login", "file", "web.login"),
        ("--login", "images", "web.login"),
        ("--host", ":no host", "web.port"),
        ("--port", ":0", 2),
        ("--port", ":70000", 2),
    ),
    "demo": (("--out", "images", "demo.folder"), ("--out", "file", "system.file")),
}


@pytest.fixture
def world(tmp_path: Path, scenes: Path, tiny_run: Path, tiny_export: Path) -> Path:
    """What the commands name, each right by itself if its name does not say otherwise."""
    for name, source in (("data", scenes), ("run", tiny_run), ("models/tiny", tiny_export)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(source)
    (tmp_path / "model").symlink_to(tiny_export)
    shutil.copytree(tiny_run, tmp_path / "untrained")
    shutil.rmtree(tmp_path / "untrained" / "checkpoints")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(b"image")
    inputs = find_images([str(tmp_path / "images" / "*.jpg")])
    embed(PlainEncoder(), inputs, tmp_path / "embedded", model_digest(tiny_export))
    build_index([tmp_path / "embedded"], tmp_path / "index")
    (tmp_path / "images" / "b.jpg").write_bytes(b"another image")
    (tmp_path / "pairs.csv").write_text("image,caption\na.jpg,a dog\n")
    (tmp_path / "file").write_text("a file")
    (tmp_path / "damaged").mkdir()
    for name in ("manifest.json", "config.json"):
        (tmp_path / "damaged" / name).write_text('{"format": 1')
    return tmp_path


def command(world: Path, verb: str, option: str, value: str) -> list[str]:
    """Returns the right command with one option, or the argument of no name, in another's place."""

    def located(value: str) -> str:
        return value[1:] if value.startswith(":") else str(world / value)

    words = RIGHT[verb].split()
    named = [words[n : n + 2] for n in range(len(words) % 2, len(words), 2)]
    options = {"": words[0]} if len(words) % 2 else {}
    options |= dict(named) | {option: value}
    if option in ("--image", "--query"):
        del options["--text"]
    if (verb, option, value) == ("embed", "--model", "run"):
        options["--out"] = "embedded"
    pairs = [[name, located(value)] for name, value in options.items()]
    query = ["a dog"] if verb == "find" else []
    return [verb, *(word for pair in pairs for word in pair if word), *query]


@pytest.mark.process
def test_every_verb_finds_mistakes_without_tensorflow(project_root: Path, world: Path):
    assert set(MISTAKES) == set(RIGHT) == set(VERBS)
    asked = [(verb, *mistake) for verb in VERBS for mistake in MISTAKES[verb]]
    before = files_of(world)
    answer = subprocess.run(
        [sys.executable, "-c", WITHOUT_TENSORFLOW + RUN],
        cwd=project_root,
        env={**os.environ, "PYTHONPATH": str(project_root)},
        input=json.dumps([command(world, *mistake[:3]) for mistake in asked]),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert answer.returncode == 0, answer.stderr[-3000:]
    found = json.loads(answer.stdout.splitlines()[-1])
    wanted = [[2, None] if code == 2 else [1, code] for *_, code in asked]
    wrong = [each for each in zip(asked, found, wanted, strict=True) if each[1] != each[2]]
    assert not wrong
    assert files_of(world) == before, "nothing is half-written"


@pytest.mark.process
def test_a_mistyped_path_costs_less_than_two_seconds(project_root: Path, tmp_path: Path):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    options = ["--preset", "scenes", "--data", str(tmp_path / "none"), "--run", str(tmp_path / "r")]
    command = [sys.executable, "-m", "pipelines.train", *options]
    assert subprocess.run(command, cwd=project_root, capture_output=True).returncode == 1
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2
