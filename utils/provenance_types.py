"""What a file says of itself: who signed it, which marks it carries, how it was compressed.

Facts beside the networks' verdict; nothing here ever changes an outcome or a probability. Read by `utils.evidence`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from utils.media_types import Notice, require


class Proof(enum.StrEnum):
    """What a mark proves: a signature can be checked, anybody can write a statement, other things are only usual."""

    SIGNED = "signed"
    STATED = "stated"
    USUAL = "usual"


class Says(enum.StrEnum):
    """What a mark is about: a file made or changed by a generative model, taken by a camera, or written by a tool."""

    GENERATED = "generated"
    EDITED = "edited"
    CAPTURED = "captured"
    TOOL = "tool"


class CredentialState(enum.StrEnum):
    """Of Content Credentials: none, whole and by a trusted signer, whole by an unknown one, changed since, or those
    that could not be read."""

    ABSENT = "absent"
    VALID = "valid"
    UNTRUSTED = "untrusted"
    BROKEN = "broken"
    UNREAD = "unread"


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One thing that the file carries: `code` for programs, `name` of generator, tool or camera, `where` it stands, the
    `value` there, shortened, and a sentence."""

    code: str
    name: str
    says: Says
    proof: Proof
    where: str
    value: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """The Content Credentials (C2PA) of a file: names in the signing certificate, time of its stamp, the program that
    wrote the claim, IPTC's digital source types of the actions, titles of the files that went in, and, of broken ones,
    C2PA's codes."""

    state: CredentialState
    text: str
    signer: str | None = None
    issuer: str | None = None
    signed_at: str | None = None
    made_with: str | None = None
    source_types: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    ingredients: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require((self.state is CredentialState.BROKEN) or not self.problems, "only broken credentials have problems")


@dataclass(frozen=True, kw_only=True)
class Compression:
    """How a JPEG was saved: the quality by its tables on libjpeg's scale, 1..100 (`standard` tables are libjpeg's, else
    it is the nearest), that of the time before where its traces are clear, and sentences."""

    quality: int
    quality_before: int | None
    tables: str
    texts: tuple[str, ...]

    def __post_init__(self) -> None:
        require(1 <= self.quality <= 100, f"quality lies in 1..100: {self.quality}")
        require(self.tables in ("standard", "own"), f"tables are standard or own: {self.tables}")


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Everything that a file says of itself: a `statement` where it states, signed or not, that a generative model made
    or changed it; marks, the strongest first; notices about what could not be read."""

    statement: str | None
    credentials: Credentials
    marks: tuple[Mark, ...] = ()
    compression: Compression | None = None
    notices: tuple[Notice, ...] = ()
