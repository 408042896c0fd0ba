"""Known data sets as they come: FaceForensics++, Celeb-DF and DFDC are read without a manifest.

Each reader gives samples; `datasets.py` draws a split where the data set says none. A group is never divided between
splits; what it means for each data set is said at its reader.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from utils.errors import TrainingDataError
from utils.media.sniff import SUFFIXES
from utils.types import MediaKind

SPLITS = ("train", "calib", "val")
"""`train` fits weights, `calib` stops early and fits gate and calibration, `val` only ever gives figures."""
CLIPS_PREFIX = "video:"
"""Begins the name of every source of clips."""


@dataclass(frozen=True)
class Sample:
    """One labelled file.

    Args:
        label: 1 fake, 0 real.
        group: identity or family; never divided between splits.
        generator: what made a fake; `-` for real ones.
        split: train, calib or val; empty where the data set says none, until one is drawn.
    """

    path: Path
    kind: MediaKind
    label: int
    source: str
    group: str
    generator: str
    split: str

    def __post_init__(self) -> None:
        if self.label not in (0, 1):
            raise ValueError(f"label must be 0 or 1: {self.label}")
        if self.split not in ("", *SPLITS):
            raise ValueError(f"split must be one of {SPLITS}: {self.split}")


_LABEL_NAMES = {"real": "real", "reals": "real", "fake": "fake", "fakes": "fake"}
_SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "test", "testing"), "val"),
}

Reader = Callable[[Path], Iterator[Sample]]


def read_layout(root: Path) -> list[Sample]:
    """The rows of whichever known data set lies in `root`; empty when none does.

    Raises:
        TrainingDataError: one does, but its lists are damaged or it holds no files.
    """
    for name, is_here, reader in _LAYOUTS:
        if is_here(root):
            rows = sorted(reader(root), key=lambda row: str(row.path))
            if not rows:
                raise TrainingDataError(f"{root} looks like {name}, but holds none of its videos.")
            return rows
    return []


def read_faceforensics(root: Path) -> Iterator[Sample]:
    """FaceForensics++: `original_sequences/` and `manipulated_sequences/`, any compression, videos or extracted frames.

    A fake named 000_003 wears face 003 in video 000, and its partner 003_000 the other way round, so the *pair* is the
    group; originals belong to the pair of their number. `train.json`, `val.json` and `test.json` of the data set, lists
    of pairs, give the splits where they are there (`val` and `test` both validate). The actors' part
    (DeepFakeDetection) is grouped by the actors' numbers.

    Source: Rössler et al. 2019, "FaceForensics++: Learning to Detect Manipulated Facial Images".
    """
    partner: dict[str, str] = {}
    split_of: dict[str, str] = {}
    for name, split in (("train", "train"), ("val", "val"), ("test", "val")):
        for pair in _json(root / f"{name}.json", default=[]):
            if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, str) for part in pair)):
                raise TrainingDataError(f"{root / name}.json must be a list of pairs of numbers.")
            group = "_".join(sorted(pair))
            split_of[group] = split
            partner.update({pair[0]: group, pair[1]: group})
    manipulated = root / "manipulated_sequences"
    for path in _media(manipulated):  # fakes name their partners, also without the lists
        first, _, second = _clip_name(path, manipulated).partition("_")
        if first.isdigit() and second.isdigit() and len(first) == 3:
            partner.setdefault(first, "_".join(sorted((first, second))))
    for part, fake in (("original_sequences", False), ("manipulated_sequences", True)):
        for path in _media(root / part):
            relative = path.relative_to(root / part)
            name = _clip_name(path, root / part)
            first, _, second = name.partition("_")
            if "actors" in relative.parts or "DeepFakeDetection" in relative.parts:
                group = f"actor {first}"
            elif fake:
                group = "_".join(sorted((first, second)))
            else:
                group = partner.get(name, name)
            yield _sample(path, fake, "faceforensics", group, relative.parts[0] if fake else "-", split_of.get(group))


def read_celeb_df(root: Path) -> Iterator[Sample]:
    """Celeb-DF v1 and v2: `Celeb-real/`, `YouTube-real/`, `Celeb-synthesis/`, and the list of testing videos.

    The group of id0_0000 and of the fake id0_id1_0000 is the person of the video, id0; the face that was swapped in
    may belong to another group, because the swaps connect nearly all of the 59 people. A person with any video in
    `List_of_testing_videos.txt` validates as a whole, which moves some training videos there.

    Source: Li et al. 2020, "Celeb-DF: A Large-Scale Challenging Dataset for DeepFake Forensics".
    """
    listing = root / "List_of_testing_videos.txt"
    tested = set()
    if listing.is_file():
        for number, line in enumerate(listing.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
            label, _, name = line.strip().partition(" ")
            if label not in ("", "0", "1") or (label and not name):
                raise TrainingDataError(f"{listing}, line {number}: a label (0 or 1) and a video are expected.")
            if name and "YouTube" not in name:
                tested.add(Path(name).stem.split("_")[0])
            elif name:
                tested.add(f"youtube {Path(name).stem}")
    for part, fake in (("Celeb-real", False), ("YouTube-real", False), ("Celeb-synthesis", True)):
        for path in _media(root / part):
            name = _clip_name(path, root / part)
            group = f"youtube {name}" if part == "YouTube-real" else name.split("_")[0]
            split = ("val" if group in tested else "train") if tested else None
            yield _sample(path, fake, "celeb-df", group, "face swap" if fake else "-", split)


def read_dfdc(root: Path) -> Iterator[Sample]:
    """DFDC: parts with `metadata.json` (label, original, split of every video), here or one level below.

    The group is the original video: its fakes belong to it. The data set does not name its actors, so the same person
    may appear in two groups; keep whole parts apart where that matters.

    Source: Dolhansky et al. 2020, "The DeepFake Detection Challenge (DFDC) Dataset".
    """
    for listing in _dfdc_listings(root):
        for name, facts in _json(listing, default={}).items():
            path = listing.parent / name
            label = facts.get("label") if isinstance(facts, dict) else None
            if label not in ("REAL", "FAKE"):
                raise TrainingDataError(f"{listing}: the label of {name} must be REAL or FAKE.")
            if not path.is_file():  # parts are often kept in a selection
                continue
            original = facts.get("original") or name
            split = None if facts.get("split") in (None, "", "train") else "val"
            fake = label == "FAKE"
            yield _sample(path, fake, "dfdc", Path(str(original)).stem, "dfdc" if fake else "-", split)


def read_labelled(root: Path) -> Iterator[Sample]:
    """Folders named by their label, in any case and with more words, such as `Real` and `training_fake`.

    They lie below the root, or below folders named by their split: `train`, or `valid`, `val`, `test`, which validate.

    A sub-folder of a label's folder is a group, a loose file one of its own; a group belongs to its split.
    """
    for folder, fake, split in _labelled_folders(root):
        name = "fake" if fake else "real"
        prefix = "" if folder.parent == root else f"{folder.parent.name}/"
        for path in _media(folder):
            inside = path.relative_to(folder).parent
            # a sub-folder is a person or a family of files; loose files stand for themselves
            group = prefix + (str(inside) if inside != Path() else f"{name}/{path.stem}")
            yield _sample(path, fake, root.resolve().name or "folder", group, "unknown" if fake else "-", split)


def _labelled_folders(root: Path) -> list[tuple[Path, bool, str | None]]:
    """The folders named by a label, whether that is fake, and the split that the folder above says."""
    if _has_folders(("real", "fake"), root):
        return [(root / "real", False, None), (root / "fake", True, None)]
    found = []
    for above in (root, *_folders(root)):
        split = _SPLIT_NAMES.get(above.name.lower())
        if above != root and split is None:
            continue
        for folder in _folders(above):
            labels = {_LABEL_NAMES.get(word) for word in re.split(r"[^a-z]+", folder.name.lower())} - {None}
            if len(labels) == 1:
                found.append((folder, labels == {"fake"}, None if above == root else split))
    if {split for _, _, split in found} == {"train"}:  # nothing validates, so it is drawn
        return [(folder, fake, None) for folder, fake, _ in found]
    return found


def _has_folders(names: Sequence[str], root: Path) -> bool:
    return all((root / name).is_dir() for name in names)


def _folders(root: Path) -> list[Path]:
    return sorted(each for each in root.iterdir() if each.is_dir()) if root.is_dir() else []


def _looks_like_dfdc(root: Path) -> bool:
    """Whether parts of DFDC lie here; a metadata.json beside `real/` is some other file."""
    first = (next(iter(_json(path, default={}).values()), None) for path in _dfdc_listings(root))
    return not (root / "real").is_dir() and any(isinstance(facts, dict) and "label" in facts for facts in first)


def _dfdc_listings(root: Path) -> list[Path]:
    return sorted([*root.glob("metadata.json"), *root.glob("*/metadata.json")])


_LAYOUTS: tuple[tuple[str, Callable[[Path], bool], Reader], ...] = (
    ("FaceForensics++", partial(_has_folders, ("original_sequences", "manipulated_sequences")), read_faceforensics),
    ("Celeb-DF", partial(_has_folders, ("Celeb-real", "Celeb-synthesis")), read_celeb_df),
    ("DFDC", _looks_like_dfdc, read_dfdc),
)


def _json(path: Path, *, default: Any) -> Any:
    """A JSON file of the kind of `default`, which a missing file gives."""
    if not path.is_file():
        return default
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TrainingDataError(f"{path} is not JSON: {error}.") from error
    if not isinstance(document, type(default)):
        raise TrainingDataError(f"{path} must be a JSON {'object' if isinstance(default, Mapping) else 'list'}.")
    return document


def _sample(path: Path, fake: bool, source: str, group: str, generator: str, split: str | None) -> Sample:
    kind = kind_of(path, str(path.parent))
    return Sample(path, kind, int(fake), named_for(kind, source), group, generator, split or "")


def named_for(kind: MediaKind, source: str) -> str:
    """A source's name: one of pictures and one of clips may share it; scores are reported apart."""
    return source if kind is MediaKind.IMAGE else CLIPS_PREFIX + source


def kind_of(path: Path, where: str) -> MediaKind:
    """Picture or video, by its suffix; `where` begins the error of any other."""
    for kind, suffixes in SUFFIXES.items():
        if path.suffix.lower() in suffixes:
            return kind
    raise TrainingDataError(f"{where}: the suffix of {path.name} is not one of a picture or video.")


def _media(folder: Path) -> Iterator[Path]:
    known = frozenset().union(*SUFFIXES.values())
    return (p for p in sorted(folder.rglob("*")) if p.suffix.lower() in known and p.is_file())


def _clip_name(path: Path, part: Path) -> str:
    """The video's name: of the file, or of the folder where the frames of a video were extracted into one."""
    inside = path.relative_to(part).parts[-2] if len(path.relative_to(part).parts) > 1 else ""
    return inside if inside[:1].isdigit() or inside.startswith("id") else path.stem
