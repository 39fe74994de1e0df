"""HTML as plain functions: every text is escaped unless it is HTML already.

    >>> tag("p", "a < b", class_="note")
    '<p class="note">a &lt; b</p>'
    >>> tag("p", tag("b", "1"), " & 2")
    '<p><b>1</b> &amp; 2</p>'
"""

import itertools
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from .style import CSS

VOID = ("img", "meta", "br", "hr")  # elements without an end tag
# The page loads nothing, whatever stands in it: pictures are part of it, and it has no script.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; " \
    "form-action 'none'"


class Html(str):
    """Text that is HTML. Any other text is escaped where it becomes a part of a page."""

    def __repr__(self) -> str:
        return repr(str(self))


def text(value: Any) -> Html:
    """A value as HTML: None is a dash, a float has four digits.

    Control characters, direction marks and bytes of a file name that are no UTF-8 are shown as
    escapes, so that no name can hide a part of the page or keep it from being written.
    """
    if isinstance(value, Html):
        return value
    said = "-" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
    said = "".join(c if c.isprintable() else repr(c)[1:-1] for c in said)
    return Html(escape(said, quote=True))


def tag(name: str, /, *children: Any, **attributes: Any) -> Html:
    """An element. class_ becomes class, and aria_label aria-label; None leaves an attribute out."""
    given = "".join(f' {key.rstrip("_").replace("_", "-")}="{text(value)}"'
                    for key, value in attributes.items() if value is not None)
    inside = "".join(map(text, children))
    return Html(f"<{name}{given}>" if name in VOID else f"<{name}{given}>{inside}</{name}>")


def join(parts: Iterable[Any], between: str = "\n") -> Html:
    """Parts one after the other, each escaped unless it is HTML."""
    return Html(between.join(map(text, parts)))


def table(caption: str, header: Sequence[Any], rows: Iterable[Sequence[Any]],
          notes: Sequence[int] = ()) -> Html:
    """A table in a box that scrolls by itself, so that the page never scrolls sideways.

    The first cell of each row is its head. notes: the numbers of the rows that are there to compare
    with, such as the paper's, and that are set apart.
    """
    rows = [list(row) for row in rows]
    numbers = [all(map(_is_number, column)) for column in zip(*rows, strict=True)]
    head = tag("tr", *(tag("th", cell, scope="col", class_="number" if n else None)
                       for cell, n in itertools.zip_longest(header, numbers, fillvalue=False)))
    body = join(tag("tr", tag("th", row[0], scope="row"), *(_cell(cell) for cell in row[1:]),
                    class_="other" if n in notes else None) for n, row in enumerate(rows))
    return tag("div", tag("table", tag("caption", tag("span", caption)),
                          tag("thead", head), tag("tbody", body)),
               class_="scroll", role="region", tabindex="0", aria_label=caption)


def _cell(value):
    return tag("td", value, class_="number" if _is_number(value) else "text")


def _is_number(value):
    """Also of an empty cell, which says nothing of its column."""
    return value is None or value == "" or isinstance(value, (int, float))


def section(name: str, title: str, *parts: Any) -> Html:
    """A section under a heading of the second order; `name` is what a link leads to."""
    return tag("section", tag("h2", title), join(parts), id=name)


def details(title: Any, *parts: Any, shown: bool = False) -> Html:
    """A part that opens on a click, and that is open on paper."""
    return tag("details", tag("summary", title), join(parts), **({"open": ""} if shown else {}))


def listing(title: str, pairs: Iterable[tuple[str, Any]]) -> Html:
    """A table of names and values of any length, which break into lines where they must."""
    rows = join(tag("tr", tag("th", name, scope="row"), tag("td", value)) for name, value in pairs)
    return tag("table", tag("caption", title), tag("tbody", rows), class_="listing")


def document(title: str, lines: Sequence[Any], sections: Sequence[tuple[str, str, Html]]) -> str:
    """The whole page: a heading, lines that say what was run, links, and the sections.

    lines: texts, or HTML as it is. sections: (name, title, HTML of `section`).
    """
    links = tag("nav", tag("ul", join(tag("li", tag("a", said, href=f"#{name}"))
                                      for name, said, _ in sections)), aria_label="Contents")
    head = join([
        tag("meta", charset="utf-8"),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">'),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title), tag("style", Html(CSS))])
    body = join([tag("header", tag("h1", title), join(map(_line, lines))), links,
                 tag("main", join(html for *_, html in sections))])
    return f'<!doctype html>\n<html lang="en">\n<head>{head}</head>\n<body>{body}</body>\n</html>\n'


def _line(line):
    return line if isinstance(line, Html) else tag("p", line)
