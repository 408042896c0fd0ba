"""The only room that decodes: untrusted bytes in, upright RGB frames and measured facts out.

`sniff` tells what a file is from its first bytes, `decode_media` decodes it in a confined child process, `copy_media`
writes it again there without its metadata. Headers are read there too. The decoders themselves (`images`, `video`) are
imported by that child and by the training code, never by a web process.
"""

from utils.media.fork_server import ForkServer
from utils.media.sandbox import copy_media, decode_media, sandbox_level, start_fork_server
from utils.media.sniff import MediaFormat, sniff

__all__ = [
    "ForkServer",
    "MediaFormat",
    "copy_media",
    "decode_media",
    "sandbox_level",
    "sniff",
    "start_fork_server",
]
