"""Learning from feedback on a tiny lineage: what moves and what must not, promotion, rollback, refusals."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch

from utils.errors import ConflictError, NothingNewError, TrainingDataError
from utils.feedback.feature_set import CachedItem, FeatureSet, join_features, load_features, save_features
from utils.feedback.fine_tune import Recipe, distance_between, tune
from utils.feedback.golden import load_lineage, show
from utils.feedback.history import append_training, read_history, verify_history
from utils.feedback.retrain import train_version
from utils.feedback.trainable import load_parts, probabilities
from utils.feedback.versions import learning_lock, lineage_of, recover, rollback
from utils.files import file_sha256
from utils.training.golden_sets import in_golden_half
from utils.weights import current_name, list_versions, load_ensemble, set_current, verify_version, weights_root

GENTLE = Recipe(steps=60, max_weight_change=0.5)


def learn(lineage, items, recipe=GENTLE, **more):
    return train_version(items, lineage.root, lineage.history, recipe=recipe, **more)


def golden_scores(lineage):
    version = verify_version(lineage.root, current_name(lineage.root))
    return probabilities(load_parts(version), load_lineage(lineage.base).golden[0].features)


def test_corrections_are_learned_and_the_candidate_is_served(lineage):
    outcome = learn(lineage, lineage.corrections())
    assert outcome.promoted, outcome.reason
    assert outcome.accuracy_after > outcome.accuracy_before
    assert outcome.improvements > 0
    assert current_name(lineage.root) == outcome.version == "tiny-r0001"
    assert [e["event"] for e in read_history(lineage.history).entries] == ["training", "activation"]
    assert verify_history(lineage.history).ok
    load_ensemble(lineage.root, verify_version(lineage.root, outcome.version))


def test_a_training_uses_one_thread_and_gives_the_others_back(lineage):
    seen = []
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        learn(lineage, lineage.corrections(), progress=lambda *_: seen.append(torch.get_num_threads()))
        assert (seen[0], torch.get_num_threads()) == (1, 2)
    finally:
        torch.set_num_threads(before)


def test_networks_that_do_not_learn_keep_every_byte(lineage):
    """So neither their weights nor their batch-norm statistics can have moved."""
    outcome = learn(lineage, lineage.corrections())
    for name in ("cnn", "resnext", "lstm"):
        base, new = (lineage.root / v / f"{name}.safetensors" for v in ("tiny", outcome.version))
        assert file_sha256(base) == file_sha256(new)
    assert file_sha256(lineage.root / "tiny" / "vit.safetensors") != file_sha256(
        lineage.root / outcome.version / "vit.safetensors"
    )


def test_a_rollback_gives_the_very_same_scores(lineage):
    before = golden_scores(lineage)
    learn(lineage, lineage.corrections())
    assert not np.array_equal(golden_scores(lineage), before)
    assert rollback(lineage.root, lineage.history).name == "tiny"
    assert np.array_equal(golden_scores(lineage), before)
    assert read_history(lineage.history).entries[-1]["why"] == "rollback"


def test_a_harmful_candidate_is_kept_but_never_served(lineage):
    wild = Recipe(
        steps=80, rate=1.0, max_weight_change=50.0, replay_share=0.0, distillation_weight=0.0, margin=50.0, drift=1e6
    )
    outcome = learn(lineage, lineage.corrections(), wild)
    assert not outcome.promoted
    assert outcome.reason
    assert current_name(lineage.root) == "tiny"
    with pytest.raises(ConflictError, match="rejected"):
        rollback(lineage.root, lineage.history, outcome.version)


def test_the_same_votes_give_the_same_candidate_whatever_was_learned_between(lineage):
    items = lineage.corrections()
    first = learn(lineage, items[:8])
    learn(lineage, items)
    again = learn(lineage, items[:8])
    files = [lineage.root / v / "vit.safetensors" for v in (first.version, again.version)]
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
    assert learn(lineage, items).stale == 1
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
    assert learn(lineage, items, own_golden=own).held_out == 1


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
    with pytest.raises(TrainingDataError, match="no golden set"):
        learn(lineage, lineage.corrections())


def hold(root, ready, stop):
    with learning_lock(root):
        ready.set()
        stop.wait(60)


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
    assert entries[0]["version"] == outcome.version
    assert entries[0]["recovered"] is True
    assert current_name(lineage.root) == outcome.version  # it was decided, so it is done
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


def test_only_the_head_moves_and_never_beyond_the_cap(lineage):
    feedback, replay = material(lineage)
    base, learned = load_parts(lineage.base), load_parts(lineage.base)
    done = tune(learned, feedback, replay, Recipe(steps=40, rate=1.0, max_weight_change=0.05, drift=1e6))
    before, after = base.state_dict(), learned.state_dict()
    moved = {
        n.split(".")[0] + (".norms" if ".norms." in n else "") for n in before if not torch.equal(before[n], after[n])
    }
    assert moved == {"head"}
    assert distance_between(after, before) <= 0.05 * 1.001
    assert done.distance == pytest.approx(0.05, rel=1e-3)
    assert torch.equal(before["gate.scale"], after["gate.scale"])


def test_no_single_step_is_longer_than_the_rate(lineage):
    feedback, replay = material(lineage)
    done = tune(load_parts(lineage.base), feedback, replay, Recipe(steps=1, rate=1e-5))
    assert 0 < done.distance <= 1e-5 * 1.01


def test_holding_keeps_the_answers_of_the_base(lineage):
    feedback, replay = material(lineage)
    base = probabilities(load_parts(lineage.base), replay)
    moved = []
    for weight in (0.0, 50.0):
        parts = load_parts(lineage.base)
        tune(parts, feedback, replay, Recipe(steps=80, distillation_weight=weight))
        moved.append(float(np.abs(probabilities(parts, replay) - base).mean()))
    assert moved[1] < moved[0]


def test_what_is_right_is_left_alone_and_the_step_is_as_long_as_unseen_answers_allow(lineage):
    feedback, replay = material(lineage)
    base = load_parts(lineage.base)
    surely = (-50.0, -50.0) if feedback.labels[0] else (50.0, 50.0)
    still = tune(
        load_parts(lineage.base), feedback, replay, Recipe(steps=20, l2sp_weight=0.0, distillation_weight=0.0), surely
    )
    assert still.distance == 0
    free = Recipe(steps=80, distillation_weight=0.0, replay_share=0.0, margin=5.0, drift=1e6)
    whole, part = (tune(load_parts(lineage.base), feedback, replay, each) for each in (
        free, dataclasses.replace(free, drift=0.05)))  # fmt: skip
    assert (whole.share, part.share < 1) == (1.0, True)
    assert part.distance == pytest.approx(whole.distance * part.share, rel=1e-3)
    parts = load_parts(lineage.base)
    tune(parts, feedback, replay, dataclasses.replace(free, drift=0.05))
    moved = [np.log(p / (1 - p)) for p in (probabilities(each, replay) for each in (base, parts))]
    assert np.sqrt(((moved[1] - moved[0]) ** 2).mean()) < 0.1


def test_a_version_brings_its_own_recipe():
    assert Recipe.of_card({}) == Recipe()
    assert Recipe.of_card({"feedback_recipe": {"steps": 7}}).steps == 7
    for wrong in ({"max_weight_change": 0.0}, {"haste": 1}):
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
    name = lineage_of(verify_version(root, current_name(root)))
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
    card = verify_version(lineage.root, outcome.version).card["learning"]["training"]
    line = read_history(lineage.history).entries[0]
    assert {k: line[k] for k in card} == card
    append_training(lineage.history, {"event": "drill", "passed": True})
    assert verify_history(lineage.history).ok
