"""The command line and the Python interface, with a stand-in for the networks that returns real `Report` values."""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
import json
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

import inference
from inference import DeepfakeDetector
from tests.utils.media.films import write_clip
from tests.web_app import helpers
from utils.detection.cli import FileResult, check_readable
from utils.detection.selftest import write_picture
from utils.errors import ConfigError, MediaCorruptError, TelltaleError, UnsupportedMediaError, WeightsMissingError
from utils.types import MediaKind, Outcome, Report

ROOT = Path(__file__).resolve().parent.parent
JPEG = b"\xff\xd8\xff\xe0" + bytes(60)
WEBM = b"\x1a\x45\xdf\xa3\x8b\x42\x82\x84webm" + bytes(60)


def make_report(path: Path, probability: float | None, threshold: float) -> Report:
    """What the pipeline would answer for this probability; None is a picture without a face."""
    kind = MediaKind.VIDEO if path.suffix == ".webm" else MediaKind.IMAGE
    outcome = Outcome.NO_FACE
    if probability is not None:
        outcome = Outcome.FAKE if probability >= threshold else Outcome.REAL
    report = helpers.make_report(path.read_bytes(), outcome, kind, probability=probability, spread=0.1)
    # a quality figure that JSON cannot hold, as a flat picture may give
    faces = tuple(dataclasses.replace(face, quality={"blur": float("-inf")}) for face in report.faces)
    return dataclasses.replace(report, faces=faces, threshold=threshold)


class FakePipeline(types.ModuleType):
    """Stands for `utils.detection.pipeline`: the first byte after the magic decides the probability."""

    def __init__(self) -> None:
        super().__init__("utils.detection.pipeline")
        self.loaded: list[tuple[float, str | None, tuple[str, ...] | None]] = []
        self.seen: list[str] = []
        self.load_error: Exception | None = None
        self.raises: dict[str, BaseException] = {}

    def load_analyser(self, settings, *, device=None, experts=None):
        if self.load_error is not None:
            raise self.load_error
        self.loaded.append((settings.detection.threshold, device, experts))
        return settings

    def analyse(self, path, analyser, *, progress=None):
        self.seen.append(path.name)
        if progress is not None:
            progress("decode", 0.1)
            progress("decide", 1.0)
        if path.name in self.raises:
            raise self.raises[path.name]
        probabilities = {"fake": 0.93, "real": 0.12, "none": None}
        return make_report(path, probabilities[path.stem.split("_")[0]], analyser.detection.threshold)

    def analyse_files(self, paths, analyser, *, progress=None):
        for path in paths:
            try:
                check_readable(path)
                tell = None if progress is None else functools.partial(progress, path)
                yield FileResult(path, self.analyse(path, analyser, progress=tell), None, 1.0)
            except TelltaleError as error:
                yield FileResult(path, None, error, 1.0)


@pytest.fixture
def pipeline(monkeypatch) -> FakePipeline:
    fake = FakePipeline()
    monkeypatch.setitem(sys.modules, "utils.detection.pipeline", fake)
    many = types.ModuleType("utils.detection.batch")
    many.analyse_files = fake.analyse_files  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "utils.detection.batch", many)
    return fake


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub" / "deep").mkdir(parents=True)
    (tmp_path / ".hidden").mkdir()
    for name in ("fake_1.jpg", "real_1.JPG", "none_1.jpg", "sub/fake_2.jpg", "sub/deep/real_2.jpg"):
        (tmp_path / name).write_bytes(JPEG + name.encode())  # equal files would be analysed once
    (tmp_path / "real_3.webm").write_bytes(WEBM)
    for name in ("notes.txt", ".fake_9.jpg", ".hidden/fake_8.jpg"):
        (tmp_path / name).write_bytes(JPEG)
    return tmp_path


def run(*arguments: object) -> int:
    return inference.main([str(a) for a in arguments])


