"""Is feedback on voices felt? The learning benchmark with recordings that the version of speech in use does not know.

    python -m benchmarks.learning_voices --data FOLDER [--own] [--scores FILE]

Each system of fakes and each collection of real recordings of the manifests below FOLDER is taught by itself, then all
of them; half of the recordings is gone through, the other half measured. With `--own` half of the sources of the
version's golden set and replay buffer is taught too, which both lack then. Writes the scores; the page of
`learning_benchmark show` has their table.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import itertools
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import run_command, tell
from benchmarks.learning_benchmark import COUNTS, SCORES, Case, halved, summary, table, teach
from utils.config import load_settings
from utils.feedback.feature_set import CachedItem, FeatureSet, join_features
from utils.feedback.golden import load_lineage
from utils.speech.judge import SpeechJudge, load_speech
from utils.training.publishing import write_lineage
from utils.training.speech import read_recordings
from utils.training.speech_sounds import read_sound
from utils.weights import SPEECH_FOLDER, current_name, verify_version, weights_root

SPEECH_SCORES = SCORES.with_name("learning_speech.json")
EVERYTHING = "all of them"


def voice_cases(data: Path, folder: Path, *, own: bool) -> Iterator[Case]:
    """What voices are taught of: collections of recordings that the version of speech in use does not know.

    Args:
        folder: where a version without the sources that are taught is published.
        own: also half of the sources that its golden set and replay buffer come from, which both then lack.
    """
    root = weights_root(load_settings()) / SPEECH_FOLDER
    judge = load_speech(root, threads=1)
    features = voice_features(data, judge)
    names = np.array(
        [name if label else name.split()[0] for name, label in zip(features.sources, features.labels, strict=True)]
    )
    for name in (*dict.fromkeys(names), EVERYTHING):
        part = features.select((names == name) | (name == EVERYTHING))
        yield halved(str(name), judge.version, part)
    if not own:
        return
    lineage = load_lineage(judge.version)
    mine = join_features([lineage.golden[0].features, lineage.replay])
    quarter = np.array([int(hashlib.sha256(f"part {name}".encode()).hexdigest(), 16) % 4 for name in mine.sources])
    models = folder / SPEECH_FOLDER
    shutil.copytree(judge.version.folder, models / judge.version.name)
    write_lineage(models, judge.version.name, mine.select(quarter == 0), mine.select(quarter == 1))
    yield halved("validation", verify_version(models, judge.version.name), mine.select(quarter > 1))


def voice_features(data: Path, judge: SpeechJudge) -> FeatureSet:
    """The features of all recordings of the manifests below a folder, as the server caches them."""
    parts = []
    for recording in read_recordings(data):
        heard = judge.listen(read_sound(recording.path))
        if heard.starts:
            none = np.zeros(1, np.float32)
            part = CachedItem(heard.features[:, None].astype(np.float16), none, none, "").as_features(
                label=recording.label, source=recording.source, key=recording.path.name
            )
            parts.append(dataclasses.replace(part, groups=(recording.path.name,)))
    return join_features(parts)


def measure(chosen: argparse.Namespace) -> int:
    """Teach, measure and write."""
    rounds: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for case in voice_cases(chosen.data, Path(folder), own=chosen.own):
            for confirms, count in ((False, 0), *itertools.product((False, True), COUNTS)):
                done = teach(case, count, confirms)
                if done is not None:
                    rounds.append({"asked": count, **dataclasses.asdict(done)})
                    tell(str(rounds[-1]))
    name = current_name(weights_root(load_settings()) / SPEECH_FOLDER)
    chosen.scores.write_text(json.dumps({"version": name, "rounds": rounds}, indent=1) + "\n", "utf-8")
    print("\n".join([*summary(rounds), "", *table(rounds)]))
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Entry point of the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning_voices", description="Is it felt by voices?")
    parser.add_argument("--data", type=Path, required=True, help="folder of recordings that nothing was made of")
    parser.add_argument("--own", action="store_true", help="also half of the sources of the validation recordings")
    parser.add_argument("--scores", type=Path, default=SPEECH_SCORES, help="the file of scores")
    return run_command(parser, arguments, measure)


if __name__ == "__main__":
    sys.exit(main())
