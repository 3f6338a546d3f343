"""The training as a moving picture: what the model makes of the same latent points, epoch after epoch.

While a run of pictures trains, its directory keeps a small frame before training and after every epoch, or after every
n-th one of a long run.  Frames are drawn from a random state of their own, in evaluation mode, so that training goes on
as if nobody had looked.
"""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageColor, ImageDraw, ImageFont

from pyro_vae.errors import InputError
from pyro_vae.figures.pictures import as_arrays, mosaic
from pyro_vae.figures.style import BLUE
from pyro_vae.files.bounded import first_line, read_bounded
from pyro_vae.files.whole import write_picture
from pyro_vae.runs import latent_points
from pyro_vae.runs.folder import RunFolder
from pyro_vae.runs.run import Run

logger = logging.getLogger(__name__)

MAX_FRAMES = 50
SIDE, STYLES, MANIFOLD = 5, 10, 10  # of a grid of samples, of a class's row, of a manifold
MAX_CLASSES = 10
LARGEST = 480  # pixels per side of a frame
SHOWN, CAPTION = 320, 30  # pixels: the least width in the GIF, and the height of the line below
MAX_BYTES = 16 << 20  # of the file of a frame
DPI = 100  # of a figure that is as large as a frame
LAST_FRAME = 2000  # milliseconds


def begin(run: Run) -> None:
    """Prepare the frames of a run that starts or goes on: drop those that are not its past, and draw a missing first.

    A run that goes on with more epochs may want fewer frames than it has.
    """
    if run.folder is None:
        return
    done = len(run.history)
    run.folder.drop_frames(epoch for epoch in run.folder.frames if epoch > done or not _is_due(run, epoch))
    if done not in run.folder.frames:
        keep(run)


def keep(run: Run, last: bool = False) -> None:
    """Keep a frame of the run as it is, if it has a directory, makes pictures and one is due.

    A frame that cannot be drawn or written is one that is missing, and that is said.

    Args:
        run: a run under way, at the end of an epoch.
        last: whether this is its last epoch, of which there is always a frame.
    """
    epoch = len(run.history)
    if run.folder is None or not run.facts.are_pictures or not (last or _is_due(run, epoch)):
        return
    try:
        _keep(run, run.folder, epoch)
    except Exception as error:  # whatever a decoder or the disk has against it
        logger.warning(f"The frame of epoch {epoch} was not kept: {first_line(error)}")


def is_due(epoch: int, num_epochs: int, last: bool) -> bool:
    """Whether a frame of an epoch is kept: of every n-th one in a long run, and of the last."""
    return last or epoch % math.ceil(num_epochs / MAX_FRAMES) == 0


def _keep(run: Run, folder: RunFolder, epoch: int) -> None:
    if not run.generates:
        return
    with run.pair.evaluating():
        picture = frame(run)
    png = io.BytesIO()
    picture.save(png, format="PNG")
    folder.save_frame(epoch, png.getvalue())


def frame(run: Run) -> Image.Image:
    """The pictures of the same latent points each time: completions, a row per class, a manifold or samples."""
    if run.conditional:
        images, columns = run.complete(run.split("test")[: SIDE**2].x())[0], SIDE
    elif run.class_matters:
        classes = torch.arange(min(MAX_CLASSES, len(run.facts.class_names))).repeat_interleave(STYLES)
        images, columns = run.sample(len(classes), y=classes), STYLES
    elif _is_plane(run):
        images, columns = run.decode(latent_points.manifold_points(MANIFOLD)), MANIFOLD
    else:
        images, columns = run.sample(SIDE**2), SIDE
    canvas = mosaic(as_arrays(images), columns)
    picture = Image.fromarray((255 * np.nan_to_num(canvas)).round().astype(np.uint8))
    picture.thumbnail((LARGEST, LARGEST))
    return picture


def write_moving(frames: dict[int, Image.Image], path: Path, fps: int = 10) -> None:
    """Write the frames as what the name of the file ends in: ``.mp4``, or a GIF.

    Args:
        frames: pictures of one size, by epoch.
        path: the file.
        fps: frames per second, from 1 to 50.

    Raises:
        InputError: if the name ends in something else, ``fps`` is out of range, there is no ffmpeg for an MP4, or the
            place cannot be written.
    """
    kind = path.suffix.lower()
    if kind not in (".gif", ".mp4"):
        raise InputError("a file that ends in .gif or .mp4", path.name, f"use --out {path.stem or 'training'}.gif")
    (write_mp4 if kind == ".mp4" else write_gif)(frames, path, fps)


