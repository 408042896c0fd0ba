"""What a command line means: files, folders, patterns, and what leads to nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from utils.detection.cli import check_readable, collect_files
from utils.errors import MediaUnreadableError


@pytest.fixture
def tree(tmp_path: Path, monkeypatch) -> Path:
    for name in ("b/2.mp4", "b/a.JPG", "b/c/1.png", "b/readme.txt", "b/.x.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*arguments: str, recursive: bool = True) -> list[str]:
    return [str(path) for path in collect_files(arguments, recursive=recursive).files]


def test_folder_in_the_order_of_names(tree):
    assert names("b") == ["b/2.mp4", "b/a.JPG", "b/c/1.png"]
    assert names("b", recursive=False) == ["b/2.mp4", "b/a.JPG"]


def test_other_files_are_counted_and_hidden_ones_are_not(tree):
    assert collect_files(["b"]).passed_over == 1


def test_named_file_is_taken_whatever_its_suffix(tree):
    assert names("b/readme.txt", "b/.x.jpg") == ["b/readme.txt", "b/.x.jpg"]


def test_file_reached_twice_comes_once(tree):
    (tree / "link.png").symlink_to(tree / "b" / "c" / "1.png")
    assert names("link.png", "b/c/../c/1.png", "b/c") == ["link.png"]


def test_links_to_folders_are_not_followed_so_that_circles_end(tree):
    (tree / "b" / "c" / "up").symlink_to(tree / "b")
    assert names("b") == ["b/2.mp4", "b/a.JPG", "b/c/1.png"]


def test_pattern_expands_files_and_folders(tree):
    assert names("b/*") == ["b/2.mp4", "b/a.JPG", "b/c/1.png", "b/readme.txt"]
    assert names("**/*.png") == ["b/c/1.png"]


@pytest.mark.parametrize("argument", ["gone.jpg", "gone/*.jpg", "nul\0byte.jpg", "*.nothing"])
def test_what_leads_to_nothing_is_a_result_with_a_code(tree, argument):
    collected = collect_files([argument])
    assert collected.files == ()
    assert [(str(r.path), r.error.code) for r in collected.missing] == [(argument, "media_unreadable")]


def test_folder_without_media_is_a_result_with_a_code(tree):
    (tree / "empty").mkdir()
    (result,) = collect_files(["empty"]).missing
    assert "no picture" in str(result.error)


def test_folder_that_cannot_be_read_is_a_result_with_a_code(tree, monkeypatch):
    real_scandir = os.scandir

    def refuse(path):
        if str(path).endswith("c"):
            raise PermissionError(13, "Permission denied", str(path))
        return real_scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    collected = collect_files(["b"])
    assert [str(path) for path in collected.files] == ["b/2.mp4", "b/a.JPG"]
    assert [(str(r.path), "Permission denied" in str(r.error)) for r in collected.missing] == [("b/c", True)]


def test_only_plain_files_are_readable(tree):
    check_readable(Path("b/a.JPG"))
    os.mkfifo("pipe.mp4")
    for path in ("b", "pipe.mp4", "gone.jpg", "nul\0byte.jpg"):
        with pytest.raises(MediaUnreadableError):
            check_readable(Path(path))
