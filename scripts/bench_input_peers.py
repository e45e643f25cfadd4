"""Data sets, readers and processes of ``scripts/bench_input.py``."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Iterator, Sequence, Set
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional

from data_tools.cli import main as hoi_data
from hoi_train.core.randomness import generator
from hoi_train.core.records import ClassList, Task
from hoi_train.data.dataset import ClipDataset
from hoi_train.data.loader import ClipLoader
from hoi_train.data.manifest import Manifest, read_manifest, write_manifest
from hoi_train.data.opencv import cv2
from hoi_train.data.readers import open_clip
from hoi_train.data.samplers import Item
from hoi_train.data.sampling import Indices, segment_frames
from hoi_train.data.transforms import Augment, Geometry
from hoi_train.data.workers import worker_context

Image = npt.NDArray[np.uint8]

WIDTH, HEIGHT, LENGTH, FPS, BITS = 640, 480, 72, 24, 7
X264 = {"preset": "fast", "g": "250", "b": "800k", "threads": "1"}
T, SIZE, BATCH, WORKERS = 10, 224, 4, 2
AUGMENT = Augment(size=SIZE, scale=(0.5, 1.0), ratio=(0.75, 4 / 3), rotation=10.0)


def make_sets(root: Path, clips: int, wanted: Set[str]) -> dict[str, int]:
    """Make the source and the requested sets below a folder; return the bytes of each."""
    (root / "source").mkdir(parents=True)
    names = [*(f"clip{number:03}" for number in range(clips)), "numbered"]
    with ProcessPoolExecutor(WORKERS, worker_context()) as pool:
        list(pool.map(partial(_make_clip, root), names))
    rows = [
        {"clip_id": name, "path": f"{name}.mp4", "split": "val" if name == "numbered" else "train", "scene": "room"}
        for name in names
    ]
    manifest = root / "source" / "manifest.parquet"
    write_manifest(manifest, rows, [Task("scene", ClassList(("room",)), "single")], root / "source")
    tools = {"reencoded": ("reencode",), "cache 256": ("cache",), "cache 224": ("cache", "--short-side", "224")}
    for folder in tools.keys() & wanted:
        tool, *options = tools[folder]
        with contextlib.redirect_stdout(io.StringIO()):
            code = hoi_data([tool, str(manifest), "--out", str(root / folder), *options])
        if code:
            raise SystemExit(f"hoi-data {tool} of {manifest}: exit code {code}")
    sets = {"source": "*.mp4", "reencoded": "**/*.mp4", "cache 256": "**/*.zip", "cache 224": "**/*.zip"}
    sets |= {"jpeg 480": "**/*.jpg", "jpeg 256": "**/*.jpg"}
    return {
        name: sum(path.stat().st_size for path in (root / name).glob(form))
        for name, form in sets.items()
        if name in wanted | {"source"}
    }


def _make_clip(root: Path, name: str) -> None:
    path = root / "source" / f"{name}.mp4"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=FPS, options=X264)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number, image in enumerate(_scene(name)):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(_numbered(image, number, name))))
        output.mux(stream.encode())
    for number, image in enumerate(pyav_frames(path, np.arange(LENGTH))):
        for side, width in ((480, 640), (256, 342)):
            file = root / f"jpeg {side}" / name / f"{number:05}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            _pil().fromarray(cv2.resize(image, (width, side), interpolation=cv2.INTER_AREA)).save(file, quality=90)


def _scene(name: str) -> Iterator[Image]:
    """Yield frames of a textured room seen by a moving, distorting camera, and of an object moving through it."""
    rng = np.random.default_rng(list(name.encode()))
    room, thing = _texture(rng, 1000), _texture(rng, 160)
    bends = [
        cv2.resize(rng.normal(0, 1, (2, 5, 6))[axis], (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC) for axis in (0, 1)
    ]
    noise = rng.normal(0, 2.0, (HEIGHT + 64, WIDTH + 64, 3)).astype(np.float32)
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    phases = rng.uniform(0, 2 * np.pi, 8)
    for number in range(LENGTH):
        swing = np.sin(np.array([0.9, 0.7, 4.0, 5.0, 2.0, 1.6, 1.7, 1.3]) * number / FPS + phases)
        moved = [
            (place + middle + 100 * slow + 5 * fast + 8 * bent * bend).astype(np.float32)
            for place, middle, slow, fast, bent, bend in zip(
                (x, y), (180, 260), swing[:2], swing[2:4], swing[4:6], bends, strict=True
            )
        ]
        image = cv2.remap(room, moved[0], moved[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        left, top = (int(240 + 150 * swing[6]), int(160 + 100 * swing[7]))
        image[top : top + 160, left : left + 160] = thing
        dx, dy = rng.integers(0, 64, 2)
        yield np.clip(image + noise[dy : dy + HEIGHT, dx : dx + WIDTH], 0, 255).astype(np.uint8)


def _texture(rng: np.random.Generator, side: int) -> Image:
    """Draw a square whose JPEG frames have about as many bytes as those of a home video."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side))
    grey, *colours = (
        np.fft.irfft2(np.fft.rfft2(rng.normal(size=(side, side))) / (frequency + 1 / side) ** 1.8) for _ in range(4)
    )
    mixed = np.stack([grey / grey.std() + 0.4 * colour / colour.std() for colour in colours], axis=-1)
    return np.asarray(np.clip(127 + 50 * mixed, 0, 255), np.uint8)


