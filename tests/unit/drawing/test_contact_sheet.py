"""A contact sheet shows every hit, whatever its image is like."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tf_dpce.drawing.contact_sheet import MOST_HITS, SheetRow, contact_sheet, fit, font, wrap
from tf_dpce.search.answer import Hit

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def plain(path: Path, size: tuple[int, int], colour, mode: str = "RGB") -> Path:
    Image.new(mode, size, colour).save(path)
    return path


def hits_of(paths: list[Path]) -> list[Hit]:
    return [Hit(rank, path.name, 1 / rank, path=str(path)) for rank, path in enumerate(paths, 1)]


def drawn(rows: list[SheetRow], folder: Path) -> np.ndarray:
    contact_sheet(rows, folder / "sheet.png")
    with Image.open(folder / "sheet.png") as sheet:
        assert sheet.format == "PNG"
        return np.asarray(sheet.convert("RGB"))


def area(sheet: np.ndarray, colour: tuple[int, int, int]) -> int:
    """Number of pixels of exactly one colour."""
    return int(np.all(sheet == colour, axis=-1).sum())


def box(sheet: np.ndarray, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what has one colour, the ends not included."""
    rows, columns = np.nonzero(np.all(sheet == colour, axis=-1))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


# --- images -------------------------------------------------------------------------------------


def test_an_image_touches_its_box_from_inside(tmp_path: Path):
    for size, expected in (
        ((1, 1), (100, 100)),
        ((400, 200), (100, 50)),
        ((20, 40), (50, 100)),
        ((5000, 1), (100, 1)),  # 0.02 pixels high, if it had not the least of one
        ((1, 5000), (1, 100)),
    ):
        image = fit(plain(tmp_path / "a.png", size, RED), 100, 100)
        assert (image.size, image.getpixel((0, 0))) == (expected, RED)