def usage_error(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        run(*arguments)
    return int(stopped.value.code)


def test_table_has_aligned_columns_and_words(pipeline, folder, capsys):
    assert run(folder / "fake_1.jpg", folder / "none_1.jpg", folder / "real_3.webm") == 0
    lines = capsys.readouterr().out.splitlines()
    start = lines[0].index("FILE")
    assert [line[start:] for line in lines[1:4]] == [
        str(folder / n) for n in ("fake_1.jpg", "none_1.jpg", "real_3.webm")
    ]
    assert lines[1].split()[:5] == ["fake", "0.93", "0.83", "to", "1.00"]
    assert lines[2].split()[:5] == ["no", "face", "-", "-", "0"]
    assert lines[3].split()[:5] == ["real", "0.12", "0.02", "to", "0.22"]
    assert lines[-1] == "3 files: 1 fake, 1 real, 1 no face"


def test_folder_is_walked_in_order_without_hidden_and_other_files(pipeline, folder, capsys):
    assert run(folder) == 0
    assert pipeline.seen == ["fake_1.jpg", "none_1.jpg", "real_1.JPG", "real_3.webm", "fake_2.jpg", "real_2.jpg"]
    assert "passed over: 1." in capsys.readouterr().err


def test_no_recursive_stays_in_the_folder(pipeline, folder):
    assert run("--no-recursive", "--quiet", folder) == 0
    assert pipeline.seen == ["fake_1.jpg", "none_1.jpg", "real_1.JPG", "real_3.webm"]


def test_existing_name_is_never_a_pattern(pipeline, folder):
    (folder / "fake_[12].jpg").write_bytes(JPEG)
    assert run(folder / "fake_[12].jpg") == 0
    assert pipeline.seen == ["fake_[12].jpg"]


def test_bad_files_are_rows_and_the_rest_goes_on(pipeline, folder, capsys):
    pipeline.raises["fake_1.jpg"] = MediaCorruptError("Cut after 12 bytes.")
    pipeline.raises["none_1.jpg"] = TelltaleError("ZeroDivisionError: a fault of ours")
    arguments = [folder / n for n in ("gone.jpg", "fake_1.jpg", "none_1.jpg", "real_1.JPG")]
    assert run("--json", *arguments) == 1
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    codes = [r["error"] and r["error"]["code"] for r in document["results"]]
    assert codes == ["media_unreadable", "media_corrupt", "internal", None]
    assert document["summary"] == {
        **{"files": 4, "fake": 0, "real": 1, "inconclusive": 0, "no_face": 0, "no_speech": 0, "error": 3}
    }


def test_missing_and_empty_need_no_networks(pipeline, tmp_path, capsys):
    assert run(tmp_path / "gone.jpg", tmp_path) == 1
    out = capsys.readouterr().out
    assert out.count("[media_unreadable]") == 2
    assert pipeline.loaded == []


def test_json_is_the_report_and_holds_no_nan(pipeline, folder, capsys):
    run("--json", folder / "fake_1.jpg")
    (entry,) = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["results"]
    expected = make_report(folder / "fake_1.jpg", 0.93, 0.5).to_dict()
    expected["faces"][0]["quality"]["blur"] = None
    assert entry["report"] == expected
    assert entry["error"] is None


def test_json_lines_come_as_each_file_finishes(pipeline, folder, monkeypatch):
    order: list[str] = []
    analyse = pipeline.analyse
    monkeypatch.setattr(pipeline, "analyse", lambda *a, **k: order.append("analysed") or analyse(*a, **k))
    monkeypatch.setattr(inference, "_write", lambda text, output: order.append(json.loads(text)["file"][-10:]))
    assert run("--jsonl", folder / "fake_1.jpg", folder / "none_1.jpg") == 0
    assert order == ["analysed", "fake_1.jpg", "analysed", "none_1.jpg"]


def test_csv_reads_back(pipeline, folder, capsys):
    assert run("--csv", folder / "real_3.webm", folder / "none_1.jpg", folder / "gone.jpg") == 1
    missing, video, wall = list(csv.DictReader(io.StringIO(capsys.readouterr().out, newline="")))
    assert (missing["outcome"], missing["error_code"]) == ("error", "media_unreadable")
    assert (video["outcome"], video["kind"], float(video["duration_s"])) == ("real", "video", 4.0)
    assert float(video["interval_low"]) == pytest.approx(0.02)
    assert (wall["outcome"], wall["fake_probability"], wall["faces"]) == ("no_face", "", "0")


@pytest.mark.parametrize("form", ["--json", "--jsonl", "--csv", None])
def test_output_replaces_the_file_at_the_end(pipeline, folder, capsys, form):
    target = folder / "out.data"
    target.write_text("old")
    options = [form] if form else []
    assert run(*options, "--output", target, folder / "fake_1.jpg") == 0
    assert capsys.readouterr().out == ""
    assert "fake_1.jpg" in target.read_text()
    assert [p.name for p in folder.iterdir() if p.name.endswith(".tmp")] == []


def test_options_reach_the_networks(pipeline, folder):
    run("--threshold", "0.95", "--device", "cpu", "--experts", "vit, cnn", folder / "fake_1.jpg")
    assert pipeline.loaded == [(0.95, "cpu", ("vit", "cnn"))]


def test_config_file_and_environment_and_option_in_this_order(pipeline, folder, monkeypatch):
    ini = folder / "my.ini"
    ini.write_text("[detection]\nthreshold = 0.6\n")
    run("--config", ini, folder / "fake_1.jpg")
    monkeypatch.setenv("TELLTALE_DETECTION__THRESHOLD", "0.7")
    run("--config", ini, folder / "fake_1.jpg")
    run("--config", ini, "--threshold", "0.8", folder / "fake_1.jpg")
    assert [threshold for threshold, *_ in pipeline.loaded] == [0.6, 0.7, 0.8]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--threshold", "0.99", "a.jpg"],
        ["--threshold", "nan", "a.jpg"],
        ["--threshold", "half", "a.jpg"],
        ["--experts", "cnn,oracle", "a.jpg"],
        ["--experts", ",", "a.jpg"],
        ["--device", "tpu", "a.jpg"],
        ["--json", "--csv", "a.jpg"],
        ["--output", "/no/such/folder/out.json", "a.jpg"],
        ["--selftest", "a.jpg"],
    ],
)
def test_wrong_command_lines_leave_with_2(pipeline, arguments, capsys):
    assert usage_error(*arguments) == 2
    assert "usage:" in capsys.readouterr().err


