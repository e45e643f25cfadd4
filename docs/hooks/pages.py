"""Generate the pages of the site that are not written by hand, when it is built.

- ``index.md`` and the project's pages are README.md, CONTRIBUTING.md, CHANGELOG.md and SECURITY.md of the repository.
- ``configuration/*.md`` come from the schema of :class:`hoi_train.config.RunConfig`, which is made from the signatures
  and docstrings of the entries in the tables (``LOSSES``, ``METHODS``, ``BACKBONES`` …).
- ``api/*.md`` name the modules of each package for mkdocstrings.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from configuration import configuration_pages  # noqa: E402 - found once the path is set

PROJECT_PAGES = {"index.md": "README.md", **{name: name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")}}
PACKAGES = (
    *("hoi_train", "hoi_train.core", "hoi_train.data", "hoi_train.data.manifest", "hoi_train.data.readers"),
    *("hoi_train.models", "hoi_train.losses", "hoi_train.methods", "hoi_train.metrics", "hoi_train.engine"),
    *("hoi_train.inference", "hoi_train.tracking", "hoi_train.reports", "data_tools.importers"),
)

Pages = Mapping[str, str]


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Generate the pages and put them into the navigation."""
    config.extra["generated"] = {"Configuration": configuration_pages(), "API": dict(_api_pages())}
    for item in config.nav or []:
        for title, pages in config.extra["generated"].items():
            if title in item:
                item[title] = [{Path(page).stem: page} if title == "API" else page for page in pages]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages and those of the repository to the files of the site."""
    pages = {path: text for group in config.extra["generated"].values() for path, text in group.items()}
    pages |= {page: _project_page(ROOT / source) for page, source in PROJECT_PAGES.items()}
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Lead links of the guides to pages of the repository to those pages of the site."""
    return _led_to_the_site(markdown.replace("](../", "]("))


def _project_page(source: Path) -> str:
    """Return a page of the repository with its links as the site needs them: without ``docs/``."""
    text = re.sub(r"\]\(docs/", "](", source.read_text(encoding="utf-8"))
    return _led_to_the_site(text)


def _led_to_the_site(text: str) -> str:
    return text.replace("](README.md", "](index.md")


def _api_pages() -> Iterator[tuple[str, str]]:
    for package in PACKAGES:
        folder = ROOT / package.replace(".", "/")
        modules = sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))
        title = f"::: {package}\n    options: {{heading_level: 1}}"
        yield f"api/{package}.md", "\n\n".join([title, *(f"::: {package}.{module}" for module in modules)])
