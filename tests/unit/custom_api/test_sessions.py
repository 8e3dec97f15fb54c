"""Sessions outlive requests and workers, expire, and can't be steered out of their folder."""

from __future__ import annotations

import time
import uuid
from pathlib import Path

import numpy as np
import pytest

from lmi.custom.api.sessions import SessionManager


@pytest.fixture
def manager(tmp_path: Path) -> SessionManager:
    return SessionManager({"sessions_path": str(tmp_path / "s"), "sessions_expiration": "60"})


def test_values_and_arrays_are_there_for_other_workers(manager: SessionManager) -> None:
    session = manager.create_session()
    session.put("a/b", {"n": [1, 2.5, "x", b"y", None]})
    array = session.get_as_numpy("state", shape=(2, 3), create=True)
    array.fill(7)
    array.flush()
    other = SessionManager({"sessions_path": manager.sessions_path})
    found = other.get_session(session.session_id)
    assert found is not None
    assert found.get("a/b") == {"n": [1, 2.5, "x", b"y", None]}
    assert found.get("absent", 3) == 3
    assert (found.get_as_numpy("state", (2, 3)) == 7).all()
    assert found.expiration_ts == session.expiration_ts


def test_no_id_and_a_new_session_are_none_and_an_unknown_one_is_an_error(
    manager: SessionManager,
) -> None:
    outside = Path(manager.sessions_path).parent / "outside"
    outside.mkdir()
    (outside / ".expires").write_text("9e99")
    for nothing in (None, "", "NEW_SESSION"):
        assert manager.get_session(nothing) is None
    for unknown in (str(uuid.uuid4()), "..", "/etc", "../outside", str(outside)):
        with pytest.raises(ValueError, match="is unknown"):
            manager.get_session(unknown)


def test_a_closed_session_is_gone(manager: SessionManager) -> None:
    session = manager.create_session()
    manager.close_session(session.session_id)
    assert not Path(session.files_path).exists()
    with pytest.raises(ValueError, match="is unknown"):
        manager.close_session(session.session_id)


def test_a_session_that_has_expired_is_none_and_is_removed(tmp_path: Path) -> None:
    short = SessionManager({"sessions_path": str(tmp_path), "sessions_expiration": "-1"})
    first = short.create_session()
    assert first.expiration_ts < time.time()
    second = short.create_session()
    assert not Path(first.files_path).exists()
    assert short.get_session(second.session_id) is None
    assert not Path(second.files_path).exists()


def test_keys_stay_inside_the_folder(manager: SessionManager) -> None:
    session = manager.create_session()
    for key in ("", ".", "..", ".expires"):
        with pytest.raises(ValueError, match="can't be a key"):
            session.put(key, 1)
    session.put("../../x", 1)
    assert Path(session.files_path, "..-..-x").is_file()


def test_what_cannot_be_kept_is_refused_with_what_can(manager: SessionManager) -> None:
    session = manager.create_session()
    for value in (object(), np.ones(3), 2**70):
        with pytest.raises(TypeError, match="get_as_numpy"):
            session.put("x", value)
    with pytest.raises(FileNotFoundError, match="create=True"):
        session.get_as_numpy("absent", (1,))


def test_a_store_elsewhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="sessions_s3url is not supported"):
        SessionManager({"sessions_path": str(tmp_path), "sessions_s3url": "s3://b/p"})
