"""The page over all videos of a run of `track --plot`: a table of their summaries, and their charts."""

from __future__ import annotations

import html
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

from canthus.commands.clip import PLOT, SUMMARY
from canthus.decode import decoding, encodable, fits, read_json
from canthus.errors import VideoError
from canthus.io.inputs import Found, file_of
from canthus.io.outputs import atomic_write, make_folder

PAGE = "tracks.html"
_COLUMNS = {
    "frames": "frames", "missing": "missing", "people": "people", "faces_per_frame": "faces per frame",
    "without_face": "frames without a face", "losses": "losses", "reinitialisations": "re-initialisations",
    "fps": "frames/s",
}  # fmt: skip
_STYLE = (
    "body{font:15px system-ui,sans-serif;max-width:1440px;margin:1em auto;padding:0 1em;color:#282c34}"
    "table{border-collapse:collapse}td,th{padding:.2em .7em;text-align:right;border-bottom:1px solid #d4d8de}"
    "td:first-child,th:first-child{text-align:left}img{max-width:100%}"
)


def write_page(found: Found, out: Path) -> None:
    """Write PAGE into `out`, over all videos that were found, also those that an earlier run did. Raises `OutputError`.

    A video without a summary is in the table as not done.
    """
    rows, charts = [], []
    for path, name in found.files:
        target = out / name
        summary = _summary(file_of(target, SUMMARY))
        shown = html.escape(encodable(str(path)))
        if summary is None:
            rows.append(f'<tr><td>{shown}</td><td colspan="{len(_COLUMNS) + 2}">not done</td></tr>')
            continue
        seen = [str(summary[key]) for key in _COLUMNS]
        counts = [str(sum(blink["eye"] == eye for blink in summary["blinks"])) for eye in ("right", "left")]
        cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in (*seen, *counts))
        anchor = html.escape(quote(os.fsencode(name)))
        if not file_of(target, PLOT).exists():
            rows.append(f"<tr><td>{shown}</td>{cells}</tr>")
            continue
        source = html.escape(quote(os.fsencode(file_of(target, PLOT).relative_to(out))))
        rows.append(f'<tr><td><a href="#{anchor}">{shown}</a></td>{cells}</tr>')
        charts.append(f'<h2 id="{anchor}">{shown}</h2><img loading="lazy" alt="chart of {shown}" src="{source}">')
    head = "".join(f"<th>{name}</th>" for name in ("video", *_COLUMNS.values(), "blinks right", "blinks left"))
    text = (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f"<title>Tracked videos</title><style>{_STYLE}</style><h1>Tracked videos</h1>"
        f"<table><tr>{head}</tr>{''.join(rows)}</table>{''.join(charts)}</html>\n"
    )
    atomic_write(make_folder(out) / PAGE, text.encode("utf-8", "surrogateescape"))


def _summary(path: Path) -> dict[str, Any] | None:
    """The summary of a video; None where there is none, or a broken one."""
    try:
        with decoding(VideoError, f"'{path}' cannot be read"):
            summary = read_json(path)
            if not (
                fits(summary, dict[str, Any])
                and fits(summary["blinks"], list[dict[str, Any]])
                and set(_COLUMNS) <= set(summary)
            ):
                raise ValueError("it lacks something")
            return summary
    except VideoError:
        return None
