from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from pyro_vae.data import decoding
from pyro_vae.data.decoding import decode, decode_all, is_image
from pyro_vae.errors import InputError

GRAY = np.arange(6 * 8, dtype=np.uint8).reshape(6, 8) * 5
COLOR = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def saved(path: Path, pixels: np.ndarray, mode: str | None = None, **options: object) -> Path:
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "bmp", "gif", "pgm", "tif", "TIFF"])
def test_gray_files_come_back_to_the_bit(tmp_path, suffix):
    pixels = decode(saved(tmp_path / f"a.{suffix}", GRAY))
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, GRAY[None])


@pytest.mark.parametrize(("suffix", "options"), [("png", {}), ("bmp", {}), ("ppm", {}), ("webp", {"lossless": True})])
def test_color_files_come_back_to_the_bit(tmp_path, suffix, options):
    assert np.array_equal(decode(saved(tmp_path / f"a.{suffix}", COLOR, **options)), COLOR.transpose(2, 0, 1))


@pytest.mark.parametrize("suffix", ["jpg", "jpeg"])
def test_jpeg_is_close(tmp_path, suffix):
    smooth = np.linspace(0, 255, 32 * 32).reshape(32, 32).astype(np.uint8)
    pixels = decode(saved(tmp_path / f"a.{suffix}", smooth, quality=95))
    assert pixels.shape == (1, 32, 32)
    assert np.abs(pixels[0].astype(int) - smooth).max() <= 4


def test_a_palette_is_gray_if_all_the_colors_in_use_are(tmp_path):
    two = np.zeros((4, 4, 3), np.uint8)
    two[:2] = 204  # PIL's palette goes in steps of 51
    for name in ("a.gif", "a.png"):
        assert np.array_equal(decode(saved(tmp_path / name, two, "P")), two[None, :, :, 0])
    two[:2] = (204, 0, 0)
    assert np.array_equal(decode(saved(tmp_path / "b.gif", two, "P")), two.transpose(2, 0, 1))


def test_black_and_white(tmp_path):
    assert decode(saved(tmp_path / "a.png", GRAY > 100))[0].tolist() == ((GRAY > 100) * 255).tolist()