def test_unusable_weights_and_configuration_leave_with_3(pipeline, folder, capsys):
    pipeline.load_error = WeightsMissingError("vit.safetensors is missing.")
    assert run(folder / "fake_1.jpg") == 3
    assert "[weights_missing] vit.safetensors is missing. Run `make setup`" in capsys.readouterr().err
    assert run("--config", folder / "gone.ini", folder / "fake_1.jpg") == 3
    assert "[config]" in capsys.readouterr().err


def test_unwritable_output_leaves_with_1(pipeline, folder, monkeypatch, capsys):
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(inference, "replace_file", full)
    assert run("--output", folder / "out.csv", folder / "fake_1.jpg") == 1
    assert "No space left" in capsys.readouterr().err


def test_interrupt_writes_what_was_finished(pipeline, folder, capsys):
    pipeline.raises["none_1.jpg"] = KeyboardInterrupt()
    assert run("--json", folder / "fake_1.jpg", folder / "none_1.jpg", folder / "real_1.JPG") == 130
    captured = capsys.readouterr()
    assert [r["file"][-10:] for r in json.loads(captured.out)["results"]] == ["fake_1.jpg"]
    assert "Interrupted: 1 of 3 finished." in captured.err


def test_names_cannot_steer_the_terminal_or_a_spreadsheet(pipeline, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    (folder / "fake_\x1b[31m.jpg").write_bytes(JPEG)
    (folder / "=fake.jpg").write_bytes(JPEG)
    pipeline.raises["=fake.jpg"] = MediaCorruptError("bad \x1b]0;title\x07")
    run("fake_\x1b[31m.jpg", "=fake.jpg")
    table = capsys.readouterr().out
    assert "\x1b" not in table
    assert "\x07" not in table
    assert r"fake_\x1b[31m.jpg" in table
    run("--csv", "=fake.jpg")
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert row["file"] == "./=fake.jpg"


def test_progress_bar_only_on_a_terminal(pipeline, folder, monkeypatch, capsys):
    run(folder / "fake_1.jpg")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    run(folder / "fake_1.jpg")
    shown = capsys.readouterr().err
    assert "Loading the networks" in shown
    assert "fake_1.jpg: decide" in shown
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    run("--quiet", folder / "fake_1.jpg")
    assert capsys.readouterr().err == ""


def test_detector_predicts_by_kind(pipeline, folder):
    detector = DeepfakeDetector(threshold=0.4)
    assert detector.predict_image(folder / "fake_1.jpg").verdict.outcome is Outcome.FAKE
    assert detector.predict_video(str(folder / "real_3.webm")).media.kind is MediaKind.VIDEO
    with pytest.raises(UnsupportedMediaError, match="use predict_video"):
        detector.predict_image(folder / "real_3.webm")
    with pytest.raises(UnsupportedMediaError, match="use predict_image"):
        detector.predict_video(folder / "fake_1.jpg")


def test_detector_batch_is_typed_and_goes_on(pipeline, folder):
    pipeline.raises["none_1.jpg"] = MediaCorruptError()
    results = DeepfakeDetector().batch_predict([folder / "fake_1.jpg", folder / "none_1.jpg", folder / "real_1.JPG"])
    assert [r.error is None for r in results] == [True, False, True]
    assert results[2].report is not None
    assert results[2].report.verdict.outcome is Outcome.REAL
    assert all(r.ms >= 0 for r in results)


@pytest.mark.parametrize("wrong", [{"threshold": 2.0}, {"device": "tpu"}, {"experts": ["oracle"]}, {"experts": []}])
def test_detector_refuses_wrong_arguments(pipeline, wrong):
    with pytest.raises(ConfigError):
        DeepfakeDetector(**wrong)
    assert pipeline.loaded == []


def test_settings_object_keeps_its_other_values(pipeline):
    base = inference.read_settings(threshold=0.6)
    detector = DeepfakeDetector(config=base, device="cpu")
    assert (detector.settings.detection.threshold, detector.settings.detection.device) == (0.6, "cpu")


def test_help_is_instant_because_nothing_heavy_is_imported():
    code = (
        "import sys, inference\n"
        "try: inference.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'numpy', 'cv2', 'av', 'PIL', 'tqdm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "exit codes:" in done.stdout


def test_reader_that_stops_early_is_no_crash(tmp_path):
    for i in range(1000):
        (tmp_path / f"{i}.jpg").mkdir()  # folders without pictures: rows that need no networks
    code = "import sys, inference; sys.exit(inference.main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "--jsonl", str(tmp_path / "*.jpg")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


def test_documentation_names_options_that_exist_and_help_every_exit_code():
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    known = {option for action in inference.build_parser()._actions for option in action.option_strings}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))
    assert len(named) >= 10
    assert named <= known
    for code in (getattr(inference, name) for name in dir(inference) if name.startswith("EXIT_")):
        assert f"\n  {code:<4} " in inference.EPILOG, code


