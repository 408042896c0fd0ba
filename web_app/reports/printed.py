"""The report for people: as an HTML page that prints well, without script, and as a PDF.

The PDF has text and tables only, a font with wide coverage embedded, and the same bytes each time. reportlab is
imported when the first one is made. No picture is put in, so nothing of the upload is decoded here.
"""

from __future__ import annotations

import importlib.util
import io
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from flask import render_template

from web_app.reports import document as words

FONT, BOLD = "DejaVuSans", "DejaVuSans-Bold"
INK = {"red": "#a3231b", "green": "#1a6437", "amber": "#7a5200", "slate": "#3f4c5a"}
QR_POINTS = 85
COLUMNS, FACT_COLUMNS = (84, 234, 90, 85), (100, 393)  # points; the text is 493 wide
MISSING = "\N{WHITE SQUARE}"
TIMELINE_WIDTH, TIMELINE_HEIGHT = 640.0, 120.0
_LOCK = threading.Lock()  # reportlab keeps its fonts in one table of the process


def render_html(document: dict[str, Any], media_url: str | None, page_url: str) -> str:
    """The page.

    Args:
        document: signed; see `web_app.reports.document.build_document`.
        page_url: where the result stands; shown as a QR code.
        media_url: of the picture, which is then shown with the faces' boxes; None for videos and deleted files.
    """
    analysis = document["analysis"]
    points, shaded = _timeline(analysis["timeline"]), _shaded(analysis)
    return render_template(
        "report.html", document=document, analysis=analysis, words=words, media_url=media_url, points=points,
        shaded=shaded, page_url=page_url, code=qr_code(page_url),
        speech=analysis.get("speech"), overall=analysis.get("overall"), said=analysis.get("provenance"),
        width=TIMELINE_WIDTH, height=TIMELINE_HEIGHT,
    )  # fmt: skip


def qr_code(text: str) -> tuple[int, str]:
    """A QR code: how many squares it is wide, and its dark ones as the path of an SVG of that size."""
    from reportlab.graphics.barcode.qrencoder import QRCode, QRErrorCorrectLevel

    code = QRCode(None, QRErrorCorrectLevel.M)
    code.addData(text)
    code.make()
    size = code.getModuleCount()
    dark = [(x, y) for y in range(size) for x in range(size) if code.isDark(y, x)]
    return size, "".join(f"M{x} {y}h1v1h-1z" for x, y in dark)


def _timeline(timeline: list[dict[str, Any]]) -> str:
    """The scores over time as points of an SVG polyline; empty for fewer than two."""
    if len(timeline) < 2:
        return ""
    longest = max(point["time_s"] for point in timeline) or 1.0
    return " ".join(
        f"{TIMELINE_WIDTH * point['time_s'] / longest:.1f},{TIMELINE_HEIGHT * (1 - point['probability']):.1f}"
        for point in timeline
    )


def _shaded(analysis: dict[str, Any]) -> list[tuple[float, float]]:
    """Start and width, in the plot, of the times that the verdict rests on; none in reports of before."""
    longest = max((point["time_s"] for point in analysis["timeline"]), default=0.0) or 1.0
    places = [[min(1.0, span[end] / longest) for end in ("start_s", "end_s")] for span in analysis.get("spans", ())]
    return [(round(TIMELINE_WIDTH * a, 1), round(TIMELINE_WIDTH * (b - a), 1)) for a, b in places]


def render_pdf(document: dict[str, Any], page_url: str) -> bytes:
    """The report on A4 pages.

    Args:
        document: signed; see `web_app.reports.document.build_document`.
        page_url: where the result stands; shown as a QR code.
    """
    title, footer = f"Telltale report: {document['name']}", f"Telltale report {document['id']}"
    return make_pdf(title, footer, lambda to: _story(document, to), page_url)


