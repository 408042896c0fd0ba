"""The quarantine: what counts once, what waits, what is never learned from."""

from __future__ import annotations

import datetime as dt
import itertools
import random
from itertools import combinations

import pytest

from utils.config import LearningSettings
from utils.feedback.quarantine import STRANGERS_PER_DAY, Outlook, Status, Vote, cluster_media, judge_votes, outlook_of

NOON = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)
QUORUM = LearningSettings(enough="quorum", quorum=3)
NUMBERS = itertools.count(1)


def accepted_votes(judged):
    return tuple(v for v in judged if v.status is Status.ACCEPTED)


def vote(user="ann", medium=1, *, label=1, minutes=0, phash="own", **facts):
    own = random.Random(medium).getrandbits(64) if phash == "own" else phash
    time = NOON + dt.timedelta(minutes=minutes)
    return Vote(
        id=f"v{next(NUMBERS)}", user=user, media_sha256=f"{medium:064d}", phash=own, label=label, time=time, **facts
    )


def statuses(votes, rules=QUORUM):
    return [r.status for r in judge_votes(votes, rules)]


def test_a_quorum_accepts_once_and_the_others_are_duplicates():
    votes = [vote(user, minutes=i) for i, user in enumerate("abcd")]
    assert statuses(votes[:2]) == [Status.WAITING] * 2
    assert statuses(votes) == [Status.ACCEPTED, *[Status.DUPLICATE] * 3]
    assert [v.id for v in accepted_votes(judge_votes(votes, QUORUM))] == [votes[0].id]


def test_a_waiting_vote_says_how_many_users_are_missing():
    votes = [vote(user, minutes=i) for i, user in enumerate("ab")]
    assert [v.missing for v in judge_votes(votes[:1], QUORUM)] == [2]
    assert [v.missing for v in judge_votes(votes, QUORUM)] == [1, 1]
    assert [v.missing for v in judge_votes(votes, LearningSettings(enough="moderator"))] == [0, 0]
    assert outlook_of(Status.WAITING, 1) is Outlook.WAITS_FOR_USERS
    assert outlook_of(Status.WAITING) is Outlook.WAITS_FOR_MODERATOR
    assert outlook_of(Status.ACCEPTED, tried=True) is Outlook.TRIED
    assert outlook_of(Status.REJECTED, learned=True) is Outlook.NOT_LEARNED


def test_one_user_is_one_vote_whatever_the_number_of_files():
    votes = [vote("ann", medium=m, phash=7 ^ (1 << m), minutes=m) for m in range(4)]
    assert statuses(votes) == [*[Status.REPLACED] * 3, Status.WAITING]


@pytest.mark.parametrize(
    ("enough", "expected"), [("trusted", "accepted"), ("quorum", "waiting"), ("moderator", "waiting")]
)
def test_what_a_trusted_user_says_is_enough_where_the_setting_says_so(enough, expected):
    assert statuses([vote(trusted=True)], LearningSettings(enough=enough)) == [expected]


def test_under_the_strictest_setting_only_a_moderator_counts():
    rules = LearningSettings(enough="moderator")
    votes = [vote(user, minutes=i) for i, user in enumerate("abc")]
    assert set(statuses(votes, rules)) == {Status.WAITING}
    votes.append(vote("d", minutes=4, decision="accept"))
    assert statuses(votes, rules).count(Status.ACCEPTED) == 1


def test_contradictions_wait_until_a_moderator_decides():
    votes = [vote("a"), vote("b", minutes=1), vote("c", minutes=2), vote("d", label=0, minutes=3)]
    assert set(statuses(votes)) == {Status.CONTRADICTION}
    decided = [*votes, vote("e", label=0, minutes=4, decision="accept")]
    assert statuses(decided) == [*[Status.REJECTED] * 3, Status.ACCEPTED, Status.DUPLICATE]


def test_pictures_that_look_the_same_contradict_each_other_too():
    votes = [vote("a", 1, phash=0b1111), vote("b", 2, phash=0b1110, label=0, minutes=1)]
    assert set(statuses(votes)) == {Status.CONTRADICTION}


def test_a_rejected_label_is_not_learned_from():
    votes = [*[vote(u, minutes=i) for i, u in enumerate("abc")], vote("d", minutes=9, decision="reject")]
    assert set(statuses(votes)) == {Status.REJECTED}


def test_a_changed_mind_replaces_the_earlier_vote():
    votes = [
        vote("a", label=1),
        vote("a", label=0, minutes=1),
        vote("b", label=0, minutes=2),
        vote("c", label=0, minutes=3),
    ]
    assert statuses(votes) == [Status.REPLACED, Status.ACCEPTED, Status.DUPLICATE, Status.DUPLICATE]


