"""The page: one HTML file with its style and pictures inside, and the small pieces it is made of."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #60686f; --paper: #ffffff; --panel: #f5f6f7;
  --rule: #dfe3e6; --c0: #2563c9; --c1: #c4570a; --c2: #1d7d52; --warn: #9a5b00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7eaed; --soft: #9aa4ad; --paper: #14171a; --panel: #1d2126;
  --rule: #31373e; --c0: #7fb0ff; --c1: #ffa25e; --c2: #63cf9d; --warn: #f0b95a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 2.5rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.25rem; margin: 2.8rem 0 .8rem; padding-top: 1rem; border-top: 1px solid var(--rule); }
h3 { font-size: .95rem; margin: 0 0 .3rem; }
p { margin: .4rem 0; max-width: 46rem; }
.soft, figcaption, .chart p { color: var(--soft); font-size: .88rem; }
.missing { color: var(--soft); font-style: italic; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .8rem; margin: 1.4rem 0 0; }
.tiles div { background: var(--panel); border-radius: .5rem; padding: .8rem 1rem; }
.tiles b { display: block; font-size: 1.6rem; line-height: 1.2; font-weight: 600; font-variant-numeric: tabular-nums; }
.tiles span { color: var(--soft); font-size: .82rem; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th, td { text-align: left; vertical-align: top; padding: .38rem .9rem .38rem 0; border-bottom: 1px solid var(--rule); }
th { font-weight: 600; color: var(--soft); font-size: .82rem; }
td.value { font-variant-numeric: tabular-nums; white-space: nowrap; font-weight: 600; }
tr.group td { padding-top: 1.1rem; font-weight: 600; }
figure { margin: 1rem 0; }
figure img { display: block; max-width: 100%; height: auto; image-rendering: pixelated; border-radius: .25rem; }
.strip { display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); gap: 1rem; }
.strip figure, .charts figure { margin: 0; } .strip img, .gallery img { image-rendering: auto; }
.gallery figure { margin: .3rem 0 1.8rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(19rem, 1fr)); gap: 1.6rem 1.4rem; }
.legend { display: flex; flex-wrap: wrap; gap: .1rem 1rem; font-size: .82rem; color: var(--soft); min-height: 1.4em; }
.legend b { color: var(--ink); font-weight: 600; font-variant-numeric: tabular-nums; }
.legend i { display: inline-block; width: .8rem; height: .2rem; margin-right: .35rem; vertical-align: middle; }
i.c0 { background: var(--c0); } i.c1 { background: var(--c1); } i.c2 { background: var(--c2); }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font-size: 11px; font-variant-numeric: tabular-nums; }
svg .grid { stroke: var(--rule); stroke-width: 1; }
svg rect.c0 { fill: var(--c0); } svg .zero { stroke: var(--soft); stroke-width: 1; }
svg polyline { fill: none; stroke-width: 1.8; stroke-linejoin: round; stroke-linecap: round; }
polyline.c0 { stroke: var(--c0); } polyline.c1 { stroke: var(--c1); } polyline.c2 { stroke: var(--c2); }
details { margin: 1rem 0; } summary { cursor: pointer; color: var(--soft); }
pre { background: var(--panel); border-radius: .5rem; padding: 1rem; overflow-x: auto; font-size: .82rem;
  line-height: 1.45; }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
ul { padding-left: 1.2rem; } li { margin: .35rem 0; max-width: 46rem; }
li.warn { color: var(--warn); }
.wide { overflow-x: auto; }
"""


def page(title: str, sections: Iterable[str]) -> str:
    head = (
        "<!doctype html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>\n"
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
    )
    return head + "\n".join(sections) + "\n</body>\n</html>\n"


def section(name: str, title: str, *parts: str) -> str:
    return f"<section id='{name}'>\n<h2>{escape(title)}</h2>\n" + "\n".join(parts) + "\n</section>"


def missing(words: str) -> str:
    return f"<p class='missing'>{escape(words)}</p>"


def picture(path: Path, caption: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    alt = escape(caption, quote=True)
    return (
        f"<figure><img src='data:image/png;base64,{data}' alt='{alt}'>"
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def table(head: Sequence[str], rows: Iterable[str]) -> str:
    heads = "".join(f"<th>{escape(name)}</th>" for name in head)
    return f"<div class='wide'><table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"


def row(name: str, value: str, *rest: str) -> str:
    cells = "".join(f"<td>{escape(cell)}</td>" for cell in rest)
    return f"<tr><td>{escape(name)}</td><td class='value'>{escape(value)}</td>{cells}</tr>"


def group(title: str, columns: int) -> str:
    return f"<tr class='group'><td colspan='{columns}'>{escape(title)}</td></tr>"


def folded(title: str, body: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{body}</details>"


def code(text: str) -> str:
    return f"<pre><code>{escape(text)}</code></pre>"


def facts(tree: Mapping[str, Any]) -> str:
    return table(("what", "value"), (f"<tr><td>{escape(k)}</td><td>{escape(v)}</td></tr>" for k, v in flat(tree)))


def flat(tree: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Dotted names and values of nested JSON, lists of plain values on one line."""
    if isinstance(tree, Mapping):
        items: Iterable[tuple[Any, Any]] = tree.items()
    elif isinstance(tree, list) and any(isinstance(item, (Mapping, list)) for item in tree):
        items = enumerate(tree)
    else:
        return [(prefix, said(tree))]
    return [pair for key, value in items for pair in flat(value, f"{prefix}.{key}" if prefix else str(key))]


def said(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(said(item) for item in value)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "not known"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