def _numbered(image: Image, number: int, name: str) -> Image:
    """Draw the bits of a frame's number across its upper third, in the control clip."""
    for bit in range(BITS if name == "numbered" else 0):
        image[:160, bit * 91 : (bit + 1) * 91] = 255 * (number >> bit & 1)
    return image


def number_of(image: Image) -> int:
    """Return the number drawn into a frame of any size."""
    height, width = image.shape[:2]
    blocks = (
        image[height // 12 : height // 4, round(width * (bit + 0.3) / 7) : round(width * (bit + 0.7) / 7)]
        for bit in range(BITS)
    )
    return sum(int(block.mean() > 127) << bit for bit, block in enumerate(blocks))


def bare_frames(path: Path, indices: Indices) -> list[Any]:
    """Decode packets up to the last requested frame and convert nothing; the result is for the check only."""
    return [frame.to_ndarray(format="rgb24") for frame in _bare(path, indices)]


def _bare(path: Path, indices: Indices) -> list[av.VideoFrame]:
    wanted, kept, number = set(indices.tolist()), [], 0
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count, stream.thread_type = 1, "NONE"
        for packet in container.demux(stream):
            for frame in packet.decode():
                if number in wanted:
                    kept.append(frame)
                number += 1
            if len(kept) == len(wanted):
                return [kept[sorted(wanted).index(index)] for index in indices.tolist()]
    raise ValueError(f"{path}: too short")


def pyav_frames(path: Path, indices: Indices) -> Image:
    """Decode all frames, select the requested ones."""
    with av.open(str(path)) as container:
        frames: list[Any] = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack([frames[index] for index in indices])


def decord_frames(path: Path, indices: Indices) -> Image:
    """Read the frames with decord, which seeks."""
    import decord

    return np.asarray(decord.VideoReader(str(path), num_threads=1).get_batch(indices).asnumpy())


def pytorchvideo_frames(path: Path, indices: Indices) -> Tensor:
    """Read the whole clip with pytorchvideo, then select the requested frames, float ``[T, 3, H, W]``."""
    from pytorchvideo.data.encoded_video import EncodedVideo  # imports no transforms, which today's torchvision breaks

    with contextlib.closing(EncodedVideo.from_path(str(path), decode_audio=False)) as video:
        clip: Tensor = video.get_clip(0, video.duration)["video"]
    return clip.index_select(1, torch.from_numpy(indices)).transpose(0, 1)


def pil_frames(folder: Path, indices: Indices) -> list[Any]:
    """Open the JPEG files of the requested frames as PIL images."""
    return [_pil().open(folder / f"{index:05}.jpg").convert("RGB") for index in indices]


def _pil() -> Any:
    from PIL import Image as Pillow

    return Pillow


def torchvision_chain(frames: Tensor, view: Geometry) -> Tensor:
    """Rotate the full frames, crop and resize, flip: ``[T, 3, H, W]``, uint8 or float, to uint8 ``[3, T, S, S]``."""
    (x0, y0, x1, y1), degrees, mirrored = view
    video: Tensor = functional.rotate(frames, degrees, functional.InterpolationMode.BILINEAR)
    video = functional.resized_crop(video, y0, x0, y1 - y0, x1 - x0, [SIZE, SIZE], antialias=True)
    video = functional.horizontal_flip(video) if mirrored else video
    video = video if video.dtype == torch.uint8 else video.round().clamp(0, 255).to(torch.uint8)
    return video.transpose(0, 1)


def _pil_chain(frames: Sequence[Any], view: Geometry) -> Tensor:
    pil, made = _pil(), []
    for frame in frames:
        shown = frame.rotate(view.degrees, pil.Resampling.BILINEAR).resize(
            (SIZE, SIZE), pil.Resampling.BILINEAR, view.crop
        )
        made.append(np.asarray(shown.transpose(pil.Transpose.FLIP_LEFT_RIGHT) if view.mirrored else shown))
    return torch.from_numpy(np.stack(made)).permute(3, 0, 1, 2)


class Peer(NamedTuple):
    """A way to read clips, compared with the others.

    Args:
        label: of its table row.
        source: the set it reads.
        frames: reads frames of a path; ``None`` for readers of ``hoi_train``.
        reader: name of the reader in ``hoi_train``; ``None`` for others.
    """

    label: str
    source: str
    frames: Callable[[Path, Indices], Any] | None = None
    reader: str = "auto"


PEERS = {
    "raw": Peer("**hoi_train, raw source**", "source"),
    "bare": Peer("bare decode (no colours, no augmentation)", "source", bare_frames),
    "pytorchvideo": Peer("pytorchvideo `EncodedVideo` + torchvision (float)", "source", pytorchvideo_frames),
    "pyav": Peer("PyAV, decode all, pick + torchvision (uint8)", "source", pyav_frames),
    "decord": Peer("decord `get_batch` + torchvision (uint8)", "source", decord_frames),
    "pil 480": Peer("PIL, JPEG folder 640 x 480", "jpeg 480", pil_frames),
    "pil 256": Peer("PIL, JPEG folder short side 256", "jpeg 256", pil_frames),
    "raw decord": Peer("hoi_train, raw source, reader decord", "source", reader="decord"),
    "raw torchcodec": Peer("hoi_train, raw source, reader torchcodec", "source", reader="torchcodec"),
    "reencoded": Peer("**hoi_train, reencoded**", "reencoded"),
    "reencoded decord": Peer("hoi_train, reencoded, reader decord", "reencoded", reader="decord"),
    "reencoded torchcodec": Peer("hoi_train, reencoded, reader torchcodec", "reencoded", reader="torchcodec"),
    "cache 256": Peer("**hoi_train, frame cache, short side 256**", "cache 256"),
    "cache 224": Peer("hoi_train, frame cache, short side 224", "cache 224"),
}


class PlainDataset(Dataset[Tensor]):
    """A minimal data set around a function that reads frames; random draws are those of ``ClipDataset``."""

    def __init__(self, peer: Peer, root: Path, names: Sequence[str]) -> None:
        self.read, self.names, self.folder = peer.frames, names, root / peer.source
        self.suffix = ".mp4" if peer.source == "source" else ""

    def __getitem__(self, item: Item) -> Tensor:
        name, epoch = self.names[item.clip], item.epoch or 0
        path = self.folder / f"{name}{self.suffix}"
        indices = segment_frames(LENGTH, T, generator(0, "frames", epoch, name))
        if self.read is bare_frames:
            return torch.tensor(len(_bare(path, indices)))
        assert self.read is not None
        frames, draws = self.read(path, indices), generator(0, "augment", epoch, name)
        if isinstance(frames, list):
            width, height = frames[0].size
            return _pil_chain(frames, AUGMENT.geometry(width, height, draws))
        video = frames if isinstance(frames, Tensor) else torch.from_numpy(frames).permute(0, 3, 1, 2)
        return torchvision_chain(video, AUGMENT.geometry(video.shape[3], video.shape[2], draws))


class Runner:
    """Execute the measurements of one peer in its process."""

    def __init__(self, name: str, root: Path) -> None:
        torch.set_num_threads(1)
        self.peer = PEERS[name]
        folder = root / self.peer.source
        manifest = read_manifest((folder if self.peer.frames is None else root / "source") / "manifest.parquet")
        self.clips, self.control = manifest.split("train"), manifest.split("val").clip(0)
        self.dataset: Any = (
            self._ours(self.clips) if self.peer.frames is None else PlainDataset(self.peer, root, self.clips.clip_ids)
        )
        self.root = root

    def _ours(self, clips: Manifest) -> ClipDataset:
        return ClipDataset(clips, clips.tasks, (AUGMENT, AUGMENT), num_frames=T, reader=self.peer.reader)

    def numbers(self, indices: Indices) -> list[int]:
        """Return the numbers drawn into frames of the control clip."""
        if self.peer.frames is None:
            with open_clip(self.control, self.peer.reader) as reader:
                return [number_of(frame) for frame in reader.read(indices)]
        suffix = ".mp4" if self.peer.source == "source" else ""
        found = self.peer.frames(self.root / self.peer.source / f"numbered{suffix}", indices)
        found = found.permute(0, 2, 3, 1).numpy() if isinstance(found, Tensor) else found
        return [number_of(np.asarray(frame)) for frame in found]

    def sample(self, count: int) -> Tensor | None:
        """Return augmented clips, uint8 ``[N, 3, T, S, S]``; none of the bare decode."""
        return None if self.peer.frames is bare_frames else self._batch(_items(len(self.clips), count, 0))

    def alone(self, epoch: int, batches: int) -> tuple[float, float]:
        """Return milliseconds and CPU milliseconds per clip, without workers."""
        items = _items(len(self.clips), batches * BATCH, epoch)
        began, used = time.perf_counter(), time.process_time()
        for start in range(0, len(items), BATCH):
            self._batch(items[start : start + BATCH])
        scale = 1000 / len(items)
        return scale * (time.perf_counter() - began), scale * (time.process_time() - used)

    def workers(self, epoch: int, batches: int) -> float:
        """Return the clips per second with workers, measured after the first batch of each."""
        items = _items(len(self.clips), (batches + WORKERS) * BATCH, epoch)
        if self.peer.frames is None:
            given = iter(
                ClipLoader(self.dataset, BATCH, workers=WORKERS).training(
                    epoch, drawn=torch.tensor([item.clip for item in items])
                )
            )
        else:
            orders = [items[start : start + BATCH] for start in range(0, len(items), BATCH)]
            loader = DataLoader(
                self.dataset, batch_sampler=orders, num_workers=WORKERS, multiprocessing_context=worker_context()
            )
            given = iter(loader)
        for _ in range(WORKERS):
            next(given)
        began = time.perf_counter()
        clips = BATCH * sum(1 for _ in given)
        return clips / (time.perf_counter() - began)

    def _batch(self, items: list[Item]) -> Tensor:
        if isinstance(self.dataset, ClipDataset):
            return self.dataset.batch(items).video
        return torch.stack([self.dataset[item] for item in items])


def _items(clips: int, count: int, epoch: int) -> list[Item]:
    return [Item(number % clips, 1000 * epoch + number // clips) for number in range(count)]


def serve(name: str, root: Path, line: Connection) -> None:
    """Answer calls of a peer's ``Runner`` until ``None`` comes."""
    runner = Runner(name, root)
    line.send(None)
    for method, arguments in iter(line.recv, None):
        line.send(getattr(runner, method)(*arguments))
