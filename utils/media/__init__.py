"""The only room that decodes: untrusted bytes in, upright RGB frames and measured facts out.

`sniff` tells what a file is from its first bytes, `decode_media` decodes it in a confined child process, `copy_media`
writes it again there without its metadata. Headers are read there too. The decoders themselves (`images`, `video`) are
imported by that child and by the training code, never by a web process.
"""

from utils.media.fork_server import PreparedDecoders
from utils.media.sandbox import copy_media, decode_media, prepared_decoders, sandbox_level
from utils.media.sniff import MediaFormat, sniff

__all__ = [
    "MediaFormat",
    "PreparedDecoders",
    "copy_media",
    "decode_media",
    "prepared_decoders",
    "sandbox_level",
    "sniff",
]
