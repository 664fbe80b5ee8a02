"""TensorBoard in Debian's Chromium, over a short run on drawn scenes.

Screenshots lie in `build/tensorboard` afterwards, for a person to look at.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import BrowserContext, Locator, Page, expect

from pipelines import prepare, train

# WebGL without a graphics card, which the projector draws by.
WEBGL = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
SHOTS = Path("build", "tensorboard")
PATIENCE = 60_000  # milliseconds; it is needed on a machine that does other things besides
VAL, WIDTH = 30, 16
EPOCHS = 2
STEPS = 64 // 8
SMALL = (
    *("--preset", "scenes", "--text.opposites", "[]", "--model.output_dim", str(WIDTH)),
    *("--image.head_dim", "64", "--text.word_dim", "16", "--text.widths", "[32]"),
    *("--stage1.epochs", str(EPOCHS), "--stage1.validate_every", "1", "--stage1.batch_size", "8"),
    *("--stage1.loss.image_instance", "1", "--stage1.loss.text_instance", "1"),
)
CURVES = {
    *("loss/total", "loss/image_instance", "loss/text_instance", "loss/pair"),
    *("accuracy/image_instance", "accuracy/text_instance"),
    *("speed/images a second", "speed/share waiting for input"),
    *("validation/rsum", "validation/i2t_r1", "validation/t2i_r1"),
    *(
        f"{kind}/{part}"
        for kind in ("learning_rate", "gradient_norm", "weight_norm")
        for part in ("image_backbone", "image_head", "text_tower", "instance_classifier")
    ),
}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where TensorBoard shows the run `short`."""
    root = tmp_path_factory.mktemp("tensorboard")
    sizes = ("--train-images", "64", "--val-images", str(VAL), "--test-images", "8")
    data = ("--out", str(root / "data"))
    assert prepare.main(["--source", "scenes", "--seed", "0", *data, *sizes]) == 0
    run = ("--data", str(root / "data"), "--run", str(root / "runs" / "short"))
    assert train.main([*run, *SMALL]) == 0
    script = Path(sys.executable).with_name("tensorboard")
    board = subprocess.Popen(
        [script, "--logdir", root / "runs", "--port", "0"], stderr=subprocess.PIPE, text=True
    )
    try:
        line = next(line for line in board.stderr if "http://localhost" in line)
        yield re.search(r"http://localhost:\d+/", line)[0]
    finally:
        board.kill()
        board.communicate()


@pytest.fixture(scope="module")
def context(start_browser: Callable[..., BrowserContext]) -> Iterator[BrowserContext]:
    context = start_browser(flags=WEBGL, viewport={"width": 1400, "height": 900})
    context.set_default_timeout(PATIENCE)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext, request: pytest.FixtureRequest) -> Iterator[Page]:
    page = context.new_page()
    yield page
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{request.node.name}.png")
    page.close()


def shows(element: Locator) -> None:
    expect(element).to_be_visible(timeout=PATIENCE)


def test_the_curves_have_their_names(page: Page, address: str):
    # Twelve curves of a group are shown at once.
    for group in sorted({curve.split("/")[0] for curve in CURVES}):
        page.goto(f"{address}#scalars&tagFilter=^{group}/")
        page.reload()
        for curve in sorted(curve for curve in CURVES if curve.startswith(f"{group}/")):
            shows(page.get_by_text(f"tag: {curve}", exact=True).first)
    shows(page.get_by_text("short/tensorboard/stage1/validation").first)


def test_the_images_are_the_hits_of_the_last_validation(page: Page, address: str):
    page.goto(f"{address}#images")
    for tag in ("images found by captions", "captions found by images"):
        shows(page.get_by_text(f"tag: retrieval/{tag}").first)
    shows(page.get_by_text(f"step {EPOCHS * STEPS}").first)
    shown = page.locator("tf-image-loader img")
    expect(shown).to_have_count(2, timeout=PATIENCE)
    page.wait_for_function(
        "images => images.every(image => image.naturalWidth)", arg=shown.element_handles()
    )
    sizes = {tuple(shown.nth(n).evaluate("i => [i.naturalWidth, i.naturalHeight]")) for n in (0, 1)}
    # Five rows; five thumbnails beside a caption, and five captions beside a thumbnail.
    assert sizes == {(846, 580), (1382, 580)}


def test_runs_are_compared_by_their_options(page: Page, address: str):
    page.goto(f"{address}#hparams")
    shows(page.get_by_text(re.compile("^short stage 1, ")).first)
    for name in ("stage1.learning_rate", "stage1.loss.pair_loss", "image.backbone"):
        page.get_by_text(name, exact=True).first.wait_for(state="attached")
    page.get_by_text("validation/rsum").first.wait_for(state="attached")


def test_the_projector_shows_both_modalities_with_thumbnails(page: Page, address: str):
    answers = {}
    page.on("response", lambda r: answers.setdefault(r.url.split("?")[0].split("/")[-1], r))
    page.goto(f"{address}#projector")
    # TensorBoard frames a plug-in, and the projector frames itself.
    inner = page.frame_locator("iframe").frame_locator("iframe")
    # Each of the images, and a caption of each.
    shows(inner.get_by_text(f"Points: {2 * VAL}"))
    shows(inner.get_by_text(f"Dimension: {WIDTH}"))
    shows(inner.get_by_text("1 tensor found").first)
    assert len(answers["tensor"].body()) == 2 * VAL * WIDTH * 4
    head, *labels = answers["metadata"].text().splitlines()
    assert head.split("\t") == ["modality", "caption", "image"]
    assert [label.split("\t")[0] for label in labels] == ["image"] * VAL + ["caption"] * VAL
    with Image.open(io.BytesIO(answers["sprite_image"].body())) as sprite:
        assert sprite.size == (8 * 48, 8 * 48)  # 60 thumbnails
    page.wait_for_timeout(1000)  # thumbnails fly to their places
    with Image.open(io.BytesIO(inner.locator("#scatter").screenshot())) as drawn:
        red, green, blue = np.moveaxis(np.asarray(drawn.convert("RGB")), -1, 0)
    # Captions have a blue frame, #1c7ed6; no scene is of that colour.
    frames = (red < 80) & (green > 90) & (green < 160) & (blue > 180)
    assert np.count_nonzero(frames) > 500
