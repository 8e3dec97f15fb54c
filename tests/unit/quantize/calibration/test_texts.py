"""Calibration texts: what a file gives, what is wrong with it, and our own set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lmi.core import ModelError
from lmi.quantize.calibration import texts


def test_our_own_set_is_varied_and_the_same_every_time() -> None:
    found = texts(None)
    assert len(found) >= 32
    assert len(set(found)) == len(found)
    assert sum(map(len, found)) > 20_000
    assert not any("=====" in text for text in found)
    assert texts(None) == found


def test_a_text_file_holds_one_text_per_line_and_empty_lines_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "data.txt"
    path.write_bytes("﻿one\r\n\n  \nzwölf\n".encode())
    assert texts(path) == ["one", "zwölf"]


def test_a_jsonl_file_holds_objects_with_text(tmp_path: Path) -> None:
    path = tmp_path / "data.JSONL"
    lines = [json.dumps({"text": "two\nlines", "id": 7}), "", json.dumps({"text": "x\u2028y"})]
    # A line separator that JSON leaves as it is must not end a line.
    path.write_text("\n".join(lines).replace("\\u2028", "\u2028"), encoding="utf-8")
    assert texts(path) == ["two\nlines", "x\u2028y"]


def test_a_missing_file_is_named_with_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere\.txt can.t be read .*one text per line"):
        texts(tmp_path / "nowhere.txt")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"can't be read \(Is a directory\)"):
        texts(tmp_path)


def test_bytes_that_are_not_utf8_are_refused_with_their_place(tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes(b"caf\xe9 au lait\n")
    with pytest.raises(ModelError, match=r"latin\.txt is not UTF-8 \(at byte 3\)"):
        texts(path)


@pytest.mark.parametrize("content", ["", "\n\n", " \n\t\n"])
def test_a_file_without_text_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "empty.txt"
    path.write_text(content)
    with pytest.raises(ModelError, match=r"empty\.txt holds no text"):
        texts(path)


@pytest.mark.parametrize("line", ["{secret", '["secret"]', '{"content": "secret"}', '{"text": 1}'])
def test_a_bad_line_is_named_and_not_shown(tmp_path: Path, line: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(f'{{"text": "fine"}}\n{line}\n')
    with pytest.raises(ModelError, match=r"bad\.jsonl:2: .*expected one text per line") as found:
        texts(path)
    assert "secret" not in str(found.value)
