"""Which votes of users the networks may learn from: pure rules over plain values, without database or files.

The web collects votes and asks here; so does the poisoning benchmark. A vote is one user's label for one medium. Media
that are the same bytes or look the same form a *cluster*, and a cluster is learned from at most once.
"""

from __future__ import annotations

import datetime as dt
import enum
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from utils.config import LearningSettings

HASH_BITS = 64
PHASH_DISTANCE = 4
"""Media whose perceptual hashes differ in at most this many bits look the same."""
VOICE = "voice"
"""What its features are called, where others bear the number of a face."""
STRANGERS_PER_DAY = 20
"""Clusters per UTC day for which an untrusted user's votes count; further ones are kept and do not."""


class Outlook(enum.StrEnum):
    """What a user may expect of a vote, told at once and again after each training."""

    WILL_BE_LEARNED = "will_be_learned"
    WAITS_FOR_USERS = "waits_for_users"
    WAITS_FOR_MODERATOR = "waits_for_moderator"
    NOT_LEARNED = "not_learned"
    TRIED = "tried"
    LEARNED = "learned"


class Status(enum.StrEnum):
    """What became of a vote. Only `ACCEPTED` is learned from; everything else is kept and shown."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    REPLACED = "replaced"
    WAITING = "waiting"
    CONTRADICTION = "contradiction"
    QUOTA = "quota"
    OUT_OF_DOMAIN = "out_of_domain"
    REJECTED = "rejected"


@dataclass(frozen=True, kw_only=True)
class Vote:
    """One user's label for one medium.

    Args:
        id: of the vote (the detection's id will do where a user has one vote per detection).
        user: who votes; votes of one user count once per cluster, the latest.
        media_sha256: of the file.
        phash: perceptual hash, 64 bits, of `utils.phash`; None where it is not known.
        label: 1 fake, 0 real.
        time: when, with zone; its UTC day is the day of the quota.
        trusted: the user was trusted when voting.
        anonymous: the user is known by a cookie or an address only, of which one person can have many.
        out_of_domain: why the medium cannot be learned from (no face, too small); empty when it can.
        decision: a moderator's word, or None.
        status: what became of it; None until it is judged.
        reason: one sentence for people why.
        missing: how many more users must agree; 0 where others cannot help.
    """

    id: str
    user: str
    media_sha256: str
    phash: int | None
    label: int
    time: dt.datetime
    trusted: bool = False
    anonymous: bool = False
    out_of_domain: str = ""
    decision: Literal["accept", "reject"] | None = None
    status: Status | None = None
    reason: str = ""
    missing: int = 0

    def __post_init__(self) -> None:
        if self.label not in (0, 1):
            raise ValueError(f"label must be 0 or 1: {self.label}")
        if self.time.tzinfo is None:
            raise ValueError("time must have a zone")
        if self.phash is not None and not 0 <= self.phash < 1 << HASH_BITS:
            raise ValueError(f"phash must have {HASH_BITS} bits: {self.phash}")


class Ruling(NamedTuple):
    """What becomes of a vote, why, and how many more users must agree."""

    status: Status
    reason: str
    missing: int = 0


@dataclass(frozen=True)
class LearningItem:
    """One face of an accepted medium, or its voice, ready to be learned from.

    Args:
        media_sha256: of the file.
        label: 1 fake, 0 real: the actual one.
        features: path of its cached features.
        source: whose vote it is; draws are balanced over sources, so that no one crowds out others.
        row_id: of the vote that stands for it, for whoever keeps votes in rows.
    """

    media_sha256: str
    label: Literal[0, 1]
    features: Path
    source: str
    row_id: int = 0

    @property
    def voice(self) -> bool:
        """Whether it is for the network of speech."""
        return self.features.stem == VOICE


def judge_votes(votes: Iterable[Vote], rules: LearningSettings) -> tuple[Vote, ...]:
    """Decide about all votes at once; the answer depends on the set of votes and not on how it is ordered.

    Args:
        votes: every vote that was given and not withdrawn. A moderator's decision about one vote holds for all votes
            with the same label in its cluster.
        rules: what is enough; the section [learning].

    Returns:
        The votes by time, each with its status and reason. Of each cluster at most one is `ACCEPTED`.
    """
    ordered = sorted(votes, key=lambda v: (v.time, v.id))
    clusters = cluster_media(ordered)
    over_quota = _over_quota(ordered, clusters)
    members: dict[int, list[Vote]] = defaultdict(list)
    for vote, cluster in zip(ordered, clusters, strict=True):
        members[cluster].append(vote)
    rulings: dict[str, Ruling] = {}
    for of_cluster in members.values():
        rulings |= _judge_cluster(of_cluster, over_quota, rules)
    return tuple(replace(v, **rulings[v.id]._asdict()) for v in ordered)


def cluster_media(votes: Sequence[Vote], distance: int = PHASH_DISTANCE) -> list[int]:
    """The cluster number of each vote's medium: same sha256, or perceptual hashes at most `distance` bits apart.

    Looking the same is passed on: if A looks like B and B like C, all three are one cluster.
    """
    parents = list(range(len(votes)))

    def find(i: int) -> int:
        while parents[i] != i:
            parents[i] = parents[parents[i]]
            i = parents[i]
        return i

    first_of: dict[str, int] = {}
    for i, vote in enumerate(votes):
        if vote.media_sha256 in first_of:
            parents[i] = first_of[vote.media_sha256]
        else:
            first_of[vote.media_sha256] = i
    of_hash: dict[int, int] = {}
    for i in first_of.values():
        mine = votes[i].phash
        if mine is not None:
            parents[find(i)] = find(of_hash.setdefault(mine, i))
    for one, other in _near(list(of_hash), distance):
        low, high = sorted((find(of_hash[one]), find(of_hash[other])))
        parents[high] = low
    numbers: dict[int, int] = {}
    return [numbers.setdefault(find(i), len(numbers)) for i in range(len(votes))]


def _near(hashes: Sequence[int], distance: int) -> Iterator[tuple[int, int]]:
    """Pairs of different hashes that are at most `distance` bits apart; a pair may come more than once.

    Hashes that differ in at most d bits are equal in one of d + 1 bands; only those with an equal band are compared.
    """
    edges = [HASH_BITS * k // (distance + 1) for k in range(distance + 2)]
    for low_bit, high_bit in pairwise(edges):
        buckets: dict[int, list[int]] = defaultdict(list)
        for each in hashes:
            buckets[(each >> low_bit) & ((1 << (high_bit - low_bit)) - 1)].append(each)
        for bucket in buckets.values():
            together = np.array(bucket, np.uint64)
            for at in range(len(bucket) - 1):
                apart = np.bitwise_count(together[at + 1 :] ^ together[at])
                for found in np.flatnonzero(apart <= distance):
                    yield bucket[at], bucket[at + 1 + int(found)]


def _over_quota(ordered: Sequence[Vote], clusters: Sequence[int]) -> set[str]:
    """Votes of strangers beyond their quota of the day; a second vote on the same cluster costs nothing."""
    seen: dict[tuple[str, dt.date], set[int]] = defaultdict(set)
    over: set[str] = set()
    for vote, cluster in zip(ordered, clusters, strict=True):
        mine = seen[vote.user, vote.time.astimezone(dt.UTC).date()]
        if not vote.trusted and cluster not in mine and len(mine) >= STRANGERS_PER_DAY:
            over.add(vote.id)
        else:
            mine.add(cluster)
    return over


def _judge_cluster(votes: Sequence[Vote], over_quota: set[str], rules: LearningSettings) -> dict[str, Ruling]:
    latest = {v.user: v for v in votes}  # in order of time, so the last one stays
    decisions = {v.label: v.decision for v in votes if v.decision is not None}
    out: dict[str, Ruling] = {}
    standing: list[Vote] = []
    for vote in votes:
        if decisions.get(vote.label) == "reject":
            out[vote.id] = Ruling(Status.REJECTED, "A moderator rejected this label.")
        elif vote.out_of_domain:
            out[vote.id] = Ruling(Status.OUT_OF_DOMAIN, vote.out_of_domain)
        elif latest[vote.user].id != vote.id:
            out[vote.id] = Ruling(Status.REPLACED, "The same user gave another label later.")
        elif vote.id in over_quota and decisions.get(vote.label) != "accept":
            why = f"More than {STRANGERS_PER_DAY} media of one user on one day do not count."
            out[vote.id] = Ruling(Status.QUOTA, why)
        else:
            standing.append(vote)
    approved = {label for label, decision in decisions.items() if decision == "accept"}
    if len(approved) == 1:  # a moderator's word ends a contradiction
        for vote in [v for v in standing if v.label not in approved]:
            out[vote.id] = Ruling(Status.REJECTED, "A moderator accepted the other label.")
        standing = [v for v in standing if v.label in approved]
    if len({v.label for v in standing}) == 2:
        why = "The same or a very similar medium is called real by one and fake by another."
        return out | {v.id: Ruling(Status.CONTRADICTION, why) for v in standing}
    return out | _judge_agreeing(standing, bool(approved), rules)


def _judge_agreeing(votes: Sequence[Vote], approved: bool, rules: LearningSettings) -> dict[str, Ruling]:
    """Votes of one cluster that all say the same, one per user."""
    if not votes:
        return {}
    agreeing = sum(rules.anonymous_quorum == "on" or not v.anonymous for v in votes)
    if approved:
        why = "A moderator accepted it."
    elif rules.enough != "moderator" and agreeing >= rules.quorum:
        why = f"{agreeing} users agree."
    elif rules.enough == "trusted" and any(v.trusted for v in votes):
        why = "A trusted user says so."
    else:
        missing = {
            "moderator": "A moderator has to accept it.",
            "quorum": f"{agreeing} of {rules.quorum} users who must agree.",
            "trusted": f"No trusted user, and {agreeing} of {rules.quorum} users who must agree.",
        }[rules.enough]
        if rules.enough != "moderator" and agreeing < len(votes):
            missing += " Users without a key do not count."
        more = 0 if rules.enough == "moderator" else rules.quorum - agreeing
        return {v.id: Ruling(Status.WAITING, missing, more) for v in votes}
    repeated = "The same or a very similar medium is learned from already."
    rulings = {v.id: Ruling(Status.DUPLICATE, repeated) for v in votes[1:]}
    return {votes[0].id: Ruling(Status.ACCEPTED, why), **rulings}


def outlook_of(status: Status, missing: int = 0, *, tried: bool = False, learned: bool = False) -> Outlook:
    """What a user may expect of a vote.

    Args:
        status: what became of it, or will by what is known so far.
        missing: how many more users must agree, where it waits.
        tried: a candidate has learned from it.
        learned: a version that was promoted has.
    """
    if status in (Status.ACCEPTED, Status.DUPLICATE):
        return Outlook.LEARNED if learned else Outlook.TRIED if tried else Outlook.WILL_BE_LEARNED
    if status is Status.WAITING and missing:
        return Outlook.WAITS_FOR_USERS
    waits = (Status.WAITING, Status.CONTRADICTION)
    return Outlook.WAITS_FOR_MODERATOR if status in waits else Outlook.NOT_LEARNED
