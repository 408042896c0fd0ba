"""Versions on disk with what the golden set said of them, which one is loaded, and the way back to an earlier one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from utils.errors import ConflictError, NotFoundError, WeightsMissingError
from utils.feedback.history import read_history
from utils.feedback.versions import rollback
from utils.weights import CARD_FILE, CHECKSUMS, current_version, weights_root
from web_app.jobs.instance import Instance
from web_app.observability.health import living_workers
from web_app.paths import InstancePaths

Entry = dict[str, Any]


def history_entries(paths: InstancePaths) -> list[Entry]:
    """The readable lines of the training history, oldest first."""
    return [dict(entry) for entry in read_history(paths.training_history).entries]


def loaded_versions(instance: Instance) -> list[dict[str, Any]]:
    """What each living worker has in its memory; its refusal of a version, where there is one."""
    with instance.database.read() as session:
        rows = living_workers(session, instance.settings)
    return [
        {"worker": row.id, "version": row.facts.get("model_version"), "refused": row.facts.get("refused")}
        for row in rows
    ]


def list_versions(instance: Instance) -> dict[str, Any]:
    """All versions, the oldest first, as `LearnedVersions`."""
    settings = instance.settings
    current = current_version(settings)
    loaded = {each["version"] for each in loaded_versions(instance)}
    trained = {entry["version"]: entry for entry in history_entries(instance.paths) if entry.get("event") == "training"}
    items = []
    cards = _cards(weights_root(settings))
    for name, card in sorted(cards.items(), key=lambda pair: (_created(pair[1]) or "", pair[0])):
        entry = trained.get(name, {})
        items.append(
            {
                "version": name,
                "current": name == current,
                "loaded": name in loaded,
                "base": entry.get("base"),
                "parent": entry.get("parent"),
                "created": entry.get("time") or _created(card),
                "promoted": entry.get("promoted"),
                "reason": entry.get("reason"),
                "lost": len(entry.get("lost", ())),
                "golden": golden_point(entry) if entry else None,
            }
        )
    return {"items": items, "pinned": bool(settings.weights.version)}


def golden_point(entry: Entry) -> dict[str, Any]:
    """What the golden set said of the version that a line of the history is about."""
    figures = entry.get("new") or {}
    slices = figures.get("slices") or {}
    return {
        "version": entry["version"],
        "time": entry.get("time"),
        "promoted": bool(entry.get("promoted")),
        "auc": figures.get("auc"),
        "ece": figures.get("ece"),
        "worst_slice": min(slices.values()) if slices else None,
    }


def roll_back(instance: Instance, name: str | None) -> dict[str, Any]:
    """Point `CURRENT` at an earlier version; the workers change between two jobs.

    Raises:
        ConflictError: the settings pin a version, or there is none to go back to.
        NotFoundError: there is no version of this name.
        WeightsError: it does not verify.
    """
    settings = instance.settings
    if settings.weights.version:
        raise ConflictError("[weights] version pins one; empty it to follow promotions and rollbacks.")
    root = weights_root(settings)
    previous = current_version(settings)
    try:
        version = rollback(root, instance.paths.training_history, name)
    except WeightsMissingError as error:
        raise NotFoundError(error.detail) from error
    return {"version": version.name, "previous": previous}


def _cards(root: Path) -> dict[str, Entry]:
    """The cards of all complete versions; one that cannot be read is shown empty, for it is refused when loaded."""
    cards: dict[str, Entry] = {}
    for folder in root.iterdir() if root.is_dir() else ():
        if folder.name.startswith(".") or not (folder / CHECKSUMS).is_file():
            continue
        try:
            plain = json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            plain = {}
        cards[folder.name] = plain if isinstance(plain, dict) else {}
    return cards


def _created(card: Entry) -> str | None:
    created = card.get("created")
    return created if isinstance(created, str) else None