def test_the_quota_is_per_user_and_day():
    most = STRANGERS_PER_DAY
    busy = [vote("ann", m, minutes=m) for m in range(most + 2)]
    others = [vote("ann", 100, minutes=24 * 60), vote("bob", 101, minutes=9)]
    found = {r.id: r.status for r in judge_votes([*busy, *others], QUORUM)}
    assert [found[v.id] for v in busy] == [*[Status.WAITING] * most, *[Status.QUOTA] * 2]
    assert [found[v.id] for v in others] == [Status.WAITING] * 2


def test_what_a_moderator_accepts_counts_beyond_the_quota():
    busy = [vote("ann", m, minutes=m) for m in range(STRANGERS_PER_DAY)]
    last = vote("ann", 100, minutes=STRANGERS_PER_DAY, decision="accept")
    assert [v.id for v in accepted_votes(judge_votes([*busy, last], QUORUM))] == [last.id]


def test_a_trusted_user_has_no_quota():
    votes = [vote("ann", m, minutes=m, trusted=True) for m in range(2 * STRANGERS_PER_DAY)]
    assert statuses(votes, LearningSettings()) == [Status.ACCEPTED] * len(votes)


def test_media_outside_the_domain_are_kept_and_not_learned_from():
    rulings = judge_votes([vote(trusted=True, out_of_domain="No face was found.")], LearningSettings())
    assert [(r.status, r.reason) for r in rulings] == [(Status.OUT_OF_DOMAIN, "No face was found.")]
    assert accepted_votes(rulings) == ()


def test_the_order_in_which_votes_are_given_to_it_does_not_matter():
    votes = [vote(u, m, label=(m + n) % 2, minutes=3 * n + m) for n, u in enumerate("abcd") for m in range(6)]
    shuffled = random.Random(3).sample(votes, len(votes))
    assert judge_votes(votes, QUORUM) == judge_votes(shuffled, QUORUM)
    assert len(judge_votes(votes, QUORUM)) == len(votes)


def test_media_without_a_hash_are_told_apart_by_their_bytes():
    assert cluster_media([vote("a", 1, phash=None), vote("b", 2, phash=None), vote("c", 1, phash=None)], 4) == [0, 1, 0]


@pytest.mark.parametrize("changes", [{"label": 2}, {"phash": 1 << 64}, {"time": dt.datetime(2026, 1, 1)}])
def test_votes_that_make_no_sense_are_refused(changes):
    values = {"id": "v", "user": "u", "media_sha256": "0" * 64, "phash": 1, "label": 1, "time": NOON}
    with pytest.raises(ValueError, match=r"must have|must be"):
        Vote(**values | changes)


def test_users_without_a_key_make_no_quorum():
    crowd = [vote(f"cookie{i}", minutes=i, anonymous=True) for i in range(9)]
    rulings = judge_votes([*crowd, vote("a"), vote("b")], QUORUM)
    assert {r.status for r in rulings} == {Status.WAITING}
    assert rulings[0].reason == "2 of 3 users who must agree. Users without a key do not count."
    assert statuses([*crowd, *[vote(u) for u in "abc"]]).count(Status.ACCEPTED) == 1
    assert statuses(crowd, LearningSettings(enough="quorum", anonymous_quorum="on")).count(Status.ACCEPTED) == 1
    assert statuses([*crowd, vote("m", decision="accept")]).count(Status.ACCEPTED) == 1


@pytest.mark.parametrize("distance", [0, 1, 4, 16])
def test_clusters_are_those_of_comparing_every_pair(distance):
    chance = random.Random(distance)
    seeds = [chance.getrandbits(64) for _ in range(12)]
    hashes = [
        each ^ sum(1 << chance.randrange(64) for _ in range(chance.randrange(5))) & (2**64 - 1) for each in seeds * 8
    ]
    votes = [vote("a", m, phash=h, minutes=m) for m, h in enumerate(hashes)]
    groups = [{i} for i in range(len(votes))]
    for i, j in combinations(range(len(votes)), 2):
        if (hashes[i] ^ hashes[j]).bit_count() <= distance and groups[i] is not groups[j]:
            groups[i] |= groups[j]
            for member in groups[j]:
                groups[member] = groups[i]
    found = cluster_media(votes, distance)
    assert all((found[i] == found[j]) == (j in groups[i]) for i, j in combinations(range(len(votes)), 2))
