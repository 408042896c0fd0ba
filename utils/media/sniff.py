"""What a file is, told from its first bytes alone; names and declared types are never looked at.

First gate of the room: only the formats of `FORMATS` go on to a decoder, and each to exactly one. The page, the folder
walk of the command line, the training's layouts and the API take the names of files from the same table.
"""

from __future__ import annotations

from dataclasses import dataclass

from utils.errors import EmptyFileError, UnsupportedMediaError
from utils.types import MediaKind

SNIFF_BYTES = 4096
"""How much of the beginning `sniff` wants to see; the EBML header and a text's first tag fit easily."""


@dataclass(frozen=True)
class MediaFormat:
    """One format that we decode.

    Args:
        name: ours, such as `jpeg` or `matroska`.
        kind: image, video or audio; a container of video may turn out to hold sound alone.
        endings: that people give to such files, the usual one first; lower case, without a dot. The content decides.
        moves: a picture's format that may hold a clip as well; then the child tells which of the two a file is.
    """

    name: str
    mime: str
    kind: MediaKind
    title: str
    endings: tuple[str, ...]
    moves: bool = False


FORMATS = {
    fmt.name: fmt
    for fmt in (
        MediaFormat("jpeg", "image/jpeg", MediaKind.IMAGE, "JPEG", ("jpg", "jpeg", "jpe", "jfif", "mpo")),
        MediaFormat("png", "image/png", MediaKind.IMAGE, "PNG", ("png", "apng"), moves=True),
        MediaFormat("webp", "image/webp", MediaKind.IMAGE, "WebP", ("webp",), moves=True),
        MediaFormat("heic", "image/heic", MediaKind.IMAGE, "HEIC", ("heic", "heif", "hif", "heics"), moves=True),
        MediaFormat("avif", "image/avif", MediaKind.IMAGE, "AVIF", ("avif", "avifs"), moves=True),
        MediaFormat("gif", "image/gif", MediaKind.IMAGE, "GIF", ("gif",), moves=True),
        MediaFormat("bmp", "image/bmp", MediaKind.IMAGE, "BMP", ("bmp", "dib")),
        MediaFormat("tiff", "image/tiff", MediaKind.IMAGE, "TIFF", ("tif", "tiff")),
        MediaFormat("mp4", "video/mp4", MediaKind.VIDEO, "MP4", ("mp4", "m4v", "mov", "3gp", "3g2")),
        MediaFormat("mov", "video/quicktime", MediaKind.VIDEO, "MOV", ("mov", "qt", "mp4", "m4v")),
        MediaFormat("matroska", "video/x-matroska", MediaKind.VIDEO, "MKV", ("mkv", "webm")),
        MediaFormat("webm", "video/webm", MediaKind.VIDEO, "WebM", ("webm", "mkv")),
        MediaFormat("avi", "video/x-msvideo", MediaKind.VIDEO, "AVI", ("avi",)),
        MediaFormat("flv", "video/x-flv", MediaKind.VIDEO, "FLV", ("flv",)),
        MediaFormat("mpegts", "video/mp2t", MediaKind.VIDEO, "MPEG-TS", ("ts", "m2ts", "mts", "m2t")),
        MediaFormat("mpeg", "video/mpeg", MediaKind.VIDEO, "MPEG", ("mpg", "mpeg", "vob", "m2p")),
        MediaFormat("mpegvideo", "video/mpeg", MediaKind.VIDEO, "MPEG", ("m1v", "m2v", "mpg", "mpeg", "mpv")),
        MediaFormat("asf", "video/x-ms-wmv", MediaKind.VIDEO, "WMV", ("wmv", "asf")),
        MediaFormat("ogg", "video/ogg", MediaKind.VIDEO, "OGV", ("ogv", "ogg")),
        MediaFormat("wav", "audio/wav", MediaKind.AUDIO, "WAV", ("wav", "wave")),
        MediaFormat("flac", "audio/flac", MediaKind.AUDIO, "FLAC", ("flac",)),
        MediaFormat("mp3", "audio/mpeg", MediaKind.AUDIO, "MP3", ("mp3",)),
        MediaFormat("m4a", "audio/mp4", MediaKind.AUDIO, "M4A", ("m4a", "m4b", "mp4")),
        MediaFormat("aac", "audio/aac", MediaKind.AUDIO, "AAC", ("aac",)),
        MediaFormat("oga", "audio/ogg", MediaKind.AUDIO, "Ogg", ("ogg", "oga", "opus", "spx")),
        MediaFormat("wma", "audio/x-ms-wma", MediaKind.AUDIO, "WMA", ("wma", "asf")),
        MediaFormat("amr", "audio/amr", MediaKind.AUDIO, "AMR", ("amr", "awb")),
    )
}