def make_pdf(title: str, footer: str, story: Callable[[Typeset], list[Any]], page_url: str) -> bytes:
    """A4 pages of what `story` makes, with a QR code of `page_url` at the end."""
    with _LOCK:
        return _render(title, footer, story, page_url)


class Typeset:
    """The styles of a PDF's text, in a font whose characters `glyphs` are."""

    def __init__(self, glyphs: set[int]) -> None:
        from reportlab.lib.styles import ParagraphStyle

        self.glyphs = glyphs
        self.body = ParagraphStyle("body", fontName=FONT, fontSize=9, leading=12.5)
        self.small = ParagraphStyle("small", parent=self.body, fontSize=7.5, leading=10, textColor="#4b5968")
        self.point = ParagraphStyle("point", parent=self.body, leftIndent=9, firstLineIndent=-9, spaceBefore=2)
        self.heading = ParagraphStyle(
            "heading", parent=self.body, fontName=BOLD, fontSize=11, leading=15, spaceBefore=12, spaceAfter=3
        )
        self.title = ParagraphStyle("title", parent=self.heading, fontSize=15, leading=19, spaceBefore=0)

    def text(self, value: str, style: Any = None) -> Any:
        """A paragraph; of the body where no style is named."""
        from reportlab.platypus import Paragraph

        return Paragraph(escape(_clean(value, self.glyphs)), style or self.body)

    def facts(self, facts: list[words.Fact]) -> Any:
        """A table of names and values."""
        return table([[self.text(fact, self.small), self.text(value)] for fact, value in facts], FACT_COLUMNS)


def _render(title: str, footer: str, story: Callable[[Typeset], list[Any]], page_url: str) -> bytes:
    from reportlab.lib.pagesizes import A4
    from reportlab.lib.units import mm
    from reportlab.pdfbase import pdfmetrics
    from reportlab.platypus import SimpleDocTemplate

    _register_fonts()
    glyphs = set(pdfmetrics.getFont(FONT).face.charToGlyph)
    out = io.BytesIO()
    pages = SimpleDocTemplate(
        out, pagesize=A4, leftMargin=18 * mm, rightMargin=18 * mm, topMargin=18 * mm, bottomMargin=20 * mm,
        title=_clean(title, glyphs), author="Telltale", invariant=1, lang="en",
    )  # fmt: skip

    def finish(canvas: Any, _template: Any) -> None:
        canvas.setFont(FONT, 7)
        canvas.drawString(18 * mm, 11 * mm, footer)
        canvas.drawRightString(A4[0] - 18 * mm, 11 * mm, f"Page {canvas.getPageNumber()}")

    pages.build([*story(Typeset(glyphs)), _qr_drawing(page_url)], onFirstPage=finish, onLaterPages=finish)
    return out.getvalue()


def _register_fonts() -> None:
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.ttfonts import TTFont

    known = pdfmetrics.getRegisteredFontNames()
    for name in (FONT, BOLD):
        if name not in known:
            pdfmetrics.registerFont(TTFont(name, str(_font_folder() / f"{name}.ttf")))


def _font_folder() -> Path:
    """The fonts that matplotlib ships, without importing it."""
    found = importlib.util.find_spec("matplotlib")
    if found is None or found.origin is None:
        raise FileNotFoundError("matplotlib, whose fonts the PDF uses, is not installed")
    return Path(found.origin).parent / "mpl-data" / "fonts" / "ttf"


