"""The report of a case, as JSON, HTML and PDF, and its export: a ZIP that is written while it is sent.

`manifest.json` in the ZIP is signed and names the SHA-256 of every other file, so that one signature stands behind all
of it; `SHA256SUMS` says the same to `sha256sum -c`.
"""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flask import render_template

from utils.errors import UnavailableError
from utils.media.sniff import FORMATS
from utils.signatures import canonical
from utils.types import CASE_DOCUMENT, DOCUMENT_VERSION, MANIFEST_DOCUMENT
from web_app import VERSION
from web_app.reports import document as words
from web_app.reports.printed import FACT_COLUMNS, Typeset, make_pdf, qr_code, render_pdf, table

CHUNK_BYTES = 256 * 1024
EPOCH = (1980, 1, 1, 0, 0, 0)  # of every entry, so that the same case gives the same bytes
SUMMARY_COLUMNS = (22, 250, 140, 81)  # points
NO_COPY = "no copy without metadata can be made, or it is not made yet: open its result once and export again"


@dataclass(frozen=True)
class CaseItem:
    """One file: `report` is its unsigned document, None without a result; `copy` gives its clean copy, None without."""

    name: str
    note: str
    state: str
    report: dict[str, Any] | None
    format: str
    copy: Callable[[], Path | None]


def build_case(id: str, title: str, notes: str, created: str, items: list[CaseItem]) -> dict[str, Any]:
    """The unsigned document of a case; the same case gives the same document."""
    reports = [item.report for item in items if item.report is not None]
    return {
        "document": CASE_DOCUMENT,
        "document_version": DOCUMENT_VERSION,
        "telltale_version": VERSION,
        "id": id,
        "title": title,
        "notes": notes,
        "created": created,
        "analysed": max((report["analysed"] for report in reports), default=created),
        "items": [{"name": i.name, "note": i.note, "state": i.state, "report": i.report} for i in items],
        "limits": list(words.LIMITS),
        "reproduce": words.REPRODUCE.format("case.json"),
    }


def render_case_html(document: dict[str, Any], page_url: str) -> str:
    """The page of a signed case."""
    return render_template(
        "case_report.html", document=document, words=words, page_url=page_url, code=qr_code(page_url),
        summary_row=summary_row, file_facts=file_facts,
    )  # fmt: skip


def render_case_pdf(document: dict[str, Any], page_url: str) -> bytes:
    """A signed case on A4 pages: a table of all files, then each of them."""

    def story(to: Typeset) -> list[Any]:
        rows = [
            ("", "File", "Verdict", "Probability"),
            *(summary_row(n, i) for n, i in enumerate(document["items"], 1)),
        ]
        told = [to.text("Telltale · report of a case", to.small), to.text(document["title"], to.title)]
        told += [to.text(line) for line in document["notes"].splitlines() if line.strip()]
        told.append(table([[to.text(cell) for cell in row] for row in rows], SUMMARY_COLUMNS))
        for number, item in enumerate(document["items"], 1):
            told.append(to.text(f"{number}. {item['name']}", to.heading))
            if item["note"]:
                told.append(to.text(f"Note: {item['note']}"))
            told += _told(item, to)
        told.append(to.text("Limits of the method", to.heading))
        told += [to.text(f"• {limit}", to.point) for limit in document["limits"]]
        told += [to.text("Signature", to.heading), to.facts(words.signature_facts(document))]
        return told

    return make_pdf(f"Telltale case: {document['title']}", f"Telltale case {document['id']}", story, page_url)


def _told(item: dict[str, Any], to: Typeset) -> list[Any]:
    if item["report"] is None:
        return [to.text(f"There is no result: the analysis is {item['state']}.")]
    analysis, facts = item["report"]["analysis"], file_facts(item["report"])
    verdict, said = analysis["verdict"], analysis.get("provenance")
    stated = [to.text(said["statement"])] if said and said["statement"] else []
    return [
        to.text(f"{verdict['headline']} {words.verdict_sentence(verdict)}"),
        *stated,
        *(to.text(f"• {reason['text']}", to.point) for reason in verdict["reasons"]),
        table([[to.text(fact, to.small), to.text(value, to.small)] for fact, value in facts], FACT_COLUMNS),
    ]