# The command line over the real pipeline: decoding child, face detector and tiny networks with random weights.


@pytest.fixture
def media(tmp_path: Path, tiny_root: Path, monkeypatch) -> Path:
    """A photo, a picture without a face, a clip of the photo, and a file that is cut off."""
    monkeypatch.setenv("TELLTALE_WEIGHTS__DIR", str(tiny_root))
    monkeypatch.setenv("TELLTALE_DETECTION__THREADS", "1")
    photo = Image.fromarray(astronaut())
    photo.save(tmp_path / "photo.jpg", quality=92)
    write_picture(tmp_path / "wall.png")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "photo.jpg").read_bytes()[:30])
    write_clip(tmp_path / "clip.mp4", [np.asarray(photo.resize((256, 256)))] * 8)
    return tmp_path


def test_folder_gives_verdicts_of_the_real_pipeline(media, capsys):
    assert inference.main(["--json", "--device", "cpu", str(media)]) == 1
    document = json.loads(capsys.readouterr().out)
    found = {Path(entry["file"]).name: entry for entry in document["results"]}
    assert found["cut.jpg"]["error"]["code"] == "media_corrupt"
    assert found["wall.png"]["report"]["prediction"] == "no_face"
    photo, clip = found["photo.jpg"]["report"], found["clip.mp4"]["report"]
    for report in (photo, clip):
        assert report["model_version"] == "tiny"
        assert 0 < report["fake_probability"] < 1
        assert sum(expert["weight"] for expert in report["experts"]) == pytest.approx(1, abs=1e-5)
    assert [e["available"] for e in photo["experts"]] == [True, True, True, False]
    assert [e["available"] for e in clip["experts"]] == [True, True, True, True]
    assert len(clip["timeline"]) == 8


def test_chosen_expert_alone_carries_the_verdict(media):
    detector = inference.DeepfakeDetector(device="cpu", experts=["cnn"])
    report = detector.predict_image(media / "photo.jpg")
    assert [(e.name, e.weight) for e in report.faces[0].experts if e.available] == [("cnn", pytest.approx(1.0))]
    with pytest.raises(UnsupportedMediaError, match="use predict_video"):
        detector.predict_image(media / "clip.mp4")


def test_selftest_refuses_tiny_networks(media, capsys):
    assert inference.main(["--selftest", "--device", "cpu"]) == 3
    lines = capsys.readouterr().out.splitlines()
    failed = [line for line in lines if line.startswith("FAIL")]
    assert len(failed) == 1
    assert "tiny test networks" in failed[0]
    assert "ok    picture without a face: the outcome is no_face" in lines