def write_mp4(frames: dict[int, Image.Image], path: Path, fps: int = 10) -> None:
    """Write an MP4 (H.264), which rests at its end, by matplotlib's writer.

    Args:
        frames: pictures of one size, by epoch.
        path: the file.
        fps: frames per second, from 1 to 50.

    Raises:
        InputError: if ``fps`` is out of range, there is no ffmpeg, or the place cannot be written.
    """
    from matplotlib.animation import FFMpegWriter
    from matplotlib.figure import Figure

    _check_rate(fps)
    if not FFMpegWriter.isAvailable():
        raise InputError("ffmpeg, to write an MP4", "none on this machine", "install ffmpeg, or use --out training.gif")
    palette, last = _palette(frames.values()), max(frames)
    pictures = [_captioned(picture, palette, epoch, last).convert("RGB") for epoch, picture in sorted(frames.items())]
    width, height = (-(-side // 2) * 2 for side in pictures[0].size)  # H.264 takes even numbers alone
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)

    def save(aside: Path) -> None:
        writer = FFMpegWriter(fps, codec="libx264", extra_args=["-pix_fmt", "yuv420p", "-crf", "18", "-f", "mp4"])
        with writer.saving(figure, str(aside), DPI):
            for picture in pictures + [pictures[-1]] * round(fps * LAST_FRAME / 1000):
                figure.clear()
                figure.figimage(np.asarray(picture), 0, height - picture.height)
                writer.grab_frame()

    write_picture(path, save)


def _check_rate(fps: int) -> None:
    if not 1 <= fps <= 50:
        raise InputError("from 1 to 50 frames per second", str(fps), "use --fps 10")


def write_gif(frames: dict[int, Image.Image], path: Path, fps: int = 10) -> None:
    """Write a GIF that runs forever and rests at its end.

    Args:
        frames: pictures of one size, by epoch.
        path: the file.
        fps: frames per second, from 1 to 50; rounded to what a GIF can say, hundredths of a second per frame.

    Raises:
        InputError: if ``fps`` is out of range, or the place cannot be written.
    """
    _check_rate(fps)
    palette, last = _palette(frames.values()), max(frames)
    pictures = [_captioned(picture, palette, epoch, last) for epoch, picture in sorted(frames.items())]
    durations = [10 * round(100 / fps)] * (len(pictures) - 1) + [LAST_FRAME]

    def save(aside: Path) -> None:
        pictures[0].save(aside, format="GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0)

    write_picture(path, save)


def read_frames(folder: RunFolder) -> dict[int, Image.Image]:
    """The frames of a run by epoch, all of the last one's size.

    Raises:
        InputError: if there are none, or one cannot be read.
    """
    frames: dict[int, Image.Image] = {}
    for epoch, path in folder.frames.items():
        try:
            with Image.open(io.BytesIO(read_bounded(path, MAX_BYTES)), formats=("PNG",)) as picture:
                if max(picture.size) > LARGEST:
                    raise ValueError(f"a picture of {picture.width}x{picture.height} pixels")
                frames[epoch] = picture.convert("RGB")
        except Exception as error:  # Pillow raises of any kind for a broken file
            raise InputError(f"a frame that fit wrote at {path}", first_line(error), "remove it") from None
    if not frames:
        raise InputError(
            f"frames of the training in {folder.path / 'frames'}",
            "none, as of data that are not pictures and of runs from before there were frames",
            "fit pictures anew",
        )
    size = frames[max(frames)].size
    return {epoch: picture.resize(size) for epoch, picture in frames.items()}


def _is_due(run: Run, epoch: int) -> bool:
    return is_due(epoch, run.config.num_epochs, last=False)


def _is_plane(run: Run) -> bool:
    if not run.structure.continuous:
        return False
    site = run.structure.continuous[run.latent_site()]
    return site.is_real and site.size == 2


def _palette(pictures: Collection[Image.Image]) -> Image.Image:
    """The 256 colours of a GIF, the same in every frame: most of them for the pictures, the rest for the captions."""
    width, height = next(iter(pictures)).size
    sheet = Image.new("RGB", (width, height * len(pictures)))
    for row, picture in enumerate(pictures):
        sheet.paste(picture, (0, row * height))
    captions = np.array([[17 * level] * 3 for level in range(16)] + [ImageColor.getrgb(BLUE)])
    colors = np.array(sheet.quantize(256 - len(captions)).getpalette()).reshape(-1, 3)[: 256 - len(captions)]
    colors[colors.min(1) >= 248] = 255  # else Pillow, which looks colours up in steps of 4, finds these for white
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.concatenate([colors, captions]).astype(np.uint8).tobytes())
    return palette


def _captioned(picture: Image.Image, palette: Image.Image, epoch: int, last: int) -> Image.Image:
    """A frame at the size in which it is shown, above its epoch and how far that is."""
    factor = math.ceil(SHOWN / picture.width)
    width, height = factor * picture.width, factor * picture.height
    caption = Image.new("RGB", (width, CAPTION), "white")
    draw = ImageDraw.Draw(caption)
    from matplotlib import get_data_path  # late: training keeps frames without it

    font = ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), 14)
    middle, left, right = CAPTION // 2, 100, width - 9
    draw.text((8, middle), f"epoch {epoch}", fill="black", font=font, anchor="lm")
    draw.line((left, middle, right, middle), fill="#dddddd", width=3)
    if epoch:
        draw.line((left, middle, left + round((right - left) * epoch / last), middle), fill=BLUE, width=3)
    page = palette.resize((width, height + CAPTION))
    page.paste(picture.quantize(palette=palette).resize((width, height), Image.Resampling.NEAREST))
    page.paste(caption.quantize(palette=palette, dither=Image.Dither.NONE), (0, height))
    return page
