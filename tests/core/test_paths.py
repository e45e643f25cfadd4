"""Names that a manifest can hold, and paths that stay in the data root."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from hoi_train.core.paths import CONTROL, inside, is_plain


@pytest.mark.parametrize(
    ("letter", "plain"), [("é", True), (" ", True), ("\x80", True), ("\0", False), ("\x1f", False), ("\x7f", False)]
)
def test_control_characters(letter: str, plain: bool) -> None:
    assert is_plain(f"a{letter}b") == plain
    assert pc.match_substring_regex(pa.array([f"a{letter}b"]), CONTROL).to_pylist() == [not plain]


def test_a_surrogate_is_not_plain() -> None:
    assert not is_plain("a\udcff")


def test_paths_of_a_root(tmp_path: Path) -> None:
    root, link = tmp_path / "root", tmp_path / "link"
    (root / "a").mkdir(parents=True)
    link.symlink_to(root)
    (root / "a" / "out.mp4").symlink_to("/dev/null")
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path, found in (
        ("a/b.mp4", "a/b.mp4"),
        ("./a//b.mp4", "a/b.mp4"),
        (f"{root}/a/b.mp4", "a/b.mp4"),
        (f"{link}/a/b.mp4", "a/b.mp4"),
        (f"{link}/a/out.mp4", "a/out.mp4"),
        ("a/../b.mp4", None),
        (f"{root}/../root/b.mp4", None),
        (f"{tmp_path}/b.mp4", None),
        (f"{tmp_path}/root2/b.mp4", None),
        (f"{loop}/b.mp4", None),
        ("/a\0/b.mp4", None),
        (f"/{'x' * 300}/b.mp4", None),
    ):
        assert inside(root, path) == found, path
