"""Learning from feedback on a tiny lineage: what moves and what must not, promotion, rollback, refusals."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.utils.feedback.beside import hold
from utils.errors import ConflictError, NothingNewError, TrainingDataError
from utils.feedback.cached_judge import load_parts, logits_of, probabilities
from utils.feedback.feature_set import CachedItem, FeatureSet, join_features, load_features, save_features
from utils.feedback.golden import load_lineage, show
from utils.feedback.history import append_training, read_history, verify_history
from utils.feedback.remember import Recipe, remember
from utils.feedback.retrain import train_version
from utils.feedback.versions import recover, rollback
from utils.files import file_sha256
from utils.networks import load_ensemble
from utils.training.publishing import in_golden_half
from utils.weights import current_name, list_versions, set_current, verify_version, weights_root

ROOT = Path(__file__).resolve().parents[3]


def learn(lineage, items, recipe=None, **more):
    return train_version(items, lineage.root, lineage.history, recipe=recipe, **more)


def golden_scores(lineage):
    version = verify_version(lineage.root, current_name(lineage.root))
    return probabilities(load_parts(version), load_lineage(lineage.base).golden[0].features)


def test_corrections_are_learned_and_the_candidate_is_served(lineage):
    outcome = learn(lineage, lineage.corrections())
    assert outcome["promoted"], outcome["reason"]
    assert outcome["accuracy_after"] > outcome["accuracy_before"]
    assert outcome["improvements"] > 0
    assert current_name(lineage.root) == outcome["version"] == "tiny-r0001"
    assert [e["event"] for e in read_history(lineage.history).entries] == ["training", "activation"]
    assert verify_history(lineage.history).ok
    load_ensemble(lineage.root, verify_version(lineage.root, outcome["version"]))


def test_a_training_loads_no_torch(lineage):
    """It would take seconds and hundreds of MB, beside people who wait for their analyses."""
    items = [(item.media_sha256, item.label, str(item.features)) for item in lineage.corrections()]
    script = f"""