SUFFIXES = {
    kind: frozenset(f".{ending}" for each in FORMATS.values() if each.kind is kind for ending in each.endings)
    for kind in MediaKind
}
"""The endings of each kind, with their dots: what a folder is searched for."""


def titles(kind: MediaKind) -> list[str]:
    """The formats of a kind, for people."""
    return list(dict.fromkeys(each.title for each in FORMATS.values() if each.kind is kind))


_MAGICS = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    *((magic, "tiff") for magic in (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")),
    (b"FLV\x01", "flv"),
    (b"\x00\x00\x01\xba", "mpeg"),
    (b"\x00\x00\x01\xb3", "mpegvideo"),
    (b"fLaC", "flac"),
    (b"ID3", "mp3"),
    (b"#!AMR\n", "amr"),
    (b"#!AMR-WB\n", "amr"),
)
_RIFF_FORMS = {b"WEBP": "webp", b"AVI ": "avi", b"WAVE": "wav"}
_EBML_TYPES = {b"webm": "webm", b"matroska": "matroska"}
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)
_TS_PACKETS = ((0, 188), (4, 192))
"""Where the first sync byte of a transport stream lies, and how far the next; the second is that of Blu-ray."""
_OGG_CODECS = (
    (b"\x80theora", b"OVP80", b"BBCD\x00", b"video\x00\x00\x00"),
    (b"OpusHead", b"\x01vorbis", b"\x7fFLAC", b"Speex   "),
)
"""How the first packets of video and of sound begin in an Ogg file; where neither is seen, the child tells."""
_ASF = b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"
_ASF_VIDEO = b"\xc0\xef\x19\xbc\x4d\x5b\xcf\x11\xa8\xfd\x00\x80\x5f\x5c\x44\x2b"
"""The type of a video stream in an ASF file (ASF specification, section 10.4)."""

# QuickTime files older than `ftyp` begin with one of these atoms.
_OLD_MOV_ATOMS = (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")

# Files with an `ftyp` box that are no videos, by major brand; pictures (ISO/IEC 23008-12, annex B) name the codec there
# or among the compatible ones.
_AVIF_BRANDS = frozenset((b"avif", b"avis", b"avio"))
_HEIF_BRANDS = frozenset(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"mif2", b"msf1", b"miaf")
)
_OTHER_BRANDS = {
    b"M4P ": "a protected audio file",
    b"crx ": "a Canon raw picture",
}

