"""Drawn scenes: what they hold, that what is said of them is true, and what is swapped is false.

Truth is judged by a reader of its own here, which knows the words but not how they were put.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import math
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from PIL import Image

from tests.errors import raises
from tests.samples import Steps, digests
from tf_dpce.datasets.shapes import grammar
from tf_dpce.datasets.shapes.captions import Group
from tf_dpce.datasets.shapes.drawing import draw_png
from tf_dpce.datasets.shapes.scene import Scene, make_scene
from tf_dpce.datasets.shapes.source import draw_scenes, scene_numbers
from tf_dpce.logging import run_context

SCENES = [make_scene(seed, index) for seed in (0, 7) for index in range(100)]

NUMBERS = {"a": 1, "one": 1, "two": 2, "three": 3}
SIZES = {"small": "small", "little": "small", "large": "large", "big": "large"}
SHAPES = {word: one for one in grammar.SHAPES for word in (one, grammar.SHAPES[one])}
GROUP = re.compile(rf"\b({'|'.join(NUMBERS)}) ({'|'.join(SIZES)}) (\w+) ({'|'.join(SHAPES)})\b")
RELATIONS = {
    "left": r"(?:to the left of|left of)",
    "right": r"(?:to the right of|right of)",
    "above": r"(?:above|over)",
    "below": r"(?:below|under)",
}
# The groups of the first and second relation: (one, other), by their order in the caption.
SKELETONS = {
    r"in this image G (?:is|are) R G and also R G": ((0, 1), (0, 2)),
    r"in the image there (?:is|are) G R G which (?:is|are) R G": ((0, 1), (1, 2)),
    r"somewhere R G and also R G there (?:is|are) G": ((2, 0), (2, 1)),
    r"you can see G with G R (?:it|them) and with G R (?:it|them)": ((1, 0), (2, 0)),
    r"R G which (?:is|are) R G you can see G": ((2, 0), (0, 1)),
}

# What a swap can be, and the words of each.
WORDS_OF = {
    "count": NUMBERS,
    "size": SIZES,
    "colour": grammar.COLOURS,
    "shape": SHAPES,
    "relation": ("left", "right", "above", "over", "below", "under"),
}
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}

Said = tuple[list[tuple[int, str, str, str]], list[tuple[int, str, int]]]


def understand(caption: str) -> Said:
    groups = [
        (NUMBERS[number], SIZES[size], colour, SHAPES[shape])
        for number, size, colour, shape in GROUP.findall(caption)
    ]
    skeleton = GROUP.sub("G", caption)
    pattern = re.compile("|".join(f"({words})" for words in RELATIONS.values()))
    names = [list(RELATIONS)[match.lastindex - 1] for match in pattern.finditer(skeleton)]
    skeleton = pattern.sub("R", skeleton)
    [roles] = [roles for form, roles in SKELETONS.items() if re.fullmatch(form, skeleton)]
    return groups, [(one, name, other) for name, (one, other) in zip(names, roles, strict=True)]


def lies(one: Group, name: str, other: Group, lenient: bool) -> bool:
    right, down = one.x - other.x, one.y - other.y
    ahead = {"left": -right, "right": right, "above": -down, "below": down}[name]
    aside = abs(down) if name in ("left", "right") else abs(right)
    return ahead > 0 if lenient else ahead > 1.2 * aside and ahead > 15


def holds(said: Said, scene: Scene, lenient: bool) -> bool:
    """Whether the groups of the scene can be put to the words in any way so that all is true."""
    groups, relations = said
    for order in itertools.permutations(scene.groups):
        kinds = [(group.count, group.size, group.colour, group.shape) for group in order]
        if kinds == groups and all(
            lies(order[one], name, order[other], lenient) for one, name, other in relations
        ):
            return True
    return False


# --- what is said ---------------------------------------------------------------------------------


def test_every_caption_is_true_and_its_twin_is_false_with_two_words_exchanged():
    exchanged = Counter()
    for scene in SCENES:
        twins = zip(scene.captions, scene.swapped_captions, scene.swaps, strict=True)
        for caption, swapped, swap in twins:
            said = understand(caption)
            assert len(said[0]) == len(scene.groups) and len(said[1]) == 2
            assert holds(said, scene, lenient=False), caption
            assert not holds(understand(swapped), scene, lenient=True), (caption, swapped)
            pairs = zip(caption.split(), swapped.split(), strict=True)
            first, second = [(before, after) for before, after in pairs if before != after]
            assert first == second[::-1]
            assert first[0] in WORDS_OF[swap] and first[1] in WORDS_OF[swap]
            exchanged[frozenset(first)] += 1
    # Swaps exchange every kind of word.
    words = set().union(*exchanged)
    assert {"small", "left", "above", "two", "three", "red", "squares", "circle"} <= words
    assert max(exchanged.values()) < 0.5 * exchanged.total()


def test_a_turned_caption_says_the_opposite_of_every_relation_and_nothing_else_new():
    for scene in SCENES:
        for caption, turned in zip(scene.captions, scene.turned_captions, strict=True):
            groups, relations = understand(caption)
            opposite = [(one, OPPOSITE[name], other) for one, name, other in relations]
            assert understand(turned) == (groups, opposite)
            assert not holds((groups, opposite), scene, lenient=True)


def test_five_paraphrases_use_five_templates_and_fit_the_text_tower():
    lengths = set()
    for scene in SCENES:
        assert len(set(scene.captions)) == 5
        assert len({GROUP.sub("G", caption).split()[0] for caption in scene.captions}) >= 3
        lengths |= {len(caption.split()) for caption in scene.captions}
    assert 18 <= min(lengths) and max(lengths) <= 32


# --- what is drawn --------------------------------------------------------------------------------


def test_scenes_have_three_groups_several_counts_and_some_overlap():
    counts = Counter(group.count for scene in SCENES for group in scene.groups)
    assert set(counts) == {1, 2, 3} and counts[1] > counts[2] > counts[3]
    overlapping = 0
    for scene in SCENES:
        assert len(scene.groups) >= 3
        assert len(scene.objects) == sum(group.count for group in scene.groups)
        assert len(scene.specks) >= grammar.SPECKS[0]
        overlapping += any(
            math.dist((one.x, one.y), (other.x, other.y)) < one.half_side + other.half_side
            for one, other in itertools.combinations(scene.objects, 2)
        )
    assert overlapping > 0.2 * len(SCENES)


def test_the_image_shows_the_objects_where_they_are():
    for size in (64, 128):
        for scene in SCENES[:20]:
            image = Image.open(io.BytesIO(draw_png(scene, size)))
            assert image.format == "PNG" and image.mode == "RGB" and image.size == (size, size)
            front = scene.objects[-1]
            centre = tuple(int(value * size / grammar.SIDE) for value in (front.x, front.y))
            assert image.getpixel(centre) == front.rgb


# --- where it comes from --------------------------------------------------------------------------


def test_scenes_are_what_they_were_in_every_process():
    digest = hashlib.sha256()
    for index in range(20):
        scene = make_scene(5, index)
        digest.update(repr((scene.captions, scene.swapped_captions)).encode())
        digest.update(Image.open(io.BytesIO(draw_png(scene, 64))).tobytes())
    assert digest.hexdigest() == "fc6db8ef2523e0c2ae83a915cbd41e613633cffe664cfb8ca34fd3e9a53205dc"


def test_test_scenes_stay_the_same_however_many_train():
    few, many = scene_numbers(train=10, val=4, test=5), scene_numbers(train=99, val=4, test=5)
    assert few["test"] == many["test"] and few["val"] == many["val"]
    for numbers in (few, many):
        indices = [index for span in numbers.values() for index in span]
        assert sorted(indices) == list(range(len(indices))), "no scene is in two splits"


def test_drawing_replaces_what_was_drawn_and_yields_what_can_be_made_again(tmp_path: Path):
    folder = tmp_path / "scenes"
    list(draw_scenes(folder, 4, scene_numbers(train=5, val=1, test=1), 64))
    display = Steps()
    with run_context(display=display):
        images = list(draw_scenes(folder, 5, scene_numbers(train=2, val=1, test=1), 64))
    names = [".drawn", *(f"{i:06d}.png" for i in range(4))]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert display.steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert Counter(image.split for image in images) == {"train": 2, "val": 1, "test": 1}
    for image in images:
        scene = make_scene(5, int(image.image_id))
        assert image.captions == scene.captions and image.instance == image.image_id
        assert image.path == folder / f"{image.image_id}.png"
        assert image.path.read_bytes() == draw_png(scene, 64)


def test_a_folder_of_somebody_elses_images_is_refused_at_once_and_left_as_it_is(tmp_path: Path):
    (tmp_path / "000001.png").write_bytes(b"a holiday")
    with raises("scenes.folder", tmp_path):
        draw_scenes(tmp_path, 5, scene_numbers(train=2, val=1, test=1), 64)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"a holiday"]


# --- processes ------------------------------------------------------------------------------------


def test_drawing_in_processes_draws_the_same_and_leaves_none(tmp_path: Path, monkeypatch):
    # Else they start at so many scenes that a test would wait for them.
    monkeypatch.setattr("tf_dpce.datasets.shapes.source._FEWEST_FOR_PROCESSES", 1)
    folder, numbers = tmp_path / "scenes", scene_numbers(train=70, val=10, test=20)

    def draw(workers: int) -> tuple[list, dict]:
        return list(draw_scenes(folder, 2, numbers, 32, workers)), digests(folder)

    assert draw(workers=1) == draw(workers=2)
    # Left half way.
    scenes = draw_scenes(folder, 2, numbers, 32, workers=2)
    next(scenes)
    assert len(multiprocessing.active_children()) == 2
    scenes.close()
    assert multiprocessing.active_children() == []


def test_drawing_processes_load_no_tensorflow_and_end_with_a_killed_parent():
    code = (
        "import time; from tf_dpce.datasets.shapes.source import drawing_map\n"
        'program = \'__import__("os").getpid(), list(__import__("sys").modules)\'\n'
        "with drawing_map(2) as run:\n"
        "    print(*next(iter(run(eval, [program]))), flush=True)\n"
        "    time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    worker, _, loaded = parent.stdout.readline().partition(" ")
    worker = int(worker)
    assert "tf_dpce.datasets.shapes.source" in loaded
    assert not any(f"'{name}'" in loaded for name in ("tensorflow", "keras", "numpy"))
    os.kill(worker, 0)
    parent.kill()
    assert parent.wait() == -signal.SIGKILL
    parent.stdout.close()
    deadline = time.monotonic() + 30
    while _runs(worker):
        assert time.monotonic() < deadline, "it outlives its parent"
        time.sleep(0.01)


def _runs(process: int) -> bool:
    """A process that has ended may stay listed until somebody asks how."""
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"