def summary_row(number: int, item: dict[str, Any]) -> tuple[str, str, str, str]:
    """Number, name, verdict and probability of one file; a verdict of faces and voice together has no probability."""
    if item["report"] is None:
        return str(number), item["name"], item["state"], "—"
    analysis = item["report"]["analysis"]
    if overall := analysis.get("overall"):
        return str(number), item["name"], overall["headline"], words.percent(None)
    return str(number), item["name"], analysis["verdict"]["headline"], words.percent(analysis["verdict"]["probability"])


def file_facts(report: dict[str, Any]) -> list[words.Fact]:
    """What is known of one file beside its verdict."""
    analysis, facts = report["analysis"], words.input_facts(report)[1:]
    if overall := analysis.get("overall"):
        facts.append(("Faces and voice together", overall["headline"]))
    if (speech := analysis.get("speech")) and analysis["media"]["kind"] != "audio":
        facts.append(("Voice", f"{speech['verdict']['headline']} {words.verdict_sentence(speech['verdict'])}"))
    if said := analysis.get("provenance"):
        facts += words.provenance_facts(said)
    return facts + words.method_facts(report)


Sign = Callable[[dict[str, Any]], dict[str, Any]]


def export_lines(document: dict[str, Any], items: list[CaseItem], sign: Sign, page_url: str) -> Iterator[bytes]:
    """The ZIP of a case in pieces; no more of a file than `CHUNK_BYTES` is in memory.

    Args:
        document: unsigned, of `build_case`.
        items: what it was made of.
        sign: makes a signed document of one.
        page_url: of the case.
    """
    sink, files, missing = _Sink(), [], []
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:

        def put(name: str, content: Iterator[bytes], *, packed: bool = True) -> Iterator[bytes]:
            info = zipfile.ZipInfo(name, EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
            digest, size = hashlib.sha256(), 0
            with archive.open(info, "w", force_zip64=not packed) as entry:
                for chunk in content:
                    digest.update(chunk)
                    size += len(chunk)
                    entry.write(chunk)
                    yield sink.take()
            files.append({"name": name, "sha256": digest.hexdigest(), "size_bytes": size})

        signed = sign(document)
        yield from put("case.json", iter([canonical(signed)]))
        yield from put("case.pdf", iter([render_case_pdf(signed, page_url)]))
        for number, item in enumerate(items, 1):
            name = f"{number:03d}-{re.sub(r'[^A-Za-z0-9-]+', '_', Path(item.name).stem)[:60]}"
            if item.report is not None:
                report = sign(item.report)
                yield from put(f"reports/{name}.json", iter([canonical(report)]))
                yield from put(f"reports/{name}.pdf", iter([render_pdf(report, page_url)]))
            try:
                copy = item.copy()
            except UnavailableError:  # files that lie on another machine
                copy = None
            if copy is None:
                missing.append({"name": item.name, "why": NO_COPY})
            else:
                ending = FORMATS[item.format].endings[0]
                yield from put(f"media/{name}.{ending}", _chunks(copy), packed=False)
        sums = "".join(f"{file['sha256']}  {file['name']}\n" for file in files)
        yield from put("SHA256SUMS", iter([sums.encode()]))
        manifest = {
            "document": MANIFEST_DOCUMENT, "document_version": DOCUMENT_VERSION, "case": document["id"],
            "analysed": document["analysed"], "files": files, "missing": missing,
        }  # fmt: skip
        yield from put("manifest.json", iter([canonical(sign(manifest))]))
    yield sink.take()


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


class _Sink(io.RawIOBase):
    """Keeps what is written until it is taken; it cannot go back, and `zipfile` does not ask it to."""

    def __init__(self) -> None:
        super().__init__()
        self._written: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._written.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        taken, self._written = b"".join(self._written), []
        return taken
