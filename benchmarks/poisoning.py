"""The poisoning drill: attacks on the learning, run through the same quarantine, training and gate as real feedback.

    python -m benchmarks.poisoning [--rounds 50]      (or: make poison-drill)

It works on a copy of the version in use in a temporary folder. Users' media are half of the replay buffer, which is
taken out of it, so what the attackers send is real features of real faces. Passed means: whatever version was served in
whatever round, its golden AUC stayed at least .002 above the bound (.005 below the base), every attack left signs in
the statistics, and after a rollback the scores were those of before, bit for bit.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import run_command, tell
from benchmarks.poisoning_attacks import ATTACKS, Attack, Crowd
from utils.config import LearningSettings, load_settings
from utils.errors import NothingNewError
from utils.evaluation.scorecard import markdown_table
from utils.feedback.cached_judge import load_parts, probabilities
from utils.feedback.feature_set import CachedItem
from utils.feedback.golden import Lineage, load_lineage, score_golden
from utils.feedback.history import read_history, verify_history
from utils.feedback.quarantine import LearningItem, Status, Vote, judge_votes
from utils.feedback.remember import Recipe
from utils.feedback.retrain import train_version
from utils.feedback.versions import rollback
from utils.training.publishing import write_lineage
from utils.weights import current_name, list_versions, set_current, verify_version, weights_root

BOUND, ROOM = 0.005, 0.002
"""What golden AUC may lose by no attack, and how far the worst served version shall stay from it."""
SIGN_SHARE = 0.3
"""Share of accepted items that stays wrong after a training, from which the statistics show that something is odd."""


@dataclass
class AttackResult:
    """What one attack did.

    Args:
        quarantined: the others by status.
        lowest_auc: golden AUC of the worst version that was ever served.
        rollback_equal: after the rollback every golden score was what it was before, bit for bit.
    """

    key: str
    title: str
    votes: int = 0
    accepted: int = 0
    quarantined: dict[str, int] = field(default_factory=dict)
    trainings: int = 0
    promoted: int = 0
    rejected: int = 0
    lowest_auc: float = 1.0
    signs: list[str] = field(default_factory=list)
    rollback_equal: bool = False


class Arena:
    """A copy of a version and its lineage in a folder of its own, where attacks may do what they like.

    Args:
        recipe: of the trainings; None takes that of the version.
    """

    def __init__(
        self, root: Path, name: str, folder: Path, recipe: Recipe | None = None, rules: LearningSettings | None = None
    ) -> None:
        self.root, self.history, self.features = folder / "models", folder / "history.jsonl", folder / "features"
        self.recipe, self.rules = recipe, rules or LearningSettings()
        self.features.mkdir(parents=True)
        self.root.mkdir()
        base = verify_version(root, name).base
        shutil.copytree(root / base, self.root / base)
        (self.root / "base").symlink_to((root / "base").resolve())
        self.base = verify_version(self.root, base)
        set_current(self.root, base)
        whole = load_lineage(verify_version(root, base))
        order = np.random.default_rng(11).permutation(len(whole.replay))
        half = np.zeros(len(whole.replay), bool)
        half[order[: len(order) // 2]] = True
        write_lineage(self.root, base, whole.golden[0].features, whole.replay.select(~half))
        self.lineage: Lineage = load_lineage(self.base)
        self.crowd = Crowd(whole.replay.select(half), probabilities(load_parts(self.base), whole.replay.select(half)))
        self.before = self.scores()

    def scores(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Golden probabilities of the version that is served."""
        return probabilities(self._served(), self.lineage.golden[0].features)

    def golden_auc(self) -> float:
        """Golden AUC of the version that is served."""
        return score_golden(self._served(), self.lineage.golden[0]).auc

    def reset(self) -> None:
        """As before the first attack."""
        set_current(self.root, self.base.name)
        for name in list_versions(self.root):
            if name != self.base.name:
                shutil.rmtree(self.root / name)
        self.history.unlink(missing_ok=True)

    def learn(self, votes: Sequence[Vote]) -> tuple[Vote, ...]:
        """Judge all votes so far, and train on what is accepted, as the server does; gives what was accepted."""
        accepted = tuple(v for v in judge_votes(votes, self.rules) if v.status is Status.ACCEPTED)
        items = []
        for vote in accepted:
            path = self.features / f"{vote.media_sha256}.npz"
            if not path.exists():
                tokens, logits, quality = self.crowd.features(vote.media_sha256)
                CachedItem(tokens, logits, quality, self.lineage.golden[0].experts).save(path)
            label: Any = vote.label
            items.append(LearningItem(vote.media_sha256, label, path, "feedback"))
        train_version(items, self.root, self.history, recipe=self.recipe)
        return accepted

    def _served(self) -> Any:
        return load_parts(verify_version(self.root, current_name(self.root)))


