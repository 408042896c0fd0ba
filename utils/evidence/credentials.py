"""Content Credentials (C2PA): whole or broken, who signed them, and what they say.

Runs in the confined child, by the library of the Content Authenticity Initiative, which fetches nothing here: no
manifest from elsewhere, no revocation list. It may start no thread and need none. `Reader` is made before the child
confines itself, for a callback of ctypes needs memory that may be executed.
"""

from __future__ import annotations

import io
import json
from typing import Any, BinaryIO

import c2pa

from utils.evidence.answer import MAX_NAMES

_MODEL = ("trainedAlgorithmicMedia",)
_CHANGED = ("compositeWithTrainedAlgorithmicMedia", "compositeSynthetic", *_MODEL)
_UNTRUSTED = "signingCredential.untrusted"
_REMOTE = "Remote"
_MARKS = (b"jumb", b"c2pa")


class Reader:
    """Reads the credentials of files; `trust_list` holds the trusted signers' certificates, PEM, None trusts nobody."""

    def __init__(self, trust_list: str | None) -> None:
        settings: dict[str, Any] = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}
        self._context = c2pa.Context.from_dict(
            settings | ({"trust": {"trust_anchors": trust_list}} if trust_list else {})
        )
        self._types = frozenset(c2pa.Reader.get_supported_mime_types())
        self._kept, spare = c2pa.Stream(io.BytesIO()), c2pa.Stream(io.BytesIO())
        spare.close()  # its callbacks' memory serves the next stream

    def read(self, file: BinaryIO, mime: str) -> dict[str, Any]:
        """What the credentials of an open file say, as plain values; see `utils.media_types.Credentials`."""
        if mime not in self._types:
            return {"state": "absent"}
        file.seek(0)
        try:
            with c2pa.Reader(mime, file, context=self._context) as reader:
                return _summary(json.loads(reader.json()))
        except c2pa.C2paError as error:
            kind = str(error).partition(":")[0]
            if kind.startswith(_REMOTE):
                return {"state": "absent", "elsewhere": True}
            if not _has_marks(file):  # most files, and those that are damaged otherwise
                return {"state": "absent"}
            return {"state": "broken", "problems": [f"unreadable ({kind})"]}


def _has_marks(file: BinaryIO) -> bool:
    """Whether the file's beginning looks as if it held credentials that the library cannot find."""
    file.seek(0)
    head = file.read(1 << 20)
    return all(mark in head for mark in _MARKS)


def _summary(document: dict[str, Any]) -> dict[str, Any]:
    manifests = document.get("manifests", {})
    active = manifests.get(document.get("active_manifest"), {})
    signature = active.get("signature_info") or {}
    chain, parents = _chain(manifests, active), _chain(manifests, active, ("parentOf",))
    actions = [action for manifest in chain for action in _actions(manifest)]
    types = list(dict.fromkeys(_type(action) for action in actions if _type(action)))
    state = {"Trusted": "valid", "Valid": "untrusted"}.get(document.get("validation_state", ""), "broken")
    results = (document.get("validation_results") or {}).get("activeManifest") or {}
    codes = [str(each.get("code")) for each in [*results.get("failure", ()), *document.get("validation_status", ())]]
    return {
        "state": state,
        "signer": signature.get("common_name"),
        "issuer": signature.get("issuer"),
        "signed_at": signature.get("time"),
        "made_with": _program(active),
        "source_types": types[:MAX_NAMES],
        "actions": [str(action.get("action")) for action in _actions(active)][:MAX_NAMES],
        "ingredients": [str(each.get("title")) for each in active.get("ingredients", ())][:MAX_NAMES],
        "problems": [c for c in dict.fromkeys(codes) if c != _UNTRUSTED][:MAX_NAMES] if state == "broken" else [],
        "generator": _named(parents, _MODEL),
        "editor": _named(chain, _CHANGED),
        "own": [key for key, types in (("generator", _MODEL), ("editor", _CHANGED)) if _named([active], types)],
    }


def _chain(
    manifests: dict[str, Any], active: dict[str, Any], relations: tuple[str, ...] = ("parentOf", "componentOf")
) -> list[dict[str, Any]]:
    """The manifest and those of what it was made of, each once."""
    chain, seen = [active], {active.get("label")}
    for manifest in chain:  # it grows on the way
        for ingredient in manifest.get("ingredients", ()):
            label = ingredient.get("active_manifest")
            if ingredient.get("relationship") not in relations:
                continue
            if label in manifests and label not in seen and len(chain) < MAX_NAMES:
                seen.add(label)
                chain.append(manifests[label])
    return chain


def _actions(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    found = []
    for assertion in manifest.get("assertions", ()):
        if str(assertion.get("label", "")).startswith("c2pa.actions"):
            found += [action for action in assertion.get("data", {}).get("actions", ()) if isinstance(action, dict)]
    return found


def _type(action: dict[str, Any]) -> str:
    return str(action.get("digitalSourceType") or "").rpartition("/")[2]


def _program(manifest: dict[str, Any]) -> str | None:
    info = manifest.get("claim_generator_info") or [{}]
    name = info[0].get("name") or manifest.get("claim_generator")
    return f"{name} {info[0].get('version') or ''}".strip() if name else None


def _named(chain: list[dict[str, Any]], source_types: tuple[str, ...]) -> str | None:
    """Who made or changed something with a model: the agent of the action, else the program that wrote the claim."""
    for manifest in chain:
        for action in _actions(manifest):
            if _type(action) in source_types:
                agent = action.get("softwareAgent")
                name = agent.get("name") if isinstance(agent, dict) else agent
                return str(name or _program(manifest) or "a generative model")
    return None