def _story(document: dict[str, Any], to: Typeset) -> list[Any]:
    from reportlab.lib.styles import ParagraphStyle
    from reportlab.platypus import KeepTogether, Spacer

    text, body, small, point, heading, title = to.text, to.body, to.small, to.point, to.heading, to.title
    analysis = document["analysis"]
    verdict = analysis["verdict"]
    tone = ParagraphStyle("verdict", parent=title, textColor=INK[words.TONES[verdict["outcome"]]])
    said = analysis.get("provenance")
    stated = [text(said["statement"])] if said and said["statement"] else []
    judged = [
        text(verdict["headline"], tone), *stated, text(words.verdict_sentence(verdict)),
        *(text(f"• {reason['text']}", point) for reason in verdict["reasons"]),
    ]  # fmt: skip
    story = [
        text("Telltale · report of one analysis", small), text(document["name"], title), Spacer(1, 8),
        _frame(judged, tone.textColor), Spacer(1, 4),
    ]  # fmt: skip
    if overall := analysis.get("overall"):
        together = ParagraphStyle("overall", parent=heading, textColor=INK[words.TONES[overall["outcome"]]])
        story.append(text(f"Faces and voice together: {overall['headline']}", together))
        story += [text(f"• {reason['text']}", point) for reason in overall["reasons"]]
    if speech := analysis.get("speech"):
        story.append(text(f"Voice: {speech['verdict']['headline']}", heading))
        story.append(text(words.verdict_sentence(speech["verdict"])))
        story += [text(f"• {reason['text']}", point) for reason in speech["verdict"]["reasons"]]
        story.append(to.facts(words.speech_facts(speech)))
    for face in analysis["faces"]:
        rows = [("Network", "Looks at", "Alone", "Weight"), *words.expert_rows(face["experts"])]
        block = [
            text(f"Person {face['id'] + 1}: {face['verdict']['headline']}", heading),
            text(words.face_sentence(face)),
            table(
                [[text(cell, small if index == 0 else body) for cell in row] for index, row in enumerate(rows)], COLUMNS
            ),
        ]
        story.append(KeepTogether(block))
    of_file = [("What the file says of itself", words.provenance_facts(said))] if said else []
    for name, facts in (
        *of_file, ("Input", words.input_facts(document)), ("Method", words.method_facts(document)),
        ("Signature", words.signature_facts(document)),
    ):  # fmt: skip
        story += [text(name, heading), to.facts(facts)]
    story += [text(f"• {notice['text']}", point) for notice in analysis["notices"]]
    story.append(text("Limits of the method", heading))
    story += [text(f"• {limit}", point) for limit in document["limits"]]
    story += [Spacer(1, 8), text(f"Check with the JSON form of this report: {document['reproduce']}", small)]
    return story


def _qr_drawing(url: str) -> Any:
    from reportlab.graphics.barcode.qr import QrCodeWidget
    from reportlab.graphics.shapes import Drawing

    drawing = Drawing(QR_POINTS, QR_POINTS)
    drawing.add(QrCodeWidget(url, barWidth=QR_POINTS, barHeight=QR_POINTS, barLevel="M"))
    return drawing


def _frame(parts: list[Any], colour: Any) -> Any:
    """The verdict, in a box with a broad left edge of its colour."""
    from reportlab.platypus import Table

    style = [
        ("BOX", (0, 0), (-1, -1), 1, colour), ("LINEBEFORE", (0, 0), (0, -1), 6, colour),
        ("LEFTPADDING", (0, 0), (-1, -1), 14),
        ("TOPPADDING", (0, 0), (-1, -1), 8), ("BOTTOMPADDING", (0, 0), (-1, -1), 10),
    ]  # fmt: skip
    return Table([[parts]], colWidths=(sum(COLUMNS),), style=style, hAlign="LEFT")


def table(rows: list[list[Any]], widths: tuple[int, ...]) -> Any:
    """Rows with a line below each, in columns of these widths in points."""
    from reportlab.platypus import Table

    style = [("LINEBELOW", (0, 0), (-1, -1), 0.4, "#c9d2db"), ("VALIGN", (0, 0), (-1, -1), "TOP")]
    return Table(rows, colWidths=widths, style=style, hAlign="LEFT")


def _clean(text: str, glyphs: set[int]) -> str:
    """The text with a square for each character that the font lacks."""
    return "".join(c if ord(c) in glyphs else MISSING for c in text)
