"""OpenCV, imported in one place: bounded, and in one thread. Import this module where it is needed, not before."""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt

MAX_PIXELS = 2**26  # of a picture: a few bytes of JPEG can claim more than there is memory
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))  # read once, when OpenCV is loaded

import cv2 as cv2  # noqa: E402 - others take it from here

cv2.setNumThreads(1)  # a worker has one core; threads of its own would fight the other workers'


def decode_jpeg(data: bytes) -> npt.NDArray[np.uint8]:
    """Return a JPEG picture as uint8 ``[H, W, 3]``, RGB; raises ``ValueError`` if it is none or has over 2^26 pixels.

    A damaged one may come without an error, filled with grey.
    """
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise ValueError(str(error).strip().rpartition("\n")[2]) from None
    if picture is None:
        raise ValueError("not a JPEG picture")
    return np.asarray(picture, np.uint8)


def encode_jpeg(picture: npt.NDArray[np.uint8], quality: int) -> bytes:
    """Return a picture uint8 ``[H, W, 3]``, RGB, as JPEG of 4:2:0 with the smallest tables; ``quality`` in 1..100."""
    options = {
        cv2.IMWRITE_JPEG_QUALITY: quality,
        cv2.IMWRITE_JPEG_OPTIMIZE: 1,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR: cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    }
    _, data = cv2.imencode(".jpg", picture[..., ::-1], [number for option in options.items() for number in option])
    return bytes(data)
