"""Mistakes are found in a second: of every verb, before TensorFlow is imported."""

from __future__ import annotations

import json
import resource
import shlex
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

# Each verb with options that are right, or as good as that until the model itself is needed; an
# option of `mistakes.txt` takes the place of the right one. Values are names in the folder of
# `world`, unless they begin with a colon.
TRAIN = (
    "--preset :flickr8k_small --data data --run new "
    "--stage1.batch_size :16 --stage2.batch_size :16 --stage2.epochs :1 "
    "--image.backbone :EfficientNetLite0"
)
RIGHT = {
    "prepare": "--source :table --annotations pairs.csv --images images --out new",
    "train": TRAIN,
    "evaluate": "--run run --data data",
    "export": "--run run --to new/model --format :litert --data data",
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
def test_every_verb_finds_mistakes_without_tensorflow(run_program, world: Path):
    lines = Path(__file__).with_name("mistakes.txt").read_text().splitlines()
    asked = [
        (verb, *mistake)
        for verbs, *mistake in (shlex.split(line) for line in lines if not line.startswith("#"))
        for verb in verbs.split(",")
    ]
    assert {verb for verb, *_ in asked} == set(RIGHT) == set(VERBS)
    before = files_of(world)
    commands = json.dumps([command(world, *mistake) for *mistake, _ in asked])
    answer = run_program(WITHOUT_TENSORFLOW + RUN, given=commands)
    found = json.loads(answer.stdout.splitlines()[-1])
    wanted = [[2, None] if code == "2" else [1, code] for *_, code in asked]
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
