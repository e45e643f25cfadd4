"""The statistics of a manifest as one HTML page that needs nothing else: pictures are part of it, nothing is loaded."""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from data_tools.stats.numbers import by_count
from data_tools.stats.tables import (
    Rows,
    class_header,
    class_rows,
    clip_rows,
    probe_rows,
    task_line,
    task_lines,
    together_rows,
    together_title,
    total_row,
    unreadable_lines,
)
from data_tools.stats.tasks import TaskFacts
from hoi_train.core.palette import BLUE, GRID

if TYPE_CHECKING:
    from data_tools.stats.command import Statistics

_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>$title</title>
<style>
:root { color-scheme: light; --line: $grid; --bar: $blue; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 60rem; margin: 0 auto;
  padding: 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; } h2 { font-size: 1.2rem; margin-top: 2.5rem; } h3 { font-size: 1rem; }
.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding-bottom: .25rem; }
th, td { padding: .2rem .6rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th[scope=row], th.text, td.text { text-align: left; white-space: pre-wrap; overflow-wrap: normal; min-width: 6rem; }
th[scope=row] { font-weight: 400; } tfoot th, tfoot td { font-weight: 600; }
td.bar { width: 10rem; min-width: 6rem; padding-right: 0; }
td.bar span { display: block; height: .7rem; background: var(--bar); }
figure { margin: 1rem 0; overflow-x: auto; }
figure img { display: block; max-width: 100%; min-width: 26rem; height: auto; }
nav ul { padding-left: 1.2rem; }
@media print {
  body { max-width: none; font-size: 10pt; padding: 0; } nav { display: none; }
  .wide, figure { overflow: visible; } figure { break-inside: avoid; }
  figure img { min-width: 0; max-height: 24cm; }
  td.bar span { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  tr { break-inside: avoid; } h2, h3 { break-after: avoid; }
}
</style>
</head>
<body>
<h1>$title</h1>
<p>$summary</p>
<nav aria-label="Contents"><ul>$contents</ul></nav>
<main>
$sections
</main>
</body>
</html>
""")


@dataclass(frozen=True)
class Picture:
    """A PNG, and what it shows in words."""

    file: Path
    alt: str


def page(found: Statistics, pictures: Iterable[Picture]) -> str:
    """Return the page.

    Args:
        found: what it shows.
        pictures: PNGs, which become part of it; named as ``show_stats`` names them.
    """
    figures = {picture.file.stem: _figure(picture) for picture in pictures}
    sections = dict(_sections(found, figures))
    contents = "".join(f'<li><a href="#s{place}">{escape(title)}</a></li>' for place, title in enumerate(sections))
    bodies = (
        f'<section id="s{place}"><h2>{escape(title)}</h2>\n{body}\n</section>'
        for place, (title, body) in enumerate(sections.items())
    )
    path = found.manifest.path
    return _PAGE.substitute(
        grid=GRID,
        blue=BLUE,
        title=escape(f"Statistics of {path.name}"),
        summary=escape(f"{path}: {len(found.manifest):,} clips"),
        contents=contents,
        sections="\n".join(bodies),
    )


def _sections(found: Statistics, figures: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the title and the content of each part of the page."""
    clips = _table("Clips of each split", ["", *found.clips], clip_rows(found.clips), 0)
    if found.probe:
        clips += _table("What the headers of the files say", ["", "files"], probe_rows(found.probe), 1)
        clips += _items(unreadable_lines(found.probe))
    yield "Clips", clips + figures.get("lengths", "")
    for facts in found.tasks:
        name = facts.task.name
        plots = figures.get(f"class_counts_{name}", "") + figures.get(f"shift_{name}", "")
        said = f"<p>{escape(task_line(facts))}.</p>" + _items(task_lines(facts))
        yield f"Task {name}", said + plots + _classes(facts)
    for together in found.together:
        one, other = together.one.name, together.other.name
        if rows := together_rows(together):
            plot = figures.get("together_" + "_".join(dict.fromkeys((one, other))), "")
            caption = f"The most frequent, in {together.one.of}s with both"
            yield f"Together: {together_title(together)}", plot + _table(caption, [one, other, "number"], rows, 1)
    if found.manifest.warnings:
        yield "Notes", _items(found.manifest.warnings)


def _classes(facts: TaskFacts) -> str:
    """Return the table of a task's classes with a bar each, its length logarithmic as in the plot."""
    first = next(iter(facts.counts))
    counts = [facts.counts[first][class_id] for class_id in by_count(facts.counts)]
    longest = math.log1p(max(*counts, 1))
    bars = [f"{100 * math.log1p(count) / longest:.1f}" for count in counts]
    ratios = " A ratio is the share of a class in that split over its share in train." if facts.shift else ""
    said = f"<p>Bars: {escape(first)}, logarithmic.{ratios}</p>\n"
    name = f"Samples of each class of {facts.task.name}"
    return said + _table(name, class_header(facts), class_rows(facts), 1, total_row(facts), bars)


def _table(
    caption: str, columns: Sequence[str], rows: Rows, texts: int, last: Sequence[str] = (), bars: Sequence[str] = ()
) -> str:
    """Return a table; the column ``texts`` names its rows, and bars, in percent, stand at their ends."""
    head = "".join(f'<th scope="col"{_kind(place, texts)}>{escape(name)}</th>' for place, name in enumerate(columns))
    head += '<th scope="col" aria-hidden="true"></th>' if bars else ""
    ends = [f'<td class="bar" aria-hidden="true"><span style="width:{width}%"></span></td>' for width in bars]
    body = "\n".join(f"<tr>{_cells(row, texts)}{ends[place] if ends else ''}</tr>" for place, row in enumerate(rows))
    foot = f"<tfoot><tr>{_cells(last, texts)}</tr></tfoot>" if last else ""
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(caption)}"><table><caption>{escape(caption)}'
        f"</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody>{foot}</table></div>\n"
    )


def _cells(row: Sequence[str], texts: int) -> str:
    return "".join(
        f'<th scope="row">{escape(cell)}</th>'
        if place == min(texts, len(row) - 2)
        else f"<td{_kind(place, texts)}>{escape(cell)}</td>"
        for place, cell in enumerate(row)
    )


def _kind(place: int, texts: int) -> str:
    return ' class="text"' if place == texts else ""


def _items(lines: Iterable[str]) -> str:
    made = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<ul>{made}</ul>\n" if made else ""


def _figure(picture: Picture) -> str:
    data = b64encode(picture.file.read_bytes()).decode()
    return f'<figure tabindex="0"><img src="data:image/png;base64,{data}" alt="{escape(picture.alt)}"></figure>\n'
