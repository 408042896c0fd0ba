"""Near copies are known again: which, by whom, with what was said of them, and not once their file is gone."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image
from sqlalchemy import event

from tests.web_app.helpers import make_report, make_settings, media_bytes, running_worker, upload
from utils.config import SecuritySettings, Settings
from utils.detection.people import People, cut
from utils.faces.detector import CenterFaceDetector
from utils.types import FaceTrack, Frame, Media, MediaKind, Outcome, Report, Sighting
from web_app.api import seen as seen_before
from web_app.auth.keys import create_key
from web_app.db.models import DetectionRow, PictureHashRow
from web_app.jobs.derived import FACE, WHOLE, face_looks, keep_looks, whole_looks
from web_app.jobs.runner import Progress
from web_app.jobs.shared import Instance
from web_app.services import EXTENSION, Services

PICTURES = {name: getattr(skimage.data, name)() for name in ("astronaut", "cat", "coffee", "rocket", "retina")}


def jpeg(pixels: Any, quality: int = 90) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=quality)
    return out.getvalue()


def resized(pixels: Any, factor: float) -> Any:
    height, width = pixels.shape[:2]
    return np.asarray(Image.fromarray(pixels).resize((round(width * factor), round(height * factor))))


COPIES: dict[str, Callable[[Any], bytes]] = {
    "coded anew": lambda pixels: jpeg(pixels, 30),
    "half as large": lambda pixels: jpeg(resized(pixels, 0.5), 80),
    "larger": lambda pixels: jpeg(resized(pixels, 1.5), 70),
    "brighter": lambda pixels: jpeg(np.clip(pixels * 1.15 + 8, 0, 255).astype(np.uint8)),
    "border cut off": lambda pixels: jpeg(pixels[10:-10, 10:-10]),
}


def media_of(pixels: Any, kind: MediaKind = MediaKind.IMAGE, frames: int = 1) -> Media:
    info = dataclasses.replace(make_report(kind=kind).media, width=pixels.shape[1], height=pixels.shape[0])
    moved = [np.ascontiguousarray(np.roll(pixels, 9 * index, axis=1)) for index in range(frames)]
    return Media(info, tuple(Frame(index, float(index), each) for index, each in enumerate(moved)))


def people_in(media: Media, detector: CenterFaceDetector) -> People:
    """Everybody in the first frame of a medium, as the pipeline cuts them out."""
    faces = detector.detect(media.frames[0].pixels)
    tracks = [FaceTrack(number, (Sighting(0, face),)) for number, face in enumerate(faces)]
    return cut(media, tracks, min_face_px=16)


@pytest.fixture
def served(app: Flask, settings: Settings, parts: Services, face_detector: CenterFaceDetector) -> Iterator[FlaskClient]:
    """A client with a worker that looks for faces and keeps what it sees, as the real one does."""
    with looking_worker(settings, parts, face_detector):
        yield app.test_client()


@contextlib.contextmanager
def looking_worker(settings: Settings, instance: Instance, detector: CenterFaceDetector) -> Iterator[None]:
    def analyse(path: Path, _progress: Progress) -> Report:
        media = media_of(np.ascontiguousarray(Image.open(path).convert("RGB")))
        keep_looks(instance, path, whole_looks(media) | face_looks(people_in(media, detector)))
        return dataclasses.replace(make_report(outcome=Outcome.FAKE), media=media.info)

    with running_worker(settings, analyse):
        yield


def analysed(client: FlaskClient, content: bytes, query: str = "", **keywords: Any) -> str:
    answer = upload(client, content, f"/api/detect?wait=1{query}", **keywords)
    assert answer.status_code == 200, answer.text
    return str(answer.get_json()["id"])


def seen(client: FlaskClient, public_id: str, **keywords: Any) -> list[dict[str, Any]]:
    answer = client.get(f"/api/detections/{public_id}/seen", **keywords).get_json()
    return list(answer["items"])


@pytest.mark.parametrize("copy", COPIES)
def test_a_near_copy_is_known_again_and_nothing_else(served: FlaskClient, copy: str) -> None:
    ids = {name: analysed(served, jpeg(pixels), name=f"{name}.jpg") for name, pixels in PICTURES.items()}
    assert [seen(served, public_id) for public_id in ids.values()] == [[]] * len(ids)
    again = analysed(served, COPIES[copy](PICTURES["astronaut"]), name="copy.jpg")
    (found,) = seen(served, again)
    assert (found["id"], found["name"], found["how"]) == (ids["astronaut"], "astronaut.jpg", "picture")
    assert (found["prediction"], found["fake_probability"], found["model_version"]) == ("fake", 0.93, "v-test")
    assert [each["id"] for each in seen(served, ids["astronaut"])] == [again]


def test_a_face_cut_out_of_a_picture_is_known_again(served: FlaskClient) -> None:
    whole = analysed(served, jpeg(PICTURES["astronaut"]))
    part = analysed(served, jpeg(PICTURES["astronaut"][0:300, 80:400]))
    (found,) = seen(served, part)
    assert (found["id"], found["how"], found["face"], found["other_face"]) == (whole, "face", 0, 0)


def test_the_very_same_file_comes_first_and_corrections_are_told(served: FlaskClient) -> None:
    first = analysed(served, jpeg(PICTURES["cat"]))
    copy = analysed(served, jpeg(PICTURES["cat"], 40))
    again = analysed(served, jpeg(PICTURES["cat"]), "&again=1")
    said = served.post("/api/feedback", json={"id": first, "feedback": "incorrect", "actual": "real"})
    assert said.status_code == 201
    found = seen(served, again)
    assert [(each["id"], each["how"], each["actual"]) for each in found] == [
        (first, "file", "real"),
        (copy, "picture", None),
    ]
    sha256 = hashlib.sha256(jpeg(PICTURES["cat"])).hexdigest()
    decided = served.post(f"/api/rl/review/{sha256}", json={"decision": "accept", "label": "real"})
    assert decided.status_code == 200, decided.text
    assert [each["decided"] for each in seen(served, again)] == ["real", None]


def test_of_many_only_the_most_alike_are_loaded(served: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen_before, "MOST_SHOWN", 2)
    first = analysed(served, jpeg(PICTURES["cat"]))
    copies = [analysed(served, jpeg(PICTURES["cat"], quality)) for quality in (40, 50, 60)]
    again = analysed(served, jpeg(PICTURES["cat"]), "&again=1")
    loaded = []

    def note(row: DetectionRow, _: Any) -> None:
        loaded.append(row)

    event.listen(DetectionRow, "load", note)
    try:
        found = seen(served, again)
    finally:
        event.remove(DetectionRow, "load", note)
    assert [each["how"] for each in found] == ["file", "picture"]
    assert (found[0]["id"], found[1]["id"] in copies) == (first, True)
    assert len(loaded) == 3  # with its own


def test_nothing_is_known_of_what_was_deleted_or_never_kept(served: FlaskClient, parts: Services) -> None:
    first = analysed(served, jpeg(PICTURES["cat"]))
    assert upload(served, jpeg(PICTURES["cat"], 50), "/api/detect?keep=0").status_code == 200
    copy = analysed(served, jpeg(PICTURES["cat"], 40))
    assert [each["id"] for each in seen(served, copy)] == [first]
    served.delete(f"/api/detections/{first}")
    assert seen(served, copy) == []
    with parts.database.read() as session:
        assert {row.media_id for row in session.query(PictureHashRow)} == {
            session.query(PictureHashRow).first().media_id
        }
    served.delete(f"/api/detections/{copy}")
    with parts.database.read() as session:
        assert session.query(PictureHashRow).count() == 0


def test_only_ones_own_are_told(
    make_app: Callable[..., Flask], tmp_path: Path, face_detector: CenterFaceDetector
) -> None:
    settings = dataclasses.replace(make_settings(tmp_path), security=SecuritySettings(keys="on"))
    app = make_app(settings)
    parts, client = app.extensions[EXTENSION], app.test_client()
    ann, bob, root = (
        {"Authorization": f"Bearer {create_key(parts.database, 'k', scopes)}"}
        for scopes in (["analyse"], ["analyse"], ["analyse", "admin"])
    )
    with looking_worker(settings, parts, face_detector):
        own = analysed(client, jpeg(PICTURES["cat"]), headers=ann)
        same = analysed(client, jpeg(PICTURES["cat"]), headers=bob)
        copy = analysed(client, jpeg(PICTURES["cat"], 40), headers=bob)
    assert seen(client, own, headers=ann) == []
    assert [each["id"] for each in seen(client, same, headers=bob)] == [copy]
    assert {each["id"] for each in seen(client, own, headers=root)} == {same, copy}
    assert client.get(f"/api/detections/{own}/seen", headers=bob).status_code == 404


def test_it_can_be_turned_off(
    make_app: Callable[..., Flask], tmp_path: Path, face_detector: CenterFaceDetector
) -> None:
    settings = make_settings(tmp_path)
    settings = dataclasses.replace(settings, storage=dataclasses.replace(settings.storage, seen_before="off"))
    app = make_app(settings)
    with looking_worker(settings, app.extensions[EXTENSION], face_detector):
        for quality in (90, 40):
            public_id = analysed(app.test_client(), jpeg(PICTURES["cat"], quality))
    answer = app.test_client().get(f"/api/detections/{public_id}/seen").get_json()
    assert answer == {"items": []}
    with app.extensions[EXTENSION].database.read() as session:
        assert session.query(PictureHashRow).count() == 0


def test_of_a_video_three_frames_are_kept_and_of_flat_pictures_nothing(
    parts: Services, client: FlaskClient, face_detector: CenterFaceDetector
) -> None:
    clip = media_of(PICTURES["cat"], MediaKind.VIDEO, frames=16)
    assert set(whole_looks(clip)) == {(WHOLE, 0), (WHOLE, 1), (WHOLE, 2)}
    assert len(set(whole_looks(clip).values())) == 3
    person = media_of(PICTURES["astronaut"])
    assert set(face_looks(people_in(person, face_detector))) == {(FACE, 0)}
    upload(client, jpeg(PICTURES["cat"]), "/api/detect?wait=0")
    (stored,) = [name for name, _ in parts.store.files()]
    flat = whole_looks(media_of(np.full((64, 64, 3), 90, np.uint8)))
    keep_looks(parts, parts.store.path(stored), flat)
    with parts.database.read() as session:
        assert session.query(PictureHashRow).count() == 0


def test_clips_are_alike_where_two_of_three_frames_are(parts: Services, client: FlaskClient) -> None:
    ids = [upload(client, media_bytes("mp4", order)).get_json()["id"] for order in ("fake", "real", "no_face")]
    own, near, far = 0x0F0F0F0F0F0F0F0F, 0x0F0F0F0F0F0F0F0E, 0x00FF00FF00FF00FF
    looks = ([own] * 3, [near, near, far], [near, far, far])
    with parts.database.write() as session:
        for row, each in zip(session.query(DetectionRow).order_by(DetectionRow.job_id), looks, strict=True):
            row.job.state, row.prediction, row.model_version = "done", "real", "v-test"
            row.overall = "fake"
            for number, look in enumerate(each):
                session.add(PictureHashRow(media_id=row.media_id, part=WHOLE, number=number, look=f"{look:016x}"))
    (found,) = seen(client, ids[0])
    assert (found["id"], found["how"], found["distance"]) == (ids[1], "picture", 1)
    assert (found["prediction"], found["overall"]) == ("real", "fake")