def run_attack(arena: Arena, attack: Attack, rounds: int, tell: Callable[[str], None]) -> AttackResult:
    """Run one attack from a fresh start, and roll back at its end."""
    arena.reset()
    result = AttackResult(attack.key, attack.title, lowest_auc=arena.golden_auc())
    votes: list[Vote] = []
    learned: frozenset[str] = frozenset()
    for number, given in enumerate(attack.rounds(arena.crowd, rounds), start=1):
        votes += given
        now = frozenset(v.id for v in judge_votes(votes, arena.rules) if v.status is Status.ACCEPTED)
        if now == learned:
            continue  # the server answers 422: there is nothing new
        try:
            arena.learn(votes)
        except NothingNewError:
            continue
        learned = now
        result.lowest_auc = min(result.lowest_auc, arena.golden_auc())
        last = [e for e in read_history(arena.history).entries if e["event"] == "training"][-1]
        tell(f"({attack.key}) round {number}: {len(now)} accepted, {last['code']}, served AUC {arena.golden_auc():.4f}")
    counts = Counter(v.status for v in judge_votes(votes, arena.rules))
    result.votes, result.accepted = len(votes), counts.pop(Status.ACCEPTED, 0)
    result.quarantined = {status.value: counts[status] for status in Status if counts[status]}
    trainings = [e for e in read_history(arena.history).entries if e["event"] == "training"]
    result.trainings, result.promoted = len(trainings), sum(bool(e["promoted"]) for e in trainings)
    result.rejected = result.trainings - result.promoted
    result.signs = signs_of(result, trainings)
    if current_name(arena.root) != arena.base.name:
        rollback(arena.root, arena.history, arena.base.name)
    intact = not arena.history.exists() or verify_history(arena.history).ok
    result.rollback_equal = intact and bool(np.array_equal(arena.scores(), arena.before))
    return result


def signs_of(result: AttackResult, trainings: Sequence[Any]) -> list[str]:
    """What a moderator sees of an attack on the page of statistics."""
    signs = [f"{n} votes {status}" for status, n in result.quarantined.items()]
    if result.rejected:
        reasons = [e["reason"] for e in trainings if not e["promoted"]]
        signs.append(f"{result.rejected} candidates rejected, the last: {reasons[-1]}")
    odd = [e for e in trainings if 1 - e["accuracy_after"] >= SIGN_SHARE]
    if odd:
        signs.append(
            f"{1 - odd[-1]['accuracy_after']:.0%} of the accepted labels contradict the networks after learning them"
        )
    return signs


def run_drill(
    root: Path,
    name: str,
    recipe: Recipe | None = None,
    *,
    rounds: int = 50,
    attacks: Sequence[Attack] = ATTACKS,
    rules: LearningSettings | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Run attacks against a copy of a version.

    Args:
        root: the folder with the versions; it is only read.
        recipe: of the trainings; None takes that of the version.

    Returns:
        Plain JSON values: `passed`, `base_auc`, `lowest_auc`, `bound`, and one entry per attack.
    """
    with tempfile.TemporaryDirectory() as folder:
        arena = Arena(root, name, Path(folder), recipe, rules)
        base_auc = arena.golden_auc()
        results = [run_attack(arena, attack, rounds, tell) for attack in attacks]
    lowest = min(r.lowest_auc for r in results)
    passed = lowest >= base_auc - BOUND + ROOM and all(r.signs and r.rollback_equal for r in results)
    return {
        "version": name,
        "passed": passed,
        "base_auc": round(base_auc, 6),
        "lowest_auc": round(lowest, 6),
        "bound": BOUND,
        "attacks": [dataclasses.asdict(r) for r in results],
    }


def main(arguments: list[str] | None = None) -> int:
    """Entry point of the command: 0 when the drill was passed, 1 when not, 3 when it could not run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.poisoning", description="The poisoning drill.")
    parser.add_argument("--rounds", type=int, default=50, help="of the slow attack")
    parser.add_argument("--version", default="", help="name of the version (default: the one in use)")
    return run_command(parser, arguments, _drill)


def _drill(chosen: argparse.Namespace) -> int:
    settings = load_settings()
    root = weights_root(settings)
    name = chosen.version or current_name(root)
    result = run_drill(root, name, rounds=chosen.rounds, rules=settings.learning, tell=tell)
    print(markdown(result))
    return 0 if result["passed"] else 1


def markdown(result: dict[str, Any]) -> str:
    """The result as the table of docs/learning.md."""
    verdict = (
        f"Version {result['version']}: {'passed' if result['passed'] else 'FAILED'}; golden AUC of the base "
        f"{result['base_auc']:.4f}, lowest of any served version {result['lowest_auc']:.4f} "
        f"(bound {result['base_auc'] - result['bound']:.4f}, room wanted {ROOM:g})."
    )
    heads = ("attack", "votes", "accepted", "trainings", "promoted", "lowest golden AUC", "what the statistics show")
    rows = (
        (
            f"({a['key']}) {a['title']}", a["votes"], a["accepted"], a["trainings"], a["promoted"],
            f"{a['lowest_auc']:.4f}", "; ".join(a["signs"]), "yes" if a["rollback_equal"] else "NO",
        )
        for a in result["attacks"]
    )  # fmt: skip
    return "\n".join([verdict, "", *markdown_table((*heads, "rollback bit-equal"), rows)])


if __name__ == "__main__":
    sys.exit(main())
