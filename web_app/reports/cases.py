"""The report of a case, and its export: a ZIP that is written while it is sent.

`manifest.json` in the ZIP is signed and names the SHA-256 of every other file, so that one signature stands behind all
of it; `SHA256SUMS` says the same to `sha256sum -c`.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from utils.errors import UnavailableError
from utils.media.sniff import FORMATS
from utils.signatures import canonical
from utils.types import CASE_DOCUMENT, DOCUMENT_VERSION, MANIFEST_DOCUMENT
from web_app import VERSION
from web_app.db.models import CaseRow, MediaRow
from web_app.reports import document as words
from web_app.reports.printed import render_html, render_pdf
from web_app.storage.files import CLEAN_SUFFIX, MediaStore

CHUNK_BYTES = 256 * 1024
EPOCH = (1980, 1, 1, 0, 0, 0)  # of every entry, so that the same case gives the same bytes
NO_COPY = "no copy without metadata can be made, or it is not made yet: open its result once and export again"


def build_case(case: CaseRow, items: list[dict[str, Any]]) -> dict[str, Any]:
    """The unsigned document of a case, `CaseDocument` of the API; the same case gives the same document.

    Args:
        items: as `CaseReportItem` of the API; the `report` of each is unsigned, None without a result.
    """
    created, reports = case.created_at.isoformat(), [item["report"] for item in items if item["report"] is not None]
    return {
        "document": CASE_DOCUMENT,
        "document_version": DOCUMENT_VERSION,
        "telltale_version": VERSION,
        "id": case.public_id,
        "title": case.title,
        "notes": case.notes,
        "created": created,
        "analysed": max((report["analysed"] for report in reports), default=created),
        "items": items,
        "limits": list(words.LIMITS),
        "reproduce": words.REPRODUCE.format("case.json"),
    }


Sign = Callable[[dict[str, Any]], dict[str, Any]]


def export_lines(
    document: dict[str, Any], media: Sequence[MediaRow], store: MediaStore, sign: Sign, page_url: str
) -> Iterator[bytes]:
    """The ZIP of a case in pieces, by its unsigned document and the medium of each item; no more of a file than
    `CHUNK_BYTES` is in memory."""
    sink, files, missing = _Sink(), [], []
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:

        def put_report(name: str, signed: dict[str, Any]) -> Iterator[bytes]:
            page = render_html(signed, None, page_url)
            yield from put(f"{name}.json", iter([canonical(signed)]))
            yield from put(f"{name}.pdf", iter([render_pdf(page, f"Telltale {signed['id']}", page_url)]))

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

        yield from put_report("case", sign(document))
        for number, (item, medium) in enumerate(zip(document["items"], media, strict=True), 1):
            name = f"{number:03d}-{re.sub(r'[^A-Za-z0-9-]+', '_', Path(item['name']).stem)[:60]}"
            if item["report"] is not None:
                yield from put_report(f"reports/{name}", sign(item["report"]))
            copy = None
            with contextlib.suppress(UnavailableError):  # files that lie on another machine
                if store.size(medium.stored_name, CLEAN_SUFFIX):
                    copy = store.path(medium.stored_name, CLEAN_SUFFIX)
            if copy is None:
                missing.append({"name": item["name"], "why": item["error"] or NO_COPY})
            else:
                ending = FORMATS[medium.format].endings[0]
                with copy.open("rb") as file:
                    chunks = iter(lambda: file.read(CHUNK_BYTES), b"")
                    yield from put(f"media/{name}.{ending}", chunks, packed=False)
        sums = "".join(f"{file['sha256']}  {file['name']}\n" for file in files)
        yield from put("SHA256SUMS", iter([sums.encode()]))
        manifest = {
            "document": MANIFEST_DOCUMENT, "document_version": DOCUMENT_VERSION, "case": document["id"],
            "analysed": document["analysed"], "files": files, "missing": missing,
        }  # fmt: skip
        yield from put("manifest.json", iter([canonical(sign(manifest))]))
    yield sink.take()


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
