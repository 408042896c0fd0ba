"""What a file says of itself: who signed it, which marks it carries, how it was compressed.

These are facts beside the networks' verdict; nothing here ever changes an outcome or a probability. They are read by
`utils.evidence` in the confined child and are part of the report.
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
    """Of Content Credentials: none, whole and by a trusted signer, whole by an unknown one, or changed since."""

    ABSENT = "absent"
    VALID = "valid"
    UNTRUSTED = "untrusted"
    BROKEN = "broken"


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One thing that the file carries.

    Args:
        code: for programs, such as `midjourney` or `camera`.
        name: of the generator, tool or camera, for people.
        says: what it is about.
        proof: what it proves.
        where: the place in the file, such as `PNG text parameters`.
        value: what stands there, shortened.
        text: one sentence for people.
    """

    code: str
    name: str
    says: Says
    proof: Proof
    where: str
    value: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """The Content Credentials (C2PA) of a file.

    Args:
        state: see `CredentialState`.
        text: one sentence for people.
        signer: the name in the signing certificate, None without credentials.
        issuer: the organisation in it.
        signed_at: the time of the signature where a time stamp says one, ISO 8601.
        made_with: the program that wrote the claim.
        source_types: the IPTC digital source types of the actions, the last part of their addresses.
        actions: such as `c2pa.created`, in order.
        ingredients: titles of the files that went into this one.
        problems: codes of C2PA that say why the credentials are broken.
    """

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
    """How a JPEG was saved.

    Args:
        quality: of the last time, on the scale of libjpeg, 1..100.
        quality_before: of the time before, where its traces are clear.
        tables: `standard` where the tables are libjpeg's, else `own`; the quality is then the nearest standard one.
        texts: sentences for people, with what that does to the verdict.
    """

    quality: int
    quality_before: int | None
    tables: str
    texts: tuple[str, ...]

    def __post_init__(self) -> None:
        require(1 <= self.quality <= 100, f"quality lies in 1..100: {self.quality}")
        require(self.tables in ("standard", "own"), f"tables are standard or own: {self.tables}")


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Everything that a file says of itself.

    Args:
        statement: one sentence where the file states, signed or not, that a generative model made or changed it.
        credentials: its Content Credentials.
        marks: the strongest first.
        compression: of a JPEG.
        notices: what could not be read.
    """

    statement: str | None
    credentials: Credentials
    marks: tuple[Mark, ...] = ()
    compression: Compression | None = None
    notices: tuple[Notice, ...] = ()
