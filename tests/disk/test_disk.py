"""Durable files: created once, replaced whole, never half there; what the system says no with is said in words."""

# ruff: noqa: PTH208  # names alone are compared
from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from headrace import disk
from headrace.errors import ConfigError, RejectedError
from headrace.units import size


def test_a_file_is_created_only_if_it_is_absent(tmp_path: Path) -> None:
    disk.create(tmp_path / "a", b"first", aside=tmp_path / "aside")
    with pytest.raises(FileExistsError):
        disk.create(tmp_path / "a", b"second", aside=tmp_path / "aside")
    assert (tmp_path / "a").read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["a"]


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("fsync", "link", "replace", "unlink"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, _n=name, _r=real: (calls.append(_n), _r(*a))[1])
    disk.create(tmp_path / "a", b"x", aside=tmp_path / "aside")
    disk.replace(tmp_path / "a", b"y", aside=tmp_path / "aside")
    assert calls == ["fsync", "link", "unlink", "fsync", "fsync", "replace", "fsync"]


def test_a_short_write_goes_on_until_all_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, content: real(fd, content[:3]))
    disk.replace(tmp_path / "a", b"0123456789", aside=tmp_path / "aside")
    assert (tmp_path / "a").read_bytes() == b"0123456789"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS, errno.EDQUOT])
def test_what_the_disk_refuses_is_a_rejected_error_with_the_folder_and_a_hint(tmp_path: Path, number: int) -> None:
    with pytest.raises(RejectedError) as caught, disk.translated(tmp_path):
        raise OSError(number, os.strerror(number))
    assert str(tmp_path) in caught.value.message
    assert caught.value.hint
    assert caught.value.details == {"errno": number}


def test_exceptions_that_are_not_the_disks_pass_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(KeyError), disk.translated(tmp_path):
        raise KeyError("mine")
    with pytest.raises(FileExistsError), disk.translated(tmp_path):
        raise FileExistsError


def test_a_move_that_somebody_else_has_done_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    assert disk.move(tmp_path / "a", tmp_path / "b")
    assert not disk.move(tmp_path / "a", tmp_path / "b")


def test_a_tree_is_removed_and_what_a_link_points_to_is_not(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "link").symlink_to(tmp_path / "kept")
    disk.remove_tree(tmp_path / "tree")
    disk.remove_tree(tmp_path / "tree")
    assert os.listdir(tmp_path) == ["kept"]
    assert (tmp_path / "kept" / "file").exists()


def test_a_file_in_the_place_of_a_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(RejectedError, match="a file stands where a folder should be"), disk.translated(tmp_path):
        disk.make_folder(tmp_path / "a" / "b")


@pytest.mark.parametrize(("text", "bytes_"), [("64MB", 64_000_000), ("1GiB", 2**30), ("1.5 kb", 1500), (7, 7)])
def test_sizes_are_written_as_people_write_them(text: str | int, bytes_: int) -> None:
    assert size(text) == bytes_


@pytest.mark.parametrize("text", ["", "MB", "0", "-1MB", "1 furlong", True, 0])
def test_what_is_no_size_is_refused(text: str | int) -> None:
    with pytest.raises(ConfigError):
        size(text)
