"""The report for people: an HTML page that prints well, without script, and the same page as a PDF.

The PDF holds the page's text and tables and its QR code, neither pictures nor plots, so nothing of the upload is
decoded here. A font with wide coverage is embedded, and the same page gives the same bytes. reportlab is imported when
the first one is made.
"""

from __future__ import annotations

import importlib.metadata
import io
import threading
from html.parser import HTMLParser
from typing import Any
from xml.sax.saxutils import escape

from flask import render_template

from utils.types import CASE_DOCUMENT
from web_app.reports import document as words

FONT, BOLD = "DejaVuSans", "DejaVuSans-Bold"
INK = {"red": "#a3231b", "green": "#1a6437", "amber": "#7a5200", "slate": "#3f4c5a"}
QR_POINTS, TEXT_POINTS = 85, 493
WIDTHS = {2: (100, 393), 3: (272, 140, 81), 4: (84, 234, 90, 85)}
"""Points of each column, by how many a table has: facts, the files of a case, the networks."""
MISSING = "\N{WHITE SQUARE}"
_LOCK = threading.Lock()  # reportlab keeps its fonts in one table of the process


def render_html(document: dict[str, Any], media_url: str | None, page_url: str) -> str:
    """The page of an analysis or of a case.

    Args:
        document: signed; see `build_document` and `build_case`.
        media_url: of the picture, which is then shown with the faces' boxes; None for videos, deleted files and cases.
        page_url: where the result stands; shown as a QR code.
    """
    name = "case_report.html" if document["document"] == CASE_DOCUMENT else "report.html"
    code = qr_code(page_url)
    return render_template(name, document=document, words=words, media_url=media_url, page_url=page_url, code=code)


def qr_code(text: str) -> tuple[int, str]:
    """A QR code: how many squares it is wide, and its dark ones as the path of an SVG of that size."""
    from reportlab.graphics.barcode.qrencoder import QRCode, QRErrorCorrectLevel

    code = QRCode(None, QRErrorCorrectLevel.M)
    code.addData(text)
    code.make()
    size = code.getModuleCount()
    dark = [(x, y) for y in range(size) for x in range(size) if code.isDark(y, x)]
    return size, "".join(f"M{x} {y}h1v1h-1z" for x, y in dark)


def render_pdf(page: str, footer: str, page_url: str) -> bytes:
    """A page of a report, in HTML, on A4 pages with a footer; `page_url` is that of the QR code."""
    from reportlab.lib.pagesizes import A4
    from reportlab.lib.units import mm
    from reportlab.platypus import SimpleDocTemplate

    out = io.BytesIO()

    def finish(canvas: Any, _template: Any) -> None:
        canvas.setFont(FONT, 7)
        canvas.drawString(18 * mm, 11 * mm, footer)
        canvas.drawRightString(A4[0] - 18 * mm, 11 * mm, f"Page {canvas.getPageNumber()}")

    with _LOCK:
        setter = _Setter(_register_fonts(), page_url)
        setter.feed(page)
        pages = SimpleDocTemplate(
            out, pagesize=A4, leftMargin=18 * mm, rightMargin=18 * mm, topMargin=18 * mm, bottomMargin=20 * mm,
            title=f"Telltale: {setter.title}", author="Telltale", invariant=1, lang="en",
        )  # fmt: skip
        pages.build(setter.story, onFirstPage=finish, onLaterPages=finish)
    return out.getvalue()


def _register_fonts() -> set[int]:
    """Have the fonts that matplotlib ships, without importing it; the characters that they have."""
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.ttfonts import TTFont

    folder = importlib.metadata.distribution("matplotlib").locate_file("matplotlib/mpl-data/fonts/ttf")
    for name in {FONT, BOLD} - set(pdfmetrics.getRegisteredFontNames()):
        pdfmetrics.registerFont(TTFont(name, f"{folder}/{name}.ttf"))
    return set(pdfmetrics.getFont(FONT).face.charToGlyph)


