"""Models come from a hub (a small one on loopback) into a cache, and stay usable without it."""

from __future__ import annotations

import pytest

from lmi.core import ModelError
from lmi.models import Store
from tests.support.hub import FakeHub, commit_of, serve
from tests.support.model_folders import model_files

pytestmark = pytest.mark.slow  # huggingface_hub loads in over a second

NOBODY = "http://127.0.0.1:1"
REPO = "owner/tiny"
WANTED = (
    "config.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "tokenizer.json",
)


@pytest.fixture
def hub():
    with serve(FakeHub({REPO: model_files()})) as hub:
        yield hub


@pytest.fixture(autouse=True)
def no_token(monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)


def store(tmp_path, hub, progress=lambda *_: None):
    return Store(
        tmp_path / "cache", hub_cache=tmp_path / "hub", hub_endpoint=hub.url, progress=progress
    )


def test_a_model_comes_with_the_files_that_serve_it(tmp_path, hub):
    seen = []
    model = store(tmp_path, hub, lambda *step: seen.append(step)).get(REPO)
    files = model_files()
    assert model.files == WANTED
    assert model.revision == commit_of(files)
    assert {path.name for path in model.path.iterdir()} == set(WANTED)
    assert all((model.path / name).read_bytes() == files[name] for name in WANTED)
    total = sum(len(files[name]) for name in WANTED)
    assert seen[0] == (f"downloading {REPO}", 0, total)
    assert seen[-1] == (f"downloading {REPO}", total, total)
    assert [done for _, done, _ in seen] == sorted({done for _, done, _ in seen})


def test_a_name_is_no_pattern(tmp_path, hub):
    hub.repos[REPO] = {**model_files(), "a[b]*.json": b"1", "ab.json": b"2"}
    model = store(tmp_path, hub).get(REPO)
    assert (model.path / "a[b]*.json").read_bytes() == b"1"
    assert model.files == tuple(sorted([*WANTED, "a[b]*.json", "ab.json"]))


def test_what_is_there_is_not_fetched_again(tmp_path, hub):
    first = store(tmp_path, hub).get(REPO)
    hub.asked.clear()
    assert store(tmp_path, hub).get(REPO) == first
    assert [line for line in hub.asked if "/resolve/" in line] == []


@pytest.mark.parametrize("revision", [None, "main", "the commit"])
def test_a_model_in_the_cache_needs_no_hub(tmp_path, revision):
    commit = commit_of(model_files())
    revision = commit if revision == "the commit" else revision
    with serve(FakeHub({REPO: model_files()})) as hub:
        first = store(tmp_path, hub).get(REPO, revision=revision)
    assert store(tmp_path, hub).get(REPO, revision=revision) == first
    assert store(tmp_path, hub).inspect(REPO, revision=revision).layers == 2


def test_a_new_commit_is_fetched_and_shares_what_did_not_change(tmp_path, hub):
    old = store(tmp_path, hub).get(REPO)
    hub.repos[REPO] = {**model_files(), "config.json": b'{"num_hidden_layers": 7}'}
    hub.asked.clear()
    new = store(tmp_path, hub).get(REPO)
    assert new.revision != old.revision
    assert (new.path / "config.json").read_bytes() == b'{"num_hidden_layers": 7}'
    assert (old.path / "config.json").read_bytes() == model_files()["config.json"]
    assert not any(line.startswith("GET") and "safetensors" in line for line in hub.asked)


def test_the_header_is_read_without_the_weights(tmp_path, hub):
    header = store(tmp_path, hub).inspect(REPO)
    assert header.parameters == 16 * 8 + 8 * 8 + 8
    assert not (tmp_path / "hub" / "models--owner--tiny" / "snapshots").exists()


def test_a_download_that_fails_leaves_nothing_that_looks_complete(tmp_path, hub):
    hub.lost = {WANTED[2]}
    with pytest.raises(ModelError, match=f"a file that it does not have.*{WANTED[2]}"):
        store(tmp_path, hub).get(REPO)
    hub.lost = set()
    address, hub.url = hub.url, NOBODY
    with pytest.raises(ModelError, match=r"not complete in the cache.*out of reach \(Connect"):
        store(tmp_path, hub).get(REPO)
    hub.url = address
    assert store(tmp_path, hub).get(REPO).files == WANTED


@pytest.mark.parametrize(
    ("model_id", "revision", "said"),
    [
        ("owner/none", None, "model owner/none is not on the hub, or private.*none is set"),
        (REPO, "v9", "model owner/tiny at revision v9: the hub has no such revision"),
        ("owner/gated", None, "model owner/gated is gated: accept its terms.*none is set"),
        ("owner/pickle", None, r"pickle only \(pytorch_model\.bin\)"),
        ("owner/evil", None, r"'\.\./\.\./evil'.*outside the model's folder"),
    ],
)
def test_what_the_hub_refuses_says_what_to_do(tmp_path, hub, model_id, revision, said):
    hub.repos["owner/gated"] = model_files()
    hub.gated = {"owner/gated"}
    hub.repos["owner/pickle"] = {"config.json": b"{}", "pytorch_model.bin": b""}
    hub.repos["owner/evil"] = {"config.json": b"{}", "../../evil": b""}
    with pytest.raises(ModelError, match=said):
        store(tmp_path, hub).get(model_id, revision=revision)


def test_a_token_opens_a_gated_model(tmp_path, hub, monkeypatch):
    hub.gated = {REPO}
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert store(tmp_path, hub).get(REPO).files == WANTED


def test_offline_mode_asks_nothing_and_says_so(tmp_path, hub, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE forbids"):
        store(tmp_path, hub).get(REPO)
    assert hub.asked == []


def test_a_cache_that_can_not_be_written_is_named(tmp_path, hub):
    (tmp_path / "hub").write_text("a file where the cache should be")
    with pytest.raises(ModelError, match=f"can't write {tmp_path / 'hub'}"):
        store(tmp_path, hub).get(REPO)
