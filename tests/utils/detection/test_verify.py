"""Replaying reports: with tiny networks the score comes back; every other case has its own answer."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from scipy.io import wavfile

import inference
from tests.speech_fixtures import speech_version, voice
from utils.config import Settings
from utils.detection import verify
from utils.detection.pipeline import analyse, load_analyser
from utils.errors import ConfigError, ReportError
from utils.signatures import KEYS_DOCUMENT, canonical, sign
from utils.types import CASE_DOCUMENT, DOCUMENT, DOCUMENT_VERSION, Pixels, Report
from utils.weights import SPEECH_FOLDER


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, photo: Pixels) -> Path:
    path = tmp_path_factory.mktemp("verify") / "photo.png"
    Image.fromarray(photo).save(path)
    return path


@pytest.fixture(scope="module")
def document(file: Path, tiny_root: Path, settings_for: Callable[..., Settings]) -> dict[str, Any]:
    """The report document of the photo, as the server writes it."""
    return document_of(analyse(file, load_analyser(settings_for(tiny_root, max_faces=3, frames=9))))


def document_of(found: Report) -> dict[str, Any]:
    values = found.to_dict()
    return {
        "document": DOCUMENT, "document_version": DOCUMENT_VERSION, "sha256": found.media.sha256,
        "model": {"version": found.model_version, "sha256": found.model_sha256}, "settings": values["settings"],
        "analysis": values,
    }  # fmt: skip


def written(folder: Path, document: object) -> Path:
    path = folder / "report.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return path


def run(folder: Path, document: object, file: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("TELLTALE_WEIGHTS__DIR", str(root))
    monkeypatch.setenv("TELLTALE_DETECTION__THREADS", "1")
    return inference.main(["--verify", str(written(folder, document)), str(file)])


def changed(document: dict[str, Any], **verdict: Any) -> dict[str, Any]:
    analysis = {**document["analysis"], "verdict": {**document["analysis"]["verdict"], **verdict}}
    return {**document, "analysis": analysis}


def test_a_report_is_reproduced(
    document: dict[str, Any], file: Path, tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    older = {**document, "settings": {**document["settings"], "early_answer": "off"}}  # a setting of the release before
    assert run(tmp_path, older, file, tiny_root, monkeypatch) == inference.EXIT_OK
    assert "The score is reproduced" in capsys.readouterr().out


def test_another_score_is_told(
    document: dict[str, Any], file: Path, tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    p = document["analysis"]["verdict"]["probability"]
    other = changed(document, probability=p + 0.01 if p < 0.5 else p - 0.01)
    assert run(tmp_path, other, file, tiny_root, monkeypatch) == inference.EXIT_OTHER_SCORE
    assert "a difference of 0.0100" in capsys.readouterr().out


def test_another_file_is_told_without_loading_networks(
    document: dict[str, Any], file: Path, tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.png"
    other.write_bytes(file.read_bytes() + b"\x00")
    assert run(tmp_path, document, other, tmp_path / "no weights", monkeypatch) == inference.EXIT_OTHER_FILE


@pytest.mark.parametrize("change", [{"version": "v9"}, {"sha256": "0" * 64}, {"version": "../tiny"}])
def test_other_networks_are_refused(
    change: dict[str, str], document: dict[str, Any], file: Path, tiny_root: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    other = {**document, "model": {**document["model"], **change}}
    assert run(tmp_path, other, file, tiny_root, monkeypatch) == inference.EXIT_UNUSABLE


@pytest.fixture
def spoken(own_root: Path, tmp_path: Path, settings_for: Callable[..., Settings]) -> tuple[dict[str, Any], Path]:
    """The report document of a recording, and the recording."""
    (own_root / SPEECH_FOLDER).mkdir()
    speech_version(own_root / SPEECH_FOLDER)
    path = tmp_path / "voice.wav"
    wavfile.write(path, 16000, voice(2.0))
    return document_of(analyse(path, load_analyser(settings_for(own_root)))), path


def test_a_recording_is_replayed_by_the_version_of_speech_that_judged_it(
    spoken: tuple[dict[str, Any], Path], own_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    document, path = spoken
    speech_version(own_root / SPEECH_FOLDER, "s2", shift=8.0)
    assert run(tmp_path, document, path, own_root, monkeypatch) == inference.EXIT_OK
    assert "0.0e+00 away from the report" in capsys.readouterr().out
    for change in ({"model_version": "s3"}, {"model_version": "../tiny"}, {"model_sha256": "0" * 64}):
        other = {**document["analysis"], "speech": {**document["analysis"]["speech"], **change}}
        given = (tmp_path, {**document, "analysis": other}, path, own_root, monkeypatch)
        assert run(*given) == inference.EXIT_UNUSABLE, change
        assert change.get("model_version", "s1") in capsys.readouterr().err


def test_what_names_no_version_of_speech_is_no_report(spoken: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    document, _ = spoken
    for broken in ("s1", {"model_version": 3, "model_sha256": ""}, {"model_version": "s1"}):
        with pytest.raises(ReportError):
            claim_in(written(tmp_path, {**document, "analysis": {**document["analysis"], "speech": broken}}))


def claim_in(path: Path) -> verify.Claim:
    return verify.claim_of(verify.read_document(path)[0], path.name)


@pytest.mark.parametrize(
    "broken",
    [
        "no json", "[]", "{}", '{"document": "other"}', "[" * 100_000,
        {"document": "telltale-report", "document_version": 2},
        {"document": "telltale-report", "document_version": 1},
        {"document": "telltale-report", "document_version": 1, "sha256": 3, "model": {}, "settings": [], "analysis": 0},
    ],
    ids=range(8),
)  # fmt: skip
def test_what_is_no_report_is_told(broken: object, file: Path, tmp_path: Path) -> None:
    with pytest.raises(ReportError):
        claim_in(written(tmp_path, broken))
    assert inference.main(["--verify", str(tmp_path / "report.json"), str(file)]) == inference.EXIT_NO_REPORT


@pytest.mark.parametrize("probability", [1.5, -0.1, float("nan"), "much", {}])
def test_a_probability_is_one(probability: object, document: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ReportError):
        claim_in(written(tmp_path, changed(document, probability=probability)))


def test_the_settings_of_the_report_are_taken(document: dict[str, Any], tmp_path: Path) -> None:
    claim = claim_in(written(tmp_path, document))
    own = dataclasses.replace(Settings(), media=dataclasses.replace(Settings().media, min_side_px=99))
    used = verify.settings_of(claim, own)
    assert (used.detection.max_faces, used.media.frames, used.media.min_side_px) == (3, 9, 99)
    assert used.weights.version == document["model"]["version"]
    assert verify.missing_settings(claim) == ()
    hostile = {**document, "settings": {**document["settings"], "frames": 10**9}}
    with pytest.raises(ConfigError):
        verify.settings_of(claim_in(written(tmp_path, hostile)), own)
    old = claim_in(written(tmp_path, {**document, "settings": {}}))
    assert "threshold" in verify.missing_settings(old)


def test_a_large_case_is_read(tmp_path: Path) -> None:
    path = tmp_path / "case.json"
    large = [{"report": None, "note": "x" * 125_000}] * 200
    case = {"document": CASE_DOCUMENT, "document_version": DOCUMENT_VERSION, "items": large}
    path.write_text(json.dumps(case), encoding="utf-8")
    assert path.stat().st_size > 25_000_000
    assert verify.read_document(path)[0] == case


def test_the_command_line_asks_for_one_file(tmp_path: Path) -> None:
    for arguments in (["--verify", "r.json"], ["--verify", "r.json", "a", "b"]):
        with pytest.raises(SystemExit) as ended:
            inference.main(arguments)
        assert ended.value.code == inference.EXIT_USAGE


KEY = bytes(range(32))


def verified(folder: Path, content: bytes, file: Path, root: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> int:
    monkeypatch.setenv("TELLTALE_WEIGHTS__DIR", str(root))
    monkeypatch.setenv("TELLTALE_DETECTION__THREADS", "1")
    (folder / "report.json").write_bytes(content)
    return inference.main(["--verify", str(folder / "report.json"), str(file), *more])


def test_a_signed_report_is_checked_and_replayed(
    document: dict[str, Any], file: Path, tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    signed = sign({**document, "analysed": "2026-03-01T12:00:01+00:00"}, KEY)
    key = signed["signature"]["key"]
    keys = tmp_path / "keys.json"
    keys.write_text(
        json.dumps({"document": KEYS_DOCUMENT, "keys": [{"key": key, "until": "2026-03-02T00:00:00+00:00"}]})
    )
    given = (tmp_path, canonical(signed), file, tiny_root, monkeypatch)
    assert verified(*given) == inference.EXIT_OK
    told = capsys.readouterr().out
    assert "cannot prove" in told
    assert "The score is reproduced" in told
    for trusted in (str(keys), key):
        assert verified(*given, "--key", trusted) == inference.EXIT_OK
        assert "with the trusted key" in capsys.readouterr().out
    assert verified(*given, "--key", "0" * 64) == inference.EXIT_SIGNATURE
    assert verified(*given, "--key", "no key") == inference.EXIT_NO_REPORT
    spaced = json.dumps(signed, indent=1).encode()
    assert verified(tmp_path, spaced, *given[2:]) == inference.EXIT_OK
    assert "were written anew" in capsys.readouterr().out


def test_a_changed_report_names_what_differs(
    document: dict[str, Any], file: Path, tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    signed = sign(document, KEY)
    p = document["analysis"]["verdict"]["probability"]
    other = changed(signed, probability=p + 0.2 if p < 0.5 else p - 0.2)
    assert verified(tmp_path, canonical(other), file, tiny_root, monkeypatch) == inference.EXIT_SIGNATURE
    told = capsys.readouterr().out
    assert "was changed after it was signed" in told
    assert "a difference of 0.2000" in told
    nowhere = {**signed, "model": {**signed["model"], "version": "v9"}}
    assert verified(tmp_path, canonical(nowhere), file, tiny_root, monkeypatch) == inference.EXIT_SIGNATURE
    assert "v9" in capsys.readouterr().out


def test_an_unsigned_report_is_named_so(
    document: dict[str, Any], file: Path, tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    given = (tmp_path, json.dumps(document).encode(), file, tiny_root, monkeypatch)
    assert verified(*given) == inference.EXIT_OK
    assert "It is not signed" in capsys.readouterr().out
    assert verified(*given, "--key", "0" * 64) == inference.EXIT_SIGNATURE


def test_a_changed_file_is_found_whichever_byte_it_is(
    document: dict[str, Any], file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, other = file.read_bytes(), tmp_path / "other.png"
    report = written(tmp_path, sign(document, KEY))
    for at in range(0, len(content), len(content) // 40):
        other.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        assert not verify.verify_report(report, other, Settings()).same_file