import sys
from pathlib import Path
from utils.feedback.quarantine import LearningItem
from utils.feedback.retrain import train_version
items = [LearningItem(key, label, Path(path), "user") for key, label, path in {items!r}]
assert train_version(items, Path({str(lineage.root)!r}), Path({str(lineage.history)!r}))["promoted"]
assert not {{"torch", "openvino"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


def test_networks_that_do_not_learn_keep_every_byte(lineage):
    """So neither their weights nor their batch-norm statistics can have moved."""
    outcome = learn(lineage, lineage.corrections())
    for name in ("cnn", "resnext", "lstm", "vit", "gate"):
        base, new = (lineage.root / v / f"{name}.safetensors" for v in ("tiny", outcome["version"]))
        assert file_sha256(base) == file_sha256(new)
    assert (lineage.root / outcome["version"] / "remembered.safetensors").is_file()


def test_a_rollback_gives_the_very_same_scores(lineage):
    before = golden_scores(lineage)
    learn(lineage, lineage.corrections())
    assert not np.array_equal(golden_scores(lineage), before)
    assert rollback(lineage.root, lineage.history).name == "tiny"
    assert np.array_equal(golden_scores(lineage), before)
    assert read_history(lineage.history).entries[-1]["why"] == "rollback"


def test_a_harmful_candidate_is_kept_but_never_served(lineage):
    golden = load_lineage(lineage.base).golden[0].features
    items = [lineage.item(n, int(golden.labels[n] < 0.5), strange=False) for n in range(40)]
    for number, item in enumerate(items):  # as if faces next to those of the golden set said the opposite
        tokens = np.asarray(golden.tokens[number : number + 1], np.float32)
        noise = np.random.default_rng(number).normal(0, 0.9, tokens.shape)
        cached = CachedItem.load(item.features)
        dataclasses.replace(cached, tokens=(tokens + noise).astype(np.float16)).save(item.features)
    outcome = learn(lineage, items, Recipe(margin=50.0, auc=1.0, ece=1.0, slice_loss=1.0))
    assert not outcome["promoted"]
    assert outcome["reason"]
    assert current_name(lineage.root) == "tiny"
    with pytest.raises(ConflictError, match="rejected"):
        rollback(lineage.root, lineage.history, outcome["version"])


def test_the_same_votes_give_the_same_candidate_whatever_was_learned_between(lineage):
    items = lineage.corrections()
    first = learn(lineage, items[:8])
    learn(lineage, items)
    again = learn(lineage, items[:8])
    files = [lineage.root / v / "remembered.safetensors" for v in (first["version"], again["version"])]
    assert file_sha256(files[0]) == file_sha256(files[1])


def test_nothing_to_learn_from_is_said_and_writes_nothing(lineage):
    with pytest.raises(NothingNewError):
        learn(lineage, [])
    assert not lineage.history.exists()
    assert list_versions(lineage.root) == ("tiny",)


def test_features_of_other_networks_are_left_out(lineage):
    items = lineage.corrections(6)
    old = CachedItem.load(items[0].features)
    dataclasses.replace(old, experts="0" * 64).save(items[0].features)
    assert learn(lineage, items)["stale"] == 1
    with pytest.raises(NothingNewError, match="other networks"):
        learn(lineage, items[:1])


def test_items_of_a_golden_set_are_never_learned(lineage, tmp_path):
    items = lineage.corrections(30)
    own = tmp_path / "own"
    own.mkdir()
    features, facts = load_features(lineage.root / "learning" / "tiny" / "golden.safetensors")
    mine = features.select(np.arange(40))
    save_features(
        own / "mine.safetensors",
        dataclasses.replace(mine, keys=(items[0].media_sha256, *mine.keys[1:])),
        {"experts": facts["experts"], "name": "own-mine"},
    )
    assert learn(lineage, items, own_golden=own)["held_out"] == 1


def test_a_golden_set_of_other_networks_is_refused(lineage):
    path = lineage.root / "learning" / "tiny" / "golden.safetensors"
    features, _ = load_features(path)
    save_features(path, features, {"experts": "0" * 64})
    with pytest.raises(TrainingDataError, match="not the file"):
        learn(lineage, lineage.corrections())
    sums = path.with_name("checksums.json")
    sums.write_text(json.dumps(json.loads(sums.read_text()) | {path.name: file_sha256(path)}))
    with pytest.raises(TrainingDataError, match="other networks"):
        learn(lineage, lineage.corrections())


def test_a_version_without_golden_set_cannot_learn(lineage):
    (lineage.root / "learning" / "tiny" / "golden.safetensors").unlink()
    with pytest.raises(TrainingDataError, match=r"no golden\.safetensors"):
        learn(lineage, lineage.corrections())


def test_only_one_process_trains(lineage):
    context = multiprocessing.get_context("spawn")
    ready, stop = context.Event(), context.Event()
    other = context.Process(target=hold, args=(lineage.root, ready, stop))
    other.start()
    try:
        assert ready.wait(120)
        with pytest.raises(ConflictError, match="going on"):
            learn(lineage, lineage.corrections())
    finally:
        stop.set()
        other.join()


def test_a_cancelled_training_leaves_nothing(lineage):
    def cancel(stage, done):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn(lineage, lineage.corrections(), progress=cancel)
    assert list_versions(lineage.root) == ("tiny",)
    assert not lineage.history.exists()


# what a crash leaves


def test_a_version_whose_line_is_missing_gets_it_from_its_card(lineage):
    outcome = learn(lineage, lineage.corrections())
    set_current(lineage.root, "tiny")
    lineage.history.unlink()
    done = recover(lineage.root, lineage.history)
    entries = read_history(lineage.history).entries
    assert entries[0]["version"] == outcome["version"]
    assert entries[0]["recovered"] is True
    assert current_name(lineage.root) == outcome["version"]  # it was decided, so it is done
    assert len(done) == 2
    assert recover(lineage.root, lineage.history) == ()


def test_a_pointer_that_moved_without_its_line_gets_it(lineage):
    learn(lineage, lineage.corrections())
    set_current(lineage.root, "tiny")
    recover(lineage.root, lineage.history)
    last = read_history(lineage.history).entries[-1]
    assert (last["why"], last["from"], last["to"]) == ("found", "tiny-r0001", "tiny")


def test_scratch_folders_go_away(lineage):
    (lineage.root / ".tiny-r0007.tmp").mkdir()
    (lineage.root / "CURRENT.tmp").write_text("tiny\n")
    assert len(recover(lineage.root, lineage.history)) == 2
    assert not (lineage.root / ".tiny-r0007.tmp").exists()


def test_rollback_needs_something_to_go_back_to(lineage):
    with pytest.raises(ConflictError, match="nothing to go back"):
        rollback(lineage.root, lineage.history)
    with pytest.raises(ConflictError, match="in use"):
        rollback(lineage.root, lineage.history, "tiny")


# the training itself


def material(lineage):
    loaded = load_lineage(lineage.base)
    sets = [CachedItem.load(i.features).as_features(label=i.label, source="f", key=i.media_sha256)
            for i in lineage.corrections()]  # fmt: skip
    return join_features(sets), loaded.replay


def made(lineage, feedback=None, recipe=None, borders=(0.0, 0.0)):
    mine, replay = material(lineage)
    base = load_parts(lineage.base)
    said, before = logits_of(base, feedback or mine), logits_of(base, replay)
    return remember(feedback or mine, said, replay, before, recipe or Recipe(), borders), said


@pytest.mark.parametrize("name", ["golden.safetensors", "replay.safetensors", "checksums.json"])
def test_a_missing_file_of_the_lineage_is_named(lineage, name):
    (lineage.root / "learning" / "tiny" / name).unlink()
    with pytest.raises(TrainingDataError, match=f"There is no {name} for version tiny"):
        load_lineage(lineage.base)


def test_each_item_gets_its_verdict_and_the_replay_buffer_keeps_its_own(lineage):
    feedback, replay = material(lineage)
    done, said = made(lineage)
    after = said + done.remembered.shift_items(np.asarray(feedback.tokens, np.float32), feedback.starts)
    right = [((each > 0) == (feedback.labels > 0.5)).mean() for each in (said, after)]
    assert right[0] < 0.5
    assert right[1] >= 0.9, "all of them look nearly the same, so that they share what they ask for"
    moved = done.remembered.shift_items(np.asarray(replay.tokens, np.float32), replay.starts)
    assert np.abs(moved).max() < 1e-3, "no correction reaches beyond the nearest face of the replay buffer"
    assert (done.share, done.steps) == (1.0, 1)


def test_what_is_right_asks_for_nothing(lineage):
    feedback, _ = material(lineage)
    surely = (-50.0, -50.0) if feedback.labels[0] else (50.0, 50.0)
    done, _ = made(lineage, borders=surely)
    assert not done.remembered.pull.any()
    assert done.moved == 0


def test_real_faces_and_fakes_of_one_place_are_told_apart_also_those_that_nobody_pressed_on(lineage):
    """They differ at the depth of the rule only, so that what their neighbours ask for says nothing of them."""
    feedback, _ = material(lineage)
    labels = (np.arange(len(feedback)) % 2).astype(np.float32)
    tokens = np.asarray(feedback.tokens, np.float32).copy()
    tokens[:, 2, :4] += 3 * (2 * np.repeat(labels, np.diff(feedback.starts))[:, None] - 1)
    mixed = dataclasses.replace(feedback, tokens=tokens, labels=labels)
    half = np.arange(len(mixed)) % 4 < 2
    done, said = made(lineage, mixed.select(half), borders=(-1.0, 1.0))
    others, base = mixed.select(~half), load_parts(lineage.base)
    before = logits_of(base, others)
    after = before + done.remembered.shift_items(np.asarray(others.tokens, np.float32), others.starts)
    sign = np.where(others.labels > 0.5, 1, -1)
    plain = dataclasses.replace(done.remembered, rule=0 * done.remembered.rule, rule_start=np.zeros(1, np.float32))
    mean = before + plain.shift_items(np.asarray(others.tokens, np.float32), others.starts)
    right = [float((sign * each > 1).mean()) for each in (before, mean, after)]
    assert right[2] >= 0.9, (right, said)
    assert right[2] > max(right[:2]) + 0.2


def test_labels_of_one_side_ask_for_little_beyond_the_border_and_make_no_rule(lineage):
    """Who says *fake* only does not tell what is real there: its likes shall not all become fakes."""
    feedback, _ = material(lineage)
    labels = (np.arange(len(feedback)) % 2).astype(np.float32)
    alone, even = (dataclasses.replace(feedback, labels=each) for each in (np.ones_like(labels), labels))
    borders, fakes = (-9.0, 9.0), labels > 0.5
    (one, said), (both, _) = (made(lineage, each, borders=borders) for each in (alone, even))
    assert one.remembered.pull == pytest.approx(9 + 0.3 - said, abs=1e-4)
    assert both.remembered.pull[fakes] == pytest.approx((9 + 1.5 - said)[fakes], abs=0.05)
    assert both.remembered.pull[~fakes] == pytest.approx((-9 - 1.5 - said)[~fakes], abs=0.05)
    assert not np.concatenate([one.remembered.rule, one.remembered.rule_start]).any()
    assert both.remembered.rule.any()


def test_the_reach_is_the_largest_that_keeps_unseen_replay_within_bounds(lineage):
    """Each face of the replay buffer is known by a copy of it that says the opposite: none may reach the next one."""
    _, replay = material(lineage)
    noise = np.random.default_rng(3).normal(0, 0.5, replay.tokens.shape)
    flipped = dataclasses.replace(
        replay, tokens=np.asarray(replay.tokens, np.float32) + noise.astype(np.float32), labels=1 - replay.labels
    )
    strict, _ = made(lineage, flipped, Recipe(margin=20.0, auc=0.0, ece=0.0, slice_loss=0.0))
    lax, _ = made(lineage, flipped, Recipe(margin=20.0, auc=1.0, ece=1.0, slice_loss=1.0))
    assert strict.share < lax.share == 1.0
    assert strict.steps > 1
    assert (strict.remembered.reach >= lax.remembered.reach).all()
    assert strict.moved < lax.moved


def test_versions_without_a_vit_and_feedback_without_replay_are_told(lineage):
    feedback, replay = material(lineage)
    for mine, old in (
        (feedback, replay.select(np.zeros(0, np.int64))),
        (feedback.select(np.zeros(0, np.int64)), replay),
    ):
        with pytest.raises(TrainingDataError):
            remember(mine, np.zeros(len(mine)), old, np.zeros(len(old)), Recipe())
    blind = dataclasses.replace(feedback, tokens=np.zeros((len(feedback), 1, 1), np.float16))
    with pytest.raises(TrainingDataError, match="ViT"):
        remember(blind, np.zeros(len(blind)), replay, np.zeros(len(replay)), Recipe())


def test_a_version_brings_its_own_recipe():
    assert Recipe.of_card({}) == Recipe()
    assert Recipe.of_card({"feedback_recipe": {"margin": 0.7, "steps": 7}}).margin == 0.7, "older names are no error"
    for wrong in ({"auc": -1.0}, {"haste": 1}):
        with pytest.raises(TrainingDataError, match="feedback_recipe"):
            Recipe.of_card({"feedback_recipe": wrong})


# files


def test_feature_sets_survive_the_disk_within_a_quantisation_step(lineage, tmp_path):
    whole, facts = load_features(lineage.root / "learning" / "tiny" / "golden.safetensors")
    assert len(facts["experts"]) == 64
    save_features(tmp_path / "again.safetensors", whole, facts)
    again, _ = load_features(tmp_path / "again.safetensors")
    span = np.ptp(whole.tokens, axis=0)
    assert (np.abs(again.tokens - whole.tokens) <= span / 254 + 1e-6).all()
    np.testing.assert_array_equal(again.labels, whole.labels)
    assert again.keys == whole.keys


@pytest.mark.parametrize("content", [b"", b"not a file", b"\x00" * 200])
def test_damaged_files_are_refused(tmp_path, content):
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(content)
    with pytest.raises(TrainingDataError):
        load_features(path)
    with pytest.raises(TrainingDataError):
        CachedItem.load(path)


def test_feature_sets_check_themselves(lineage):
    whole, _ = load_features(lineage.root / "learning" / "tiny" / "golden.safetensors")
    with pytest.raises(ValueError, match="labels"):
        dataclasses.replace(whole, labels=np.full(len(whole), 0.5, np.float32))
    with pytest.raises(ValueError, match="as many items"):
        dataclasses.replace(whole, sources=whole.sources[1:])
    assert isinstance(whole.select(whole.labels > 0.5), FeatureSet)


def test_half_of_the_groups_belong_to_the_golden_set():
    share = np.mean([in_golden_half(f"person {i}") for i in range(2000)])
    assert 0.45 < share < 0.55


def test_the_version_in_use_comes_with_its_golden_set():
    """Also in a clean checkout; both files together stay small, and no names of files or people are in them."""
    from utils.config import Settings

    root = weights_root(Settings())
    name = verify_version(root, current_name(root)).base
    text = show(root, name)
    assert "AUC" in text
    folder = root / "learning" / name
    assert sum(p.stat().st_size for p in folder.iterdir()) <= 9_000_000
    lineage = load_lineage(verify_version(root, name))
    for features in (lineage.golden[0].features, lineage.replay):
        assert all(len(key) == 16 and set(key) <= set("0123456789abcdef") for key in (*features.keys, *features.groups))
    assert not set(lineage.golden[0].features.groups) & set(lineage.replay.groups)
    assert Path(folder / "golden.safetensors").is_file()


def test_history_entries_of_the_card_and_of_the_file_agree(lineage):
    outcome = learn(lineage, lineage.corrections())
    card = verify_version(lineage.root, outcome["version"]).card["learning"]["training"]
    line = read_history(lineage.history).entries[0]
    assert {k: line[k] for k in card} == card
    append_training(lineage.history, {"event": "drill", "passed": True})
    assert verify_history(lineage.history).ok
