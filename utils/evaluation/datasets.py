"""Which files there are to learn from, as one list of samples: manifests (CSV), well-known data sets as they come, or
folders named by their label (`layouts.py`).

The first stage of training; `utils/training/crop_set.py` turns the samples into face crops.
"""

from __future__ import annotations

import csv
import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path

from utils.errors import TrainingDataError
from utils.evaluation.layouts import CLIPS_PREFIX, Sample, kind_of, named_for, read_labelled, read_layout
from utils.files import file_sha256
from utils.types import MediaKind

SHOWN = 12  # names of what lies in a folder where nothing usable was found
SWAPS, DRIVEN, PORTRAITS, BLENDS = "swaps", "driven heads", "portraits", "self-blends"
_SWAPS = ("swap", "deepfakes", "fsgan", "simswap", "dfdc")
_DRIVEN = (
    "driven", "face2face", "neuraltextures", "reenact", "talk", "vasa", "emo", "aniportrait", "styleheat", "fomm",
    "first order", "liveportrait", "hallo",
)  # fmt: skip
_BLENDS = ("self-blend",)
MANIFEST_COLUMNS = frozenset({"file", "split", "source", "label", "group", "generator"})
SPEECH_COLUMNS = frozenset({"speaker", "system"})
"""A manifest below the folder with both of these lists recordings of voices, which no network here hears."""
APART = "apart"
"""The split of files that are kept beside the data but are of neither class."""


def read_samples(root: Path, *, calib_share: float = 0.15, val_share: float = 0.15, seed: int = 0) -> list[Sample]:
    """Every sample below `root`, from its manifests where there are some, else from the layout that it has.

    Args:
        root: a folder with `manifest.csv` (here or one level below), with FaceForensics++, Celeb-DF or DFDC, or with
            folders named by their label.
        calib_share: share of the training groups set aside for calibration; twice as much of groups of clips alone.
        val_share: share of all groups that validate, where no manifest names a split.

    Raises:
        TrainingDataError: nothing usable is there, a manifest lacks columns, a listed file is missing, or a file is
            called both real and fake.
    """
    if manifests := find_manifests(root):
        samples = [s for manifest in manifests if not is_of_speech(manifest) for s in _read_manifest(manifest)]
    elif rows := read_layout(root):
        samples = [_with_split(row, val_share, seed) for row in rows]
    else:
        samples = _read_folders(root, val_share, seed)
    with_pictures = {_group_key(s) for s in samples if s.kind is MediaKind.IMAGE}
    samples = [replace(s, split=_held_out(s, calib_share, seed, _group_key(s) in with_pictures)) for s in samples]
    check_groups(samples)
    check_labels(samples)
    return samples


def find_manifests(root: Path) -> list[Path]:
    """The manifests of a folder, here or one level below."""
    return sorted([*root.glob("manifest.csv"), *root.glob("*/manifest.csv")])


def is_of_speech(manifest: Path) -> bool:
    """Whether a manifest lists recordings of voices."""
    with manifest.open(newline="", encoding="utf-8-sig", errors="replace") as stream:
        return set(next(csv.reader(stream), ())) >= SPEECH_COLUMNS


def read_rows(manifest: Path, columns: Set[str]) -> Iterator[tuple[dict[str, str], str]]:
    """The rows of a manifest, each with its place for an error.

    Raises:
        TrainingDataError: it lacks one of the columns, or is no CSV file in UTF-8.
    """
    try:
        with manifest.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            if missing := columns - set(reader.fieldnames or ()):
                raise TrainingDataError(f"{manifest}, line 1: the columns {', '.join(sorted(missing))} are missing.")
            for row in reader:
                yield row, f"{manifest}, line {reader.line_num}"
    except (UnicodeDecodeError, csv.Error) as error:
        raise TrainingDataError(f"{manifest} is not a CSV file in UTF-8: {error}.") from error


def _read_manifest(manifest: Path) -> list[Sample]:
    rows = read_rows(manifest, MANIFEST_COLUMNS)
    samples = [_sample_of(row, manifest.parent, where) for row, where in rows if row["split"] != APART]
    if not samples:
        raise TrainingDataError(f"{manifest} lists no files.")
    return samples