def test_images_of_any_mode_show_their_colour(tmp_path: Path):
    grey16 = Image.fromarray(np.full((8, 8), 65535 // 2, np.uint16))
    grey16.save(tmp_path / "grey16.png")
    assert fit(tmp_path / "grey16.png", 8, 8).getpixel((0, 0)) == (127, 127, 127)
    clear = plain(tmp_path / "clear.png", (8, 8), (255, 0, 0, 0), "RGBA")
    assert fit(clear, 8, 8).getpixel((0, 0)) == (255, 255, 255), "transparent shows the paper"
    assert fit(plain(tmp_path / "l.png", (8, 8), 100, "L"), 8, 8).getpixel((0, 0)) == (100,) * 3
    assert fit(plain(tmp_path / "1.png", (8, 8), 1, "1"), 8, 8).getpixel((0, 0)) == (255,) * 3
    cmyk = fit(plain(tmp_path / "cmyk.jpg", (8, 8), (0, 255, 255, 0), "CMYK"), 8, 8)
    assert np.abs(np.subtract(cmyk.getpixel((0, 0)), RED)).max() <= 3, "JPEG keeps no exact colour"
    frames = [Image.new("RGB", (8, 8), colour) for colour in (GREEN, BLUE)]
    frames[0].save(tmp_path / "animated.png", save_all=True, append_images=frames[1:])
    assert fit(tmp_path / "animated.png", 8, 8).getpixel((0, 0)) == GREEN


def test_a_turned_photograph_is_shown_upright(tmp_path: Path):
    turned = Image.new("RGB", (40, 20), RED)
    exif = turned.getexif()
    exif[0x0112] = 6  # the camera was held upright: turn by a quarter
    turned.save(tmp_path / "turned.jpg", exif=exif)
    assert fit(tmp_path / "turned.jpg", 40, 40).size == (20, 40)


def test_what_is_no_image_says_why(tmp_path: Path):
    (tmp_path / "text.jpg").write_text("not an image")
    whole = plain(tmp_path / "whole.png", (64, 64), RED).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    plain(tmp_path / "bomb.png", (9000, 8000), 0, "1")  # 72 million pixels in a few kilobytes
    assert fit(tmp_path / "gone.jpg", 8, 8) == "missing"
    assert fit(tmp_path / "text.jpg", 8, 8) == "cannot be shown"
    assert fit(tmp_path / "cut.png", 8, 8) == "cannot be shown"
    assert fit(tmp_path, 8, 8) == "cannot be shown"
    assert fit(tmp_path / "bomb.png", 8, 8) == "too large to show"


# --- text -----------------------------------------------------------------------------------------


def test_text_fits_loses_nothing_and_ends_in_an_ellipsis_if_it_is_too_long():
    draw, face = np.random.default_rng(0), font(14)
    words = ["".join(draw.choice(list("abcdefgh"), draw.integers(1, 40))) for _ in range(30)]
    lines, few = (wrap(" ".join(words), face, 150, most) for most in (1000, 3))
    assert all(face.getlength(line) <= 150 for line in lines + few)
    assert "".join(lines).replace(" ", "") == "".join(words)
    assert len(few) == 3 and few[:2] == lines[:2] and few[2].endswith("…")


def test_text_is_made_printable():
    for text, lines in (("", []), ("  one\n\ttwo  ", ["one two"]), ("bell\x07", ["bell\ufffd"])):
        assert wrap(text, font(14), 1000, 3) == lines
    assert wrap("one two", font(14), 40, 3) == ["one", "two"]


# --- sheets ---------------------------------------------------------------------------------------


def test_a_sheet_shows_each_image_once_in_rank_order(tmp_path: Path):
    colours = [RED, GREEN, BLUE, (255, 255, 0), (255, 0, 255), (0, 255, 255), (128, 0, 0)]
    paths = [plain(tmp_path / f"{n}.png", (30, 30), c) for n, c in enumerate(colours)]
    sheet = drawn([SheetRow("seven squares", hits_of(paths))], tmp_path)
    corners = [box(sheet, colour)[:2] for colour in colours]
    sizes = {area(sheet, colour) for colour in colours}
    assert sizes == {208 * 208}, "all fill their boxes"
    # Five in a line from left to right, then the next line.
    assert [corners.index(corner) for corner in sorted(corners, key=lambda c: (c[1], c[0]))] == [
        *range(7)
    ]
    assert corners[5][0] == corners[0][0] and corners[5][1] > corners[0][1] + 208


def test_every_kind_of_hit_and_query_has_its_place(tmp_path: Path):
    red, blue = plain(tmp_path / "r.png", (9, 4), RED), plain(tmp_path / "b.png", (5, 5), BLUE)
    rows = [
        SheetRow("a text", hits_of([red])),
        SheetRow(
            blue, [Hit(1, "7#0", 0.5, text="A caption."), Hit(2, "7#1", -0.5, text="x" * 999)]
        ),
        SheetRow("nothing", []),
    ]
    sheet = drawn(rows, tmp_path)
    assert area(sheet, RED) == 208 * round(208 * 4 / 9)
    assert area(sheet, BLUE) == 152 * 152
    assert box(sheet, RED)[3] < box(sheet, BLUE)[1], "queries follow one another"


def test_a_missing_image_is_a_placeholder_with_its_name(tmp_path: Path):
    gone = [Hit(1, "same", 1.0, path=str(tmp_path / name)) for name in ("one.jpg", "two.jpg")]
    first, second = (drawn([SheetRow("a", [hit])], tmp_path) for hit in gone)
    assert first.shape == second.shape
    changed = np.nonzero(np.any(first != second, axis=-1))
    # Only the name in the middle of the box differs.
    assert 0 < changed[0].max() - changed[0].min() < 20
    assert 28 < changed[1].min() and changed[1].max() < 28 + 208


def test_hits_beyond_the_most_are_counted(tmp_path: Path):
    red = plain(tmp_path / "r.png", (5, 5), RED)
    hits = [Hit(rank, "r.png", 0.0, path=str(red)) for rank in range(1, MOST_HITS + 8)]
    sheet = drawn([SheetRow("many", hits)], tmp_path)
    assert area(sheet, RED) == MOST_HITS * 208 * 208


def test_the_probability_stands_for_the_score_beside_the_number_of_hidden_duplicates(
    tmp_path: Path,
):
    red = str(plain(tmp_path / "r.png", (5, 5), RED))

    def below(**fields) -> np.ndarray:
        """The pixels below the box of the only hit, from its middle to its right edge."""
        sheet = drawn([SheetRow("a", [Hit(1, "r.png", path=red, **fields)])], tmp_path)
        _, _, right, bottom = box(sheet, RED)
        return sheet[bottom : bottom + 24, right - 104 : right]

    likely = below(score=0.5, probability=0.87)
    np.testing.assert_array_equal(likely, below(score=0.1, probability=0.87))
    assert (likely != below(score=0.5, probability=0.13)).any()
    assert (likely != below(score=0.5)).any()
    # The number stands left of it.
    hidden = below(score=0.5, probability=0.87, duplicates=("a", "b"))
    assert (likely[:, :-40] == 255).all() and (hidden[:, :-40] != 255).any()