class _Setter(HTMLParser):
    """Sets the headings, paragraphs, lists and tables of our pages, one below the other; leaves out what is drawn.

    `verdict` stands in a frame; `--red` and the like at the end of a class colour the next heading.
    """

    def __init__(self, glyphs: set[int], page_url: str) -> None:
        from reportlab.lib.styles import ParagraphStyle

        super().__init__()
        body = ParagraphStyle("body", fontName=FONT, fontSize=9, leading=12.5)
        small = ParagraphStyle("small", parent=body, fontSize=7.5, leading=10, textColor="#4b5968")
        heading = ParagraphStyle(
            "heading", parent=body, fontName=BOLD, fontSize=11, leading=15, spaceBefore=12, spaceAfter=3, keepWithNext=1
        )
        self._styles = {
            "p": body, "td": body, "th": body, "dd": body, "dt": small, "small": small, "kicker": small,
            "li": ParagraphStyle("point", parent=body, leftIndent=9, firstLineIndent=-9, spaceBefore=2),
            "h1": ParagraphStyle("title", parent=heading, fontSize=15, leading=19, spaceBefore=0),
            "h2": heading, "h3": ParagraphStyle("below", parent=heading, fontSize=9.5, spaceBefore=6),
        }  # fmt: skip
        self._glyphs, self._page_url = glyphs, page_url
        self.story: list[Any] = []
        self.title = self._text = self._class = self._tone = self._left_out = ""
        self._rows: list[list[Any]] = [[]]
        self._frame: tuple[str, int] | None = None  # tag of what is framed, and where it begins

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._left_out:
            return
        classes = dict(attrs).get("class") or ""
        tone = classes.rpartition("--")[2]
        self._tone = tone if tone in INK else self._tone
        if "drawn" in classes.split() or tag == "svg":
            self._left_out = tag
            if classes == "code":
                self.story.append(_qr_drawing(self._page_url))
        elif "verdict" in classes.split():
            self._frame = tag, len(self.story)
        if tag in self._styles or tag == "title":
            self._text, self._class = "", classes

    def handle_data(self, data: str) -> None:
        self._text += "" if self._left_out else data

    def handle_endtag(self, tag: str) -> None:
        if self._left_out:
            self._left_out = "" if tag == self._left_out else self._left_out
        elif tag == "title":
            self.title = self._clean()
        elif tag in ("td", "th", "dt", "dd"):
            self._rows[-1].append(self._set(tag))
        elif tag in self._styles:
            self.story.append(self._set(tag))
        if tag in ("tr", "dd"):
            self._rows.append([])
        elif tag in ("table", "dl"):
            self.story.append(_table([row for row in self._rows if row]))
            self._rows = [[]]
        elif self._frame and tag == self._frame[0]:
            self.story[self._frame[1] :] = [_framed(self.story[self._frame[1] :], INK[self._tone])]
            self._frame, self._tone = None, ""

    def _clean(self) -> str:
        """The text of an element, with a square for each character that the font lacks."""
        return "".join(c if ord(c) in self._glyphs else MISSING for c in " ".join(self._text.split()))

    def _set(self, tag: str) -> Any:
        from reportlab.lib.styles import ParagraphStyle
        from reportlab.platypus import Paragraph

        style = self._styles.get(self._class, self._styles[tag])
        if tag in ("h2", "h3") and self._tone:
            style = ParagraphStyle(
                "toned", parent=self._styles["h1"] if self._frame else style, textColor=INK[self._tone]
            )
            self._tone = self._tone if self._frame else ""
        return Paragraph(("• " if tag == "li" else "") + escape(self._clean()), style)


def _qr_drawing(url: str) -> Any:
    from reportlab.graphics.barcode.qr import QrCodeWidget
    from reportlab.graphics.shapes import Drawing

    drawing = Drawing(QR_POINTS, QR_POINTS)
    drawing.add(QrCodeWidget(url, barWidth=QR_POINTS, barHeight=QR_POINTS, barLevel="M"))
    return drawing


def _framed(parts: list[Any], colour: str) -> Any:
    """The verdict, in a box with a broad left edge of its colour."""
    from reportlab.platypus import Table

    style = [
        ("BOX", (0, 0), (-1, -1), 1, colour), ("LINEBEFORE", (0, 0), (0, -1), 6, colour),
        ("LEFTPADDING", (0, 0), (-1, -1), 14), ("BOTTOMPADDING", (0, 0), (-1, -1), 10),
    ]  # fmt: skip
    return Table([[parts]], colWidths=(TEXT_POINTS,), style=style, hAlign="LEFT", spaceBefore=8, spaceAfter=4)


def _table(rows: list[list[Any]]) -> Any:
    """Rows with a line below each."""
    from reportlab.platypus import Table

    style = [("LINEBELOW", (0, 0), (-1, -1), 0.4, "#c9d2db"), ("VALIGN", (0, 0), (-1, -1), "TOP")]
    return Table(rows, colWidths=WIDTHS[len(rows[0])], style=style, hAlign="LEFT")
