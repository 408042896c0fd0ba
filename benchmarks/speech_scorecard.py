"""The page of the network of speech: figures, verdicts by family and world, and what tells classes apart without it.

    python -m benchmarks.speech_scorecard --data data --run runs/voices [--out docs/results/speech.md]

`--run` is the folder of a finished `train.py --speech`; its plan must be that of the command.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from utils.evaluation.scorecard import markdown_table
from utils.evaluation.speech_figures import Scores, figures_of, outcomes, read_scores
from utils.metrics import auc, clopper_pearson
from utils.speech.spectrogram import BANDS, log_mel, prepare
from utils.training.speech import SpeechPlan, all_views, read_recordings, with_copies
from utils.training.speech_linear import Recording
from utils.training.speech_sounds import read_sound
from utils.types import Floats, Outcome

FACTS = ("level", "peak", "seconds", "silence", "brightness", "floor")
"""Single facts of a recording that must tell as little as possible."""
LEAST_ALONE = 8
"""Recordings of a family or world, with fewer of which it stands with others."""
HEAD = """# The network of speech

By `python -m benchmarks.speech_scorecard --data data --run RUN`, on the validation recordings of the run. *Unseen*
families and worlds had no recording in training. Verdicts use a band that was chosen on other families and worlds
(two halves, crosswise). `min dcf` is the first measure of track 1 of ASVspoof 5 (one fake in 20, passing it costs ten
times a false alarm; 1 means that everything passes).

"""
NOTES = "\n## What was tried\n"
"""What follows in the page was written by hand and stays when it is made again."""


def share(hits: Sequence[bool]) -> str:
    """A share in per cent with its exact interval and its count."""
    low, high = clopper_pearson(sum(hits), len(hits)) if hits else (0.0, 1.0)
    return f"{100 * np.mean(hits) if hits else 0:.1f} [{100 * low:.1f}, {100 * high:.1f}] of {len(hits)}"


def scorecard(scores: Scores, facts: Mapping[str, float]) -> str:
    """The tables of the page, in Markdown."""
    said, real, strange = outcomes(scores), scores.labels < 0.5, scores.strangers > 0.5
    rows: list[tuple[object, ...]] = []
    for name, value in figures_of(scores).items():
        text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        rows.append((name.replace("_", " "), text))
    for title, chosen, outcome in (
        ("left-out worlds called fake, %", real & strange, Outcome.FAKE),
        ("left-out worlds called real, %", real & strange, Outcome.REAL),
        ("all real called fake, %", real, Outcome.FAKE),
        ("fakes called fake, %", ~real, Outcome.FAKE),
        ("fakes called real, %", ~real, Outcome.REAL),
    ):
        rows.append((title, share([said[i] is outcome for i in np.flatnonzero(chosen)])))
    rows.append(("AUC of single facts alone", ", ".join(f"{name} {value:.2f}" for name, value in facts.items())))
    of_kind: dict[tuple[str, float, float], list[Outcome]] = {}
    for outcome, *kind in zip(said, scores.kinds, scores.labels, scores.strangers, strict=True):
        few = scores.kinds.count(kind[0]) < LEAST_ALONE
        of_kind.setdefault(("others" if few else kind[0], kind[1], kind[2]), []).append(outcome)
    kinds = []
    for (name, label, new), of in sorted(of_kind.items()):
        cells = [f"{100 * np.mean([o is wanted for o in of]):.0f}" for wanted in (Outcome.FAKE, Outcome.REAL)]
        kinds.append((name, "fake" if label else "real", "yes" if new else "no", len(of), *cells))
    heads = ("family or world", "label", "unseen", "recordings", "called fake, %", "called real, %")
    return "\n".join(
        [*markdown_table(("measure", "value [95 % interval]"), rows), "", *markdown_table(heads, kinds), ""]
    )


def audit(recordings: Sequence[Recording], views: Sequence[Sequence[Floats]]) -> dict[str, float]:
    """What tells the classes of the validation part apart without a network: single facts, and a linear probe.

    The probe is a logistic regression on mean and spread over time of each band, trained on the training part.

    Returns:
        AUC by fact, 0.5 to 1, whichever way round; and that of `linear spectral probe`.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows: dict[str, list[Floats]] = {"train": [], "val": []}
    labels: dict[str, list[float]] = {"train": [], "val": []}
    facts = []
    for recording, made in zip(recordings, views, strict=True):
        window = prepare(made[0][None].astype(np.float32))[0]
        rows[recording.split].append(np.r_[window.mean(0), window.std(0)])
        labels[recording.split].append(float(recording.label))
        if recording.split == "val":
            sound = read_sound(recording.path)
            loud = log_mel(sound)
            power = loud.max(1)
            facts.append([
                np.log(np.mean(sound**2) + 1e-12), np.abs(sound).max(), len(sound), (power < power.max() - 9).mean(),
                loud.mean(0) @ np.arange(BANDS), np.quantile(power, 0.05) - power.max(),
            ])  # fmt: skip
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=500, class_weight="balanced"))
    probe.fit(np.stack(rows["train"]), labels["train"])
    truth = np.array(labels["val"])
    measured = {name: auc(truth, column) for name, column in zip(FACTS, np.array(facts).T, strict=True)}
    measured = {name: max(value, 1 - value) for name, value in measured.items()}
    measured["linear spectral probe"] = auc(truth, probe.decision_function(np.stack(rows["val"])))
    return {name: round(float(value), 3) for name, value in measured.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    plan = SpeechPlan()
    recordings = with_copies(read_recordings(given.data), plan)
    facts = audit(recordings, all_views(recordings, plan, given.run / "views"))
    page = HEAD + scorecard(read_scores(given.run / "scores.csv"), facts)
    if given.out:
        kept = given.out.read_text(encoding="utf-8").partition(NOTES)[1:] if given.out.is_file() else ()
        given.out.write_text("".join((page, *kept)), encoding="utf-8")
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
