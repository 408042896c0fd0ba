"""Training from end to end with tiny networks: files in, a version out that the pipeline serves.

Decoders and the face detector are the real ones.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from skimage.data import astronaut

import quick_train
import train
from tests.utils.media.films import write_clip
from utils.config import load_settings
from utils.detection.pipeline import analyse, load_analyser
from utils.tensors import read_tensors
from utils.training.blending import self_blend
from utils.training.planning import TrainingPlan, quick_plan, read_plan, tiny_plan
from utils.training.traces import Autoencoder
from utils.weights import set_current

ROOT = Path(__file__).resolve().parent.parent
MARKS = np.array([[91, 100], [164, 105], [124, 139], [91, 167], [154, 171]], np.float32)


def portrait(rng: np.random.Generator, fake: bool) -> np.ndarray:
    """A jittered crop of the astronaut's face with some room around it, (200, 200, 3); a fake is blended and tinted."""
    x, y = 148 + rng.integers(-10, 11), 40 + rng.integers(-10, 11)
    face = np.ascontiguousarray(astronaut()[y : y + 156, x : x + 156])
    face = np.asarray(Image.fromarray(face).resize((256, 256)))
    if fake:
        face = np.clip(self_blend(face, MARKS, rng) * np.array([1.3, 0.8, 1.0]), 0, 255)
    return np.clip(face * rng.uniform(0.85, 1.1), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """`real/` and `fake/` with 40 pictures each."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(4)
    for fake, name in enumerate(("real", "fake")):
        (root / name).mkdir()
        for i in range(40):
            Image.fromarray(portrait(rng, bool(fake))).save(root / name / f"{name}{i:02}.png")
    return root


@pytest.fixture(scope="module")
def mixed(tmp_path_factory, pictures) -> Path:
    """The same pictures and twelve clips, by manifests."""
    root, rng = tmp_path_factory.mktemp("mixed"), np.random.default_rng(5)
    header = "file,split,source,label,group,generator\n"
    (root / "photos").symlink_to(pictures)
    lines = [
        f"photos/{name}/{name}{i:02}.png,{'val' if i < 8 else 'train'},shots,{name},{name}{i},{made}\n"
        for name, made in (("real", "-"), ("fake", "tint"))
        for i in range(40)
    ]
    (root / "manifest.csv").write_text(header + "".join(lines))
    (root / "clips").mkdir()
    lines = []
    for i in range(12):
        name = ("real", "fake")[i % 2]
        still = portrait(rng, bool(i % 2))
        write_clip(root / "clips" / f"{i}.mp4", [np.roll(still, k % 3, axis=1) for k in range(8)])
        lines.append(f"{i}.mp4,{'val' if i < 4 else 'train'},meeting,{name},m{i},{'tint' if i % 2 else '-'}\n")
    (root / "clips" / "manifest.csv").write_text(header + "".join(lines))
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory, base_folder) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    (folder / "base").symlink_to(base_folder)
    return folder


@pytest.fixture
def call(monkeypatch, root, capsys):
    """Runs `quick_train.py` in this process: exit code, the JSON of its last line, standard error."""
    monkeypatch.setenv("TELLTALE_WEIGHTS__DIR", str(root))
    monkeypatch.setenv("TELLTALE_DETECTION__THREADS", "1")

    def run(*arguments: object):
        monkeypatch.setattr(sys, "argv", ["quick_train.py", "--threads", "1", *map(str, arguments)])
        code = quick_train.main()
        captured = capsys.readouterr()
        last = captured.out.strip().splitlines()[-1:]
        return code, json.loads(last[0]) if code == 0 else None, captured.err

    return run


@pytest.fixture
def photo(tmp_path) -> Path:
    Image.fromarray(astronaut()).save(tmp_path / "photo.jpg", quality=92)
    return tmp_path / "photo.jpg"


def test_folders_become_a_version_that_analyses_a_photo(call, pictures, root, tmp_path_factory, photo):
    run = tmp_path_factory.mktemp("runs") / "first"
    arguments = ("--data", pictures, "--tiny", "--run", run, "--name", "tinyrun", "--terms", "made by a test")
    code, said, errors = call(*arguments)
    assert code == 0, errors
    assert said == {"version": "tinyrun", "scores": str(run / "scores.csv"), "active": False}
    assert "vit epoch 1: loss" in errors
    assert "The LSTM is not trained. The split train has no clip" in errors

    card = json.loads((root / "tinyrun" / "card.json").read_text())
    assert card["tiny"] is True
    assert set(card["experts"]) == {"cnn", "resnext", "vit"}
    assert card["data"]["terms"] == ["made by a test"]
    assert sum(card["data"]["crops"].values()) == 80
    assert pictures.name in card["validation"]
    for expert in ("cnn", "resnext", "vit"):
        lines = [json.loads(line) for line in (run / expert / "metrics.jsonl").read_text().splitlines()]
        assert [line["epoch"] for line in lines] == [0, 1]

    assert set(json.loads((root / "tinyrun" / "selftest.json").read_text())) == {
        "astronaut.png",
        "astronaut_blended.png",
    }
    learning = root / "learning" / "tinyrun"
    assert {path.name for path in learning.iterdir()} == {"golden.safetensors", "replay.safetensors", "checksums.json"}
    set_current(root, "tinyrun")
    report = analyse(photo, load_analyser(load_settings()))
    assert report.model_version == "tinyrun"
    assert len(report.faces) == 1
    assert 0 <= report.verdict.probability <= 1

    # the name is refused before any work; under another name everything is taken up and nothing trained again
    code, _, errors = call(*arguments)
    assert code == 3
    assert "[weights] The version name 'tinyrun' is taken" in errors
    assert "searched for faces" not in errors
    code, said, _ = call(*arguments[:6], "again")
    assert (code, said["active"]) == (0, False)
    for name in ("cnn", "resnext", "vit", "gate"):
        one, two = ((root / version / f"{name}.safetensors").read_bytes() for version in ("tinyrun", "again"))
        assert one == two
    assert len((run / "cnn" / "metrics.jsonl").read_text().splitlines()) == 2


RECIPE = """
views = 60
beside = 20
clean_per_class = 40
calib_per_class = 20
folds = 2
frames_per_clip = 2
clip_blends = 1
tiny = true
"""
FEW = "\n".join(f"[{name}]\nepochs = 2\nbatch = 8\nlr = 3e-3" for name in ("cnn", "resnext", "vit", "lstm"))


def test_a_recipe_trains_a_broad_version_and_another_that_keeps_its_networks(call, mixed, root, tmp_path, photo):
    (tmp_path / "broad.toml").write_text(RECIPE + FEW)
    split = ("--data", mixed, "--seed", 5)
    run = ("--run", tmp_path / "run", "--recipe", tmp_path / "broad.toml", "--name", "broad")
    code, _, errors = call(*split, *run)
    assert code == 0, errors
    card = json.loads((root / "broad" / "card.json").read_text())
    assert set(card["experts"]) == {"cnn", "resnext", "vit", "lstm"}, "there are clips"
    assert set(card["validation"]) == {"shots", "clips"}
    assert card["training"]["plan"]["views"] == 60
    assert "generator tint" in card["validation_of_unseen_sources"]
    assert "shots" in card["validation_of_unseen_sources"]

    (tmp_path / "next.toml").write_text('start = "broad"\nkeep = true\nrecoded_per_source = 3\n' + RECIPE + FEW)
    save_file(Autoencoder().state_dict(), tmp_path / "taef2.safetensors")
    run = ("--run", tmp_path / "next", "--recipe", tmp_path / "next.toml", "--name", "next")
    decoder = ("--autoencoder", tmp_path / "taef2.safetensors")
    code, _, errors = call(*split, *run, "--packs", tmp_path / "run" / "pack", *decoder)
    assert code == 0, errors
    card = json.loads((root / "next" / "card.json").read_text())
    assert "learned from 3 real pictures" in card["notes"][-1]
    calibration = json.loads((root / "next" / "calibration.json").read_text())
    assert {"ece_before", "ece_after", "ece_degraded"} == set(calibration["figures"]), "degraded ones are apart"
    for name in ("cnn", "resnext", "lstm"):
        first, kept = (read_tensors(root / version / f"{name}.safetensors") for version in ("broad", "next"))
        assert all((first[key] == kept[key]).all() for key in first), name
    environ = {"TELLTALE_WEIGHTS__DIR": str(root), "TELLTALE_WEIGHTS__VERSION": "next"}
    analyser = load_analyser(load_settings(environ=environ))
    assert analyser.experts == ("cnn", "resnext", "vit", "lstm")
    judged = {e.name: e.probability for e in analyse(mixed / "clips" / "0.mp4", analyser).faces[0].experts}
    assert 0 <= judged["lstm"] <= 1
    assert analyse(photo, analyser).verdict.probability is not None


def test_a_recipe_holds_what_the_networks_are_to_do(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text('start = "v2"\n[vit]\nepochs = 9\n[cnn]\nbatch = 7\n')
    plan = train.adjusted(read_plan(path), train.build_parser().parse_args(["--data", ".", "--seed", "4"]))
    assert (plan.start, plan.vit.epochs, plan.vit.seed) == ("v2", 9, 4)
    assert plan.vit.lr == TrainingPlan().vit.lr
    assert (plan.cnn.batch, plan.cnn.epochs) == (7, TrainingPlan().cnn.epochs)
    assert read_plan(ROOT / "data" / "recipes" / "v8.toml").vit.batch == 256


def test_a_recipe_that_cannot_be_used_is_said(call, mixed, tmp_path):
    for wrong, named in (("viewz = 3\n", "viewz"), ("[norms]\nviews = 3\n", "norms")):
        (tmp_path / "wrong.toml").write_text(wrong)
        code, _, errors = call("--data", mixed, "--run", tmp_path / "run", "--recipe", tmp_path / "wrong.toml")
        assert code == 3
        assert named in errors


def test_run_with_other_features_is_refused(call, pictures, tmp_path):
    run = tmp_path / "taken"
    (run / "features").mkdir(parents=True)
    for other, said in (
        ((), "other views"),
        (("--leave-out", "unknown"), "others left out, another start, other views"),
    ):
        (run / "run.json").write_text('{"tiny": true, "leave_out": []}')
        code, _, errors = call("--data", pictures, "--tiny", "--run", run, *other)
        assert code == 3
        assert f"{said}; name another --run" in errors


def test_run_of_other_files_or_other_networks_is_refused(call, pictures, tmp_path):
    run = tmp_path / "taken"
    (run / "features").mkdir(parents=True)
    for held, said in (
        ('{"samples": "others", "tiny": true}', "with other files"),
        ('{"tiny": false}', "of another size"),
    ):
        (run / "run.json").write_text(held)
        code, _, errors = call("--data", pictures, "--tiny", "--run", run)
        assert code == 3
        assert f"{said}, " in errors


def test_too_few_files_end_with_a_sentence(call, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("real", "fake"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(2):
            Image.fromarray(portrait(rng, False)).save(tmp_path / "data" / name / f"{i}.png")
    code, _, errors = call("--data", tmp_path / "data", "--tiny", "--run", tmp_path / "few")
    assert code == 3
    assert "[training_data] The split" in errors
    assert "needs real and fake pictures" in errors


def test_an_autoencoder_that_cannot_be_used_is_said_before_any_work(call, pictures, tmp_path):
    run = ("--run", tmp_path / "run", "--autoencoder", tmp_path / "nothing")
    code, _, errors = call("--data", pictures, "--tiny", *run)
    assert code == 3
    assert "nothing does not hold the autoencoder TAEF2" in errors
    assert "or leave --autoencoder out" in errors
    assert "folder layout" not in errors
    assert not (tmp_path / "run").exists()


def test_data_that_is_not_there_ends_with_a_sentence(call, tmp_path):
    code, _, errors = call("--data", tmp_path / "nothing", "--tiny", "--run", tmp_path / "run")
    assert code == 3
    assert "real holds 0 pictures or videos" in errors
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_missing_cuda_device_is_said(call, tmp_path):
    code, _, errors = call("--data", tmp_path, "--device", "cuda", "--run", tmp_path / "run")
    assert (code, "There is no CUDA device here" in errors) == (3, True)


def test_keyboard_stops_with_a_word_about_going_on(call, pictures, tmp_path, monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("utils.training.fit.train_all", stop)
    code, _, errors = call("--data", pictures, "--tiny", "--run", tmp_path / "run")
    assert code == 130
    assert "The same command goes on from here" in errors


@pytest.mark.parametrize("script", ["train.py", "quick_train.py"])
def test_help_loads_nothing_heavy(script):
    code = (
        f"import sys, runpy; sys.argv = ['{script}', '--help']\n"
        f"try: runpy.run_path('{script}', run_name='__main__')\n"
        "except SystemExit as end: print(end.code, sorted({'torch', 'numpy', 'cv2', 'tqdm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"
    assert "goes on where it was" in done.stdout


@pytest.mark.parametrize(
    "wrong", [["--epochs", "0"], ["--batch", "-1"], ["--lr", "0"], ["--lr", "inf"], ["--views", "x"],
     ["--epochs", "mean=3"], ["--epochs", "cnn=0"], ["--beside", "0"], ["--h264", "1"]],
)  # fmt: skip
def test_senseless_numbers_are_refused_at_once(wrong):
    with pytest.raises(SystemExit):
        train.build_parser().parse_args(["--data", ".", *wrong])


def test_command_line_overrides_the_plan():
    arguments = train.build_parser().parse_args(
        ["--data", ".", "--epochs", "3", "--batch", "7", "--lr", "0.5", "--views", "11", "--seed", "4", "--beside", "5"]
    )  # fmt: skip
    plan = train.adjusted(TrainingPlan(), arguments)
    assert (plan.views, plan.beside) == (11, 5)
    assert {r.epochs for r in (plan.cnn, plan.resnext, plan.vit, plan.lstm)} == {3}
    assert {r.seed for r in (plan.cnn, plan.resnext, plan.vit, plan.lstm)} == {4}
    assert (plan.cnn.batch, plan.resnext.batch, plan.cnn.lr) == (7, 7, 0.5)
    assert (plan.vit.batch, plan.lstm.lr) == (TrainingPlan().vit.batch, TrainingPlan().lstm.lr)
    assert plan.leave_out == ()
    named = ["--data", ".", "--epochs", "resnext=2", "--epochs", "5", "--epochs", "vit=9"]
    each = train.adjusted(TrainingPlan(), train.build_parser().parse_args(named))
    assert [r.epochs for r in (each.cnn, each.resnext, each.vit, each.lstm)] == [5, 2, 9, 5]
    more = ["--data", ".", "--views", "7", "--leave-out", "swaps", "--h264", "0.2", "--start", "v3"]
    plan = train.adjusted(TrainingPlan(), train.build_parser().parse_args(more))
    assert plan.views == 7
    assert (plan.leave_out, plan.h264, plan.h264_clips) == (("swaps",), 0.2, 0.4)
    assert plan.start == "v3"
    untouched = train.adjusted(quick_plan(), train.build_parser().parse_args(["--data", "."]))
    assert untouched == quick_plan()
    assert tiny_plan().tiny
    assert not quick_plan().tiny


def test_speech_without_recordings_ends_with_a_sentence(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("TELLTALE_WEIGHTS__DIR", str(tmp_path / "weights"))
    monkeypatch.setattr(sys, "argv", ["train.py", "--speech", "--data", str(tmp_path), "--run", str(tmp_path / "run")])
    assert train.main() == 3
    assert "no manifest of recordings" in capsys.readouterr().err