def _sample_of(row: Mapping[str, str | None], folder: Path, where: str) -> Sample:
    """The sample of one row; `where` begins the error that a damaged row raises."""
    cell = {name: row[name] or "" for name in MANIFEST_COLUMNS}
    empty = sorted(name for name in ("file", "source", "group") if not cell[name])
    if empty:
        raise TrainingDataError(f"{where}: {', '.join(empty)} must not be empty.")
    if cell["label"] not in ("real", "fake") or cell["split"] not in ("train", "val"):
        raise TrainingDataError(f"{where}: label must be real or fake, split train or val.")
    path = folder / cell["file"]
    if not path.is_file():
        raise TrainingDataError(f"{where}: there is no file {cell['file']}.")
    kind = kind_of(path, where)
    source = named_for(kind, cell["source"])
    return Sample(path, kind, int(cell["label"] == "fake"), source, cell["group"], cell["generator"], cell["split"])


def _with_split(sample: Sample, val_share: float, seed: int) -> Sample:
    """A sample whose split is drawn where its data set says none."""
    drawn = "val" if _share_of(sample.group, seed) < val_share else "train"
    return replace(sample, split=sample.split or drawn)


def _read_folders(root: Path, val_share: float, seed: int) -> list[Sample]:
    rows = list(read_labelled(root))
    for fake, name in enumerate(("real", "fake")):
        count = sum(row.label == fake for row in rows)
        if count < 2:
            there = ", ".join(sorted(path.name for path in root.glob("*"))[:SHOWN]) or "nothing"
            raise TrainingDataError(
                f"{root / name} holds {count} pictures or videos; at least 2 are needed. {root} holds: {there}."
            )
    return [_with_split(row, val_share, seed) for row in rows]


def check_labels(samples: Sequence[Sample]) -> None:
    """Refuse samples of which the same bytes are called real and fake.

    Files are told apart by their length first, then by their beginning, and read in full only where those agree.

    Raises:
        TrainingDataError: with the two files.
    """

    def beginning(path: Path) -> bytes:
        with path.open("rb") as file:
            return file.read(4096)

    alike: list[list[Sample]] = [list(samples)]
    for key in (lambda path: path.stat().st_size, beginning, file_sha256):
        alike = [part for group in alike for part in _parts_of_both_labels(group, key)]
    if alike:
        real, fake = (next(s.path for s in alike[0] if s.label == label) for label in (0, 1))
        raise TrainingDataError(f"{real} and {fake} are the same file; it cannot be both real and fake.")


def _parts_of_both_labels(samples: list[Sample], key: Callable[[Path], object]) -> list[list[Sample]]:
    parts: dict[object, list[Sample]] = defaultdict(list)
    for sample in samples:
        parts[key(sample.path)].append(sample)
    return [part for at, part in parts.items() if at and len({s.label for s in part}) == 2]


def _group_key(sample: Sample) -> tuple[str, str]:
    """What must not be divided: a group of one source, its pictures and its clips together."""
    return sample.source.removeprefix(CLIPS_PREFIX), sample.group


def _share_of(group: str, seed: int) -> float:
    """A number in 0..1 that belongs to the group: the same on every machine and in every order."""
    digest = hashlib.sha256(f"{seed}:{group}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _held_out(sample: Sample, calib_share: float, seed: int, with_pictures: bool) -> str:
    # clips are few, and a gate for videos needs more of them than a sixth; a group that has both goes as a whole
    share = calib_share * (1 if with_pictures else 2)
    if sample.split == "train" and _share_of(sample.group, seed + 1) < share:
        return "calib"
    return sample.split


def check_groups(samples: list[Sample]) -> None:
    """Refuse samples whose group is divided between splits.

    Raises:
        TrainingDataError: a group has samples in two splits.
    """
    seen: dict[tuple[str, str], str] = {}
    for sample in samples:
        first = seen.setdefault(_group_key(sample), sample.split)
        if first != sample.split:
            source, group = _group_key(sample)
            raise TrainingDataError(f"The group {group} of {source} is in {first} and {sample.split}.")


def family_of(generator: str) -> str:
    """The family of a generator by its name: faces swapped in, heads driven, self-blends, or made from nothing."""
    name = generator.lower()
    for family, words in ((BLENDS, _BLENDS), (SWAPS, _SWAPS), (DRIVEN, _DRIVEN)):
        if any(word in name for word in words):
            return family
    return PORTRAITS


def is_of(name: str, source: str, generator: str) -> bool:
    """Whether a crop is meant by a name: of its source, of its generator, or of its generator's family.

    A source of clips is known with and without `video:`; `dfdc` also means `dfdc_crops`. Real crops have no generator
    (`-`) and so no family.
    """
    plain = source.removeprefix(CLIPS_PREFIX)
    if name in (source, plain) or plain.startswith(f"{name}_"):
        return True
    return generator != "-" and name in (generator, family_of(generator))