def test_the_first_frame_of_several(tmp_path):
    frames = [Image.fromarray(np.full((4, 4), value, np.uint8)) for value in (10, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert np.array_equal(decode(tmp_path / "a.gif"), np.full((1, 4, 4), 10))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_become_eight(tmp_path, suffix):
    deep = np.array([[0, 257, 200 * 257 + 100], [128, 129, 65535]], np.uint16)
    assert decode(saved(tmp_path / f"a.{suffix}", deep)).tolist() == [[[0, 1, 200], [0, 1, 255]]]


def test_sixteen_bits_of_a_pgm(tmp_path):
    (tmp_path / "a.pgm").write_bytes(b"P5 2 1 65535\n" + np.array([257, 65535], ">u2").tobytes())
    assert decode(tmp_path / "a.pgm").tolist() == [[[1, 255]]]


@pytest.mark.parametrize(
    ("pixels", "message"), [(np.ones((2, 2), np.float32), "floating-point"), (np.full((2, 2), -1, np.int32), "16 bits")]
)
def test_what_eight_bits_cannot_hold(tmp_path, pixels, message):
    with pytest.raises(ValueError, match=message):
        decode(saved(tmp_path / "a.tif", pixels))


def test_what_is_transparent_is_black(tmp_path):
    pixels = np.full((1, 3, 4), 200, np.uint8)
    pixels[0, :, 3] = (0, 255, 51)  # a fifth of 200 is 40
    assert decode(saved(tmp_path / "a.png", pixels)).tolist() == [[[0, 200, 40]]] * 3
    assert decode(saved(tmp_path / "b.png", pixels[:, :, [0, 3]])).tolist() == [[[0, 200, 40]]]


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize(
    ("orientation", "turned"), [(3, np.rot90(GRAY, 2)), (6, np.rot90(GRAY, -1)), (2, GRAY[:, ::-1])]
)
def test_images_are_turned_as_their_tag_says(tmp_path, suffix, orientation, turned):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(decode(saved(tmp_path / f"a.{suffix}", GRAY, exif=exif)), turned[None])


def test_a_large_jpeg_that_lies_on_its_side(tmp_path):
    """Left half black, right half white, and to be turned a quarter clockwise: black comes up, on a fast path."""
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.zeros((400, 800), np.uint8)
    pixels[:, 400:] = 255
    small = decode(saved(tmp_path / "a.jpg", pixels, exif=exif, quality=95), (16, 8))
    assert small.shape == (1, 16, 8)
    assert small[0, :7].max() <= 4
    assert small[0, 9:].min() >= 251


def test_a_size_crops_the_middle_and_keeps_the_aspect(tmp_path):
    pixels = np.zeros((30, 10), np.uint8)
    pixels[10:20] = 255
    square = decode(saved(tmp_path / "a.png", pixels), (5, 5))[0]
    assert (square[1:-1] == 255).all()
    assert (square > 200).all()  # the filter reaches over the crop's edge by half a pixel
    half = decode(tmp_path / "a.png", (15, 5))[0]
    assert half[[2, 7, 12]].tolist() == [[0] * 5, [255] * 5, [0] * 5]
    assert np.array_equal(decode(tmp_path / "a.png", (30, 10)), pixels[None])


def test_resizing_is_antialiased(tmp_path):
    """A checkerboard of single pixels is gray from afar; without a filter it would be black or white."""
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    assert np.abs(decode(saved(tmp_path / "a.png", board), (8, 8)).astype(int) - 127.5).max() < 8


def test_only_formats_of_images_are_opened(tmp_path):
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")
    with pytest.raises(UnidentifiedImageError):
        decode(tmp_path / "a.png")


def test_what_counts_as_an_image():
    assert all(is_image(Path(name)) for name in ("a.png", "a.JPG", "b.c.webp"))
    assert not any(is_image(Path(name)) for name in ("README", ".DS_Store", "._a.png", "a.txt", "png"))


def test_gray_and_color_together_become_color_in_order(tmp_path):
    files = [saved(tmp_path / f"{i}.png", pixels) for i, pixels in enumerate((GRAY, COLOR, GRAY, COLOR))]
    decoded = decode_all(tmp_path, files)
    gray = np.broadcast_to(GRAY, (3, 6, 8))
    assert np.array_equal(decoded.pixels, [gray, COLOR.transpose(2, 0, 1)] * 2)
    assert decode_all(tmp_path, files[:1]).pixels.shape == (1, 1, 6, 8)


def test_many_files_come_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "_CHUNK", 7)
    files = [saved(tmp_path / f"{i}.png", np.full((2, 2), i, np.uint8)) for i in range(30)]
    files[11].write_bytes(b"")
    files[12].write_bytes(files[13].read_bytes()[:40])
    decoded = decode_all(tmp_path, files)
    assert decoded.rows.tolist() == decoded.pixels[:, 0, 0, 0].tolist() == [i for i in range(30) if i not in (11, 12)]
    assert [line.split(" (")[0] for line in decoded.unreadable] == ["11.png", "12.png"]


def test_two_sizes_are_refused(tmp_path):
    files = [saved(tmp_path / "a.png", GRAY), saved(tmp_path / "b.png", GRAY.T)]
    with pytest.raises(InputError, match=r"of one size in .*; got 6x8 \(a.png\) and 8x6 \(b.png\); use .*:size=64"):
        decode_all(tmp_path, files)
    assert decode_all(tmp_path, files, (4, 4)).pixels.shape == (2, 1, 4, 4)


def test_images_that_would_fill_the_memory_are_refused(tmp_path, monkeypatch):
    files = [saved(tmp_path / "a.png", GRAY)] * 3
    monkeypatch.setattr(decoding, "MAX_BYTES", 2 * GRAY.size)
    with pytest.raises(InputError, match=r"got 3 of 6x8, .*; use .*:size=64"):
        decode_all(tmp_path, files)
    assert decode_all(tmp_path, files[:2]).pixels.shape == decode_all(tmp_path, files[:2], (6, 8)).pixels.shape
    assert len(decode_all(tmp_path, files, (6, 8)).pixels) == 3
