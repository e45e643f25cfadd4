"""OpenCV, imported in one place, with a limit of pixels and one thread. Import this module lazily."""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt

MAX_PIXELS = 2**26  # per picture; a few bytes of JPEG can claim more than the memory
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))  # read when OpenCV is loaded

import cv2 as cv2  # noqa: E402 - imported from here by others

cv2.setNumThreads(1)  # one core per worker


def decode_jpeg(data: bytes) -> npt.NDArray[np.uint8]:
    """Decode a JPEG picture to uint8 ``[H, W, 3]``, RGB; a damaged one may be filled with grey without an error.

    Raises:
        ValueError: not a JPEG picture, or over 2^26 pixels.
    """
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise ValueError(str(error).strip().rpartition("\n")[2]) from None
    if picture is None:
        raise ValueError("not a JPEG picture")
    return np.asarray(picture, np.uint8)


def encode_jpeg(picture: npt.NDArray[np.uint8], quality: int) -> bytes:
    """Encode uint8 ``[H, W, 3]``, RGB, as JPEG 4:2:0 with optimised tables; ``quality`` in 1..100."""
    options = {
        cv2.IMWRITE_JPEG_QUALITY: quality,
        cv2.IMWRITE_JPEG_OPTIMIZE: 1,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR: cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    }
    _, data = cv2.imencode(".jpg", picture[..., ::-1], [number for option in options.items() for number in option])
    return bytes(data)
