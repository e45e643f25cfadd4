"""The page is one well-formed file that loads nothing, whatever the names in it."""

from __future__ import annotations

import io
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from data_tools.stats.command import show_stats
from hoi_train.core.records import ClassList, Task
from hoi_train.data.manifest import write_manifest

EVIL = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "$title", "a & b", "żółw 🐢")
VOID = {"meta", "img", "br", "hr", "link"}


class Reader(HTMLParser):
    """Gathers elements and text; every opened element must be closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, Any]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, Any]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    folder: Path = tmp_path_factory.mktemp("page")
    task = Task("verb", ClassList(EVIL), "single")
    rows = [
        {"clip_id": str(k), "path": f"{k}.mp4", "split": ("train", "val")[k % 2], "verb": EVIL[k % 3], "end": 1.0 + k}
        for k in range(12)
    ]
    made = write_manifest(folder / "<b>m</b>.jsonl".replace("/", "_"), rows, [task], folder)
    *_, file = show_stats(made, folder / "out", Console(file=io.StringIO()))
    reader = Reader()
    reader.feed(file.read_text(encoding="utf-8"))
    reader.close()
    return reader


def test_it_is_well_formed_and_names_are_text(page: Reader) -> None:
    assert not page.open
    assert not page.all("script")
    cells = {text.strip() for text in page.text}
    assert set(EVIL) <= cells
    assert "Statistics of <b>m<_b>.jsonl" in cells


def test_it_loads_nothing(page: Reader) -> None:
    assert all(image["src"].startswith("data:image/png;base64,") for image in page.all("img"))
    assert len(page.all("img")) == 3
    assert not page.all("link")
    assert all(link["href"].startswith("#s") for link in page.all("a"))
    policies = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_it_can_be_heard_and_fits_a_phone(page: Reader) -> None:
    assert page.all("html") == [{"lang": "en"}]
    assert any(meta.get("name") == "viewport" for meta in page.all("meta"))
    assert all(len(image["alt"]) > 30 for image in page.all("img"))
    assert len(page.all("caption")) == len(page.all("table")) > 0
    assert all(heading.get("scope") in ("col", "row") for heading in page.all("th"))
    targets = {attributes["id"] for attributes in page.all("section")}
    assert {link["href"][1:] for link in page.all("a")} == targets
    assert "@media print" in "".join(page.text)
