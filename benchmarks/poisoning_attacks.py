"""The attacks of the poisoning drill: who votes what on which media, round by round. Nothing here trains anything."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from utils.feedback.feature_set import FeatureSet
from utils.feedback.quarantine import Vote

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
SLOW_FLIPPED, SLOW_HONEST = 2, 1
"""New media per round of the slow attack: so few that no single round could do harm."""

Features = tuple[npt.NDArray[np.float16], npt.NDArray[np.float32], npt.NDArray[np.float32]]


@dataclass
class Crowd:
    """Media of users, with their true labels, and everything needed to make votes about them.

    Args:
        pool: features of real faces that are in no other set.
        scores: (N,) what the base makes of them.
    """

    pool: FeatureSet
    scores: npt.NDArray[np.float64]
    _made: dict[str, tuple[int, str]] = field(default_factory=dict)
    _votes: int = 0

    def medium(self, index: int, variant: str = "") -> str:
        """Sha256 of an item of the pool as a file; a variant is another file of it, such as a re-encoded one."""
        sha256 = hashlib.sha256(f"{self.pool.keys[index]} {index} {variant}".encode()).hexdigest()
        self._made[sha256] = index, variant
        return sha256

    def features(self, sha256: str) -> Features:
        """Tokens, logits and quality of a medium; variants differ a little, strangers (`alien`) entirely."""
        index, variant = self._made[sha256]
        item = self.pool.select(np.array([index]))
        tokens = np.asarray(item.tokens, np.float32)
        rng = np.random.default_rng(int(sha256[:12], 16))
        if variant.startswith("alien"):
            tokens = rng.permuted(tokens, axis=-1)
        elif variant:
            tokens = tokens + rng.normal(0, 0.02, tokens.shape) * tokens.std()
        return tokens.astype(np.float16), item.logits[0], item.quality[0]

    def vote(
        self, user: str, sha256: str, *, flip: bool = False, day: int = 0, phash: int | None = None, **facts: Any
    ) -> Vote:
        """A vote about a medium; `flip` says the opposite of the truth."""
        self._votes += 1
        label = int(self.pool.labels[self._made[sha256][0]])
        own = int(sha256[:16], 16) if phash is None else phash
        time = START + dt.timedelta(days=day, seconds=self._votes % 80_000)
        return Vote(
            id=f"vote-{self._votes:06d}", user=user, media_sha256=sha256, phash=own, label=1 - label if flip else label,
            time=time, **facts,
        )  # fmt: skip

    def mistakes(self) -> npt.NDArray[np.int64]:
        """Items that the base gets wrong at 50 %."""
        return np.flatnonzero((self.scores >= 0.5) != (self.pool.labels > 0.5))


Rounds = Callable[[Crowd, int], Iterator[list[Vote]]]


@dataclass(frozen=True)
class Attack:
    """One attack: `rounds` gives the votes that come before each training."""

    key: str
    title: str
    rounds: Rounds


def one_user(crowd: Crowd, rounds: int) -> Iterator[list[Vote]]:
    """A thousand flipped labels of an ordinary user; then 300 of a stolen trusted account, which has no quota."""
    media = [crowd.medium(i % len(crowd.pool), f"copy {i}") for i in range(1000)]
    yield [crowd.vote("mallory", m, flip=True) for m in media]
    yield [crowd.vote("stolen", m, flip=True, day=1, trusted=True) for m in media[:300]]


def many_users(crowd: Crowd, rounds: int) -> Iterator[list[Vote]]:
    """Enough users for every quorum agree on flipped labels for everything of one source."""
    sources = np.array(crowd.pool.sources)
    names, counts = np.unique(sources, return_counts=True)
    target = names[int(np.argmax(counts))]
    chosen = np.flatnonzero(sources == target)
    for day, part in enumerate(np.array_split(chosen, 2)):
        yield [
            crowd.vote(f"sybil-{vote}-{n // 15}", crowd.medium(int(i)), flip=True, day=day)
            for n, i in enumerate(part)
            for vote in range(3)
        ]


def slowly(crowd: Crowd, rounds: int) -> Iterator[list[Vote]]:
    """Round by round a few flipped labels among honest corrections, each round harmless by itself."""
    honest = list(crowd.mistakes())
    flipped = [int(i) for i in np.random.default_rng(5).permutation(len(crowd.pool)) if i not in set(honest)]
    for day in range(rounds):
        lies = flipped[day * SLOW_FLIPPED : (day + 1) * SLOW_FLIPPED]
        truths = honest[day * SLOW_HONEST : (day + 1) * SLOW_HONEST]
        if not lies:
            # the pool is used up: the same faces come again as other files
            lies = flipped[(day * SLOW_FLIPPED) % len(flipped) :][:SLOW_FLIPPED]
        chosen = [(i, True) for i in lies] + [(int(i), False) for i in truths]
        yield [
            crowd.vote(f"patient-{vote}", crowd.medium(i, f"day {day}" if flip else ""), flip=flip, day=day)
            for i, flip in chosen
            for vote in range(3)
        ]


def near_duplicates(crowd: Crowd, rounds: int) -> Iterator[list[Vote]]:
    """Two hundred re-encoded copies of one medium with flipped labels, by many users."""
    target = int(np.argmax(np.abs(crowd.scores - 0.5) * ((crowd.scores >= 0.5) == (crowd.pool.labels > 0.5))))
    first = int(crowd.medium(target)[:16], 16)
    yield [
        crowd.vote(f"copier-{i % 20}", crowd.medium(target, f"re-encoded {i}"), flip=True, phash=first ^ (1 << i % 64))
        for i in range(200)
    ]


def out_of_domain(crowd: Crowd, rounds: int) -> Iterator[list[Vote]]:
    """Pictures without a usable face, and pictures whose "face" is none, with a full quorum."""
    reasons = ("No face was found.", "The face is only 30 pixels wide; at least 40 are needed.")
    faceless = [crowd.medium(i % len(crowd.pool), f"faceless {i}") for i in range(60)]
    yield [
        crowd.vote(f"stranger-{vote}", m, flip=True, day=n // 15, out_of_domain=reasons[n % 2])
        for n, m in enumerate(faceless)
        for vote in range(3)
    ]
    aliens = [crowd.medium(i % len(crowd.pool), f"alien {i}") for i in range(40)]
    yield [
        crowd.vote(f"stranger-{vote}", m, flip=bool(n % 2), day=10 + n // 15)
        for n, m in enumerate(aliens)
        for vote in range(3)
    ]


ATTACKS = (
    Attack("a", "1,000 flipped labels from one user, then 300 from a stolen trusted account", one_user),
    Attack("b", "many users flip everything of one source", many_users),
    Attack("c", "slow poisoning, round by round", slowly),
    Attack("d", "200 near duplicates", near_duplicates),
    Attack("e", "pictures outside the domain", out_of_domain),
)