# What people are likely to bring that is none of ours; everything else is refused without a name.
_OTHER_MAGICS = (
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive or Office document"),
    (b"\xff\x0a", "a JPEG XL picture"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL picture"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 picture"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (b"8BPS", "a Photoshop document"),
    (b"FUJIFILMCCD-RAW", "a Fujifilm raw picture"),
    (b"\0\0\1\0", "an icon"),
    (b".RMF", "a RealMedia video"),
    (b"FORM", "an AIFF recording or another IFF file"),
    (b"caff", "a CAF recording"),
)

# A stream without a container begins with a start code and a unit that others need (ITU-T H.264 and H.265, annex B).
_BARE_STREAMS = {
    **dict.fromkeys((b"\x67", b"\x27", b"\x47", b"\x09", b"\x06"), "H.264"),
    **dict.fromkeys((b"\x40\x01", b"\x42\x01", b"\x46\x01", b"\x4e\x01"), "H.265"),
}


def sniff(untrusted_head: bytes) -> MediaFormat:
    """Tell the format of a file by its content.

    Args:
        untrusted_head: the first `SNIFF_BYTES` bytes of the file, fewer where it is shorter.

    Returns:
        One of `FORMATS`.

    Raises:
        EmptyFileError: there is no byte.
        UnsupportedMediaError: it is none of them; the sentence names what it looks like.
    """
    head = untrusted_head[:SNIFF_BYTES]
    if not head:
        raise EmptyFileError("The file has 0 bytes.")
    for magic, name in _MAGICS:
        if head.startswith(magic):
            return FORMATS[name]
    if head[:4] == b"RIFF" and len(head) >= 12:
        return _named(_RIFF_FORMS.get(head[8:12]), "an unknown RIFF file")
    if head[:4] == b"OggS":
        sees, hears = (any(name in head for name in names) for names in _OGG_CODECS)
        return FORMATS["oga" if hears and not sees else "ogg"]
    if head.startswith(_ASF):
        return FORMATS["asf" if _ASF_VIDEO in head else "wma"]
    if sound := _bare_sound(head):
        return FORMATS[sound]
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return _named(_EBML_TYPES.get(_ebml_doctype(head)), "an EBML file that is neither Matroska nor WebM")
    if head[4:8] == b"ftyp":
        return _sniff_ftyp(head[8:12], head[16 : min(int.from_bytes(head[:4], "big"), SNIFF_BYTES)])
    if head[4:8] in _OLD_MOV_ATOMS and not 1 < int.from_bytes(head[:4], "big") < 8:  # 0 and 1 stand for other sizes
        return FORMATS["mov"]
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return FORMATS["bmp"]
    if any(set(head[first::step][:5]) == {0x47} and len(head) > first + step for first, step in _TS_PACKETS):
        return FORMATS["mpegts"]
    if len(head) > 3200 and any(set(head[n::step][:16]) == {0x47} for step in (188, 192) for n in range(step)):
        return FORMATS["mpegts"]  # it begins within a packet
    if codec := _bare_stream(head):
        raise UnsupportedMediaError(
            f"The file looks like a bare {codec} stream without a container; "
            "`ffmpeg -framerate 25 -i FILE -c copy FILE.mp4` puts it into one.",
            looks_like=f"a bare {codec} stream",
        )
    raise _unsupported(_describe(head))


def _bare_stream(head: bytes) -> str | None:
    code, found, unit = head[:6].partition(b"\x00\x00\x01")
    if code not in (b"", b"\x00") or not found:
        return None
    return _BARE_STREAMS.get(unit[:1]) or _BARE_STREAMS.get(unit[:2])


def _bare_sound(head: bytes) -> str | None:
    """`mp3` or `aac` where a frame of it begins the file (ISO/IEC 11172-3, 2.4.1.3; 14496-3, 1.A.2.2)."""
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    if layer == 1 and version != 1:  # layer III
        plausible = head[2] >> 4 not in (0, 15) and head[2] >> 2 & 3 != 3
        return "mp3" if plausible else None
    if head[1] & 0xF6 == 0xF0 and head[2] >> 2 & 15 < 13:  # ADTS
        at = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
        follows = head[at : at + 2]
        return "aac" if at >= 7 and (len(follows) < 2 or follows == head[:2]) else None
    return None


def _named(name: str | None, else_what: str) -> MediaFormat:
    if name is None:
        raise _unsupported(else_what)
    return FORMATS[name]


def _unsupported(what: str) -> UnsupportedMediaError:
    return UnsupportedMediaError(f"The file looks like {what}.", looks_like=what)


def _sniff_ftyp(brand: bytes, others: bytes) -> MediaFormat:
    if len(brand) < 4:
        raise _unsupported("an MP4 file of less than 12 bytes")
    brands = {brand, *(others[at : at + 4] for at in range(0, len(others), 4))}
    if brand in _AVIF_BRANDS or (brand in _HEIF_BRANDS and brands & _AVIF_BRANDS):
        return FORMATS["avif"]
    if brand in _HEIF_BRANDS:
        return FORMATS["heic"]
    if brand in _OTHER_BRANDS:
        raise _unsupported(_OTHER_BRANDS[brand])
    if brand in (b"M4A ", b"M4B ", b"F4A ", b"F4B "):
        return FORMATS["m4a"]
    return FORMATS["mov" if brand == b"qt  " else "mp4"]


def _ebml_doctype(head: bytes) -> bytes:
    """The DocType of an EBML header (RFC 8794, section 11.2.4), empty where there is none in sight."""
    size, at = _ebml_size(head, 4)
    end = min(len(head), at + size)
    while at + 2 <= end:
        id_length = 1
        while id_length <= 4 and not head[at] & (0x80 >> (id_length - 1)):
            id_length += 1
        element = head[at : at + id_length]
        size, at = _ebml_size(head, at + id_length)
        if element == b"\x42\x82":
            return head[at : min(at + size, end)].rstrip(b"\x00")
        at += size
    return b""


def _ebml_size(head: bytes, at: int) -> tuple[int, int]:
    """A variable-length size at an offset, and the offset behind it; zero bytes count as a size of 0."""
    if at >= len(head) or head[at] == 0:
        return 0, at + 1
    length = 9 - head[at].bit_length()
    value = int.from_bytes(head[at : at + length], "big")
    return value & ((1 << (7 * length)) - 1), at + length


def _describe(head: bytes) -> str:
    """What a file that we do not decode looks like, with its article."""
    for magic, what in _OTHER_MAGICS:
        if head.startswith(magic):
            return what
    if b"\x00" not in head and sum(byte < 9 for byte in head) == 0:
        return "a text"
    return "no format that is known here"
