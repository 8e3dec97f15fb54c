"""Models come from and go to S3 (moto's server), whole or not at all."""

from __future__ import annotations

import threading

import pytest

from lmi.core import ModelError
from lmi.models import Store
from lmi.models.place import s3_prefix
from lmi.models.s3 import S3Source, s3_client
from tests.support.model_folders import model_files, write

pytestmark = pytest.mark.slow  # starts moto's server

WANTED = (
    "config.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "tokenizer.json",
)
URL = "s3://models/team/tiny"


@pytest.fixture(scope="module")
def server():
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def s3(server, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    client = s3_client()
    client.create_bucket(Bucket="models")
    yield client
    for entry in client.list_objects_v2(Bucket="models").get("Contents", ()):
        client.delete_object(Bucket="models", Key=entry["Key"])
    client.delete_bucket(Bucket="models")
    client.close()


def upload(s3, files, prefix="team/tiny/"):
    for name, content in files.items():
        s3.put_object(Bucket="models", Key=prefix + name, Body=content)


def test_a_model_comes_with_the_files_that_serve_it(tmp_path, s3):
    upload(s3, {**model_files(), "empty/": b""})
    upload(s3, {"config.json": b"another model"}, prefix="team/tiny-2/")
    seen = []
    model = Store(tmp_path, progress=lambda *step: seen.append(step)).get(URL)
    assert model.files == WANTED
    files = model_files()
    assert {p.name: p.read_bytes() for p in model.path.iterdir()} == {n: files[n] for n in WANTED}
    total = sum(len(files[name]) for name in WANTED)
    assert seen[0] == (f"downloading {URL}/", 0, total)
    assert seen[-1] == (f"downloading {URL}/", total, total)


def test_what_is_there_is_kept_and_what_changed_is_fetched_anew(tmp_path, s3):
    upload(s3, model_files())
    first = Store(tmp_path).get(URL)
    seen = []
    assert Store(tmp_path, progress=lambda *step: seen.append(step)).get(URL + "/") == first
    assert seen == []
    upload(s3, {"tokenizer.json": b"[]"})
    second = Store(tmp_path).get(URL)
    assert second.path != first.path
    assert (second.path / "tokenizer.json").read_bytes() == b"[]"
    assert (first.path / "tokenizer.json").read_bytes() == b"{}"


def test_the_header_is_read_without_the_weights(tmp_path, s3):
    upload(s3, model_files())
    assert Store(tmp_path).inspect(URL).parameters == 16 * 8 + 8 * 8 + 8
    assert list(tmp_path.iterdir()) == []


def test_what_is_put_is_got_again(tmp_path, s3):
    folder = write(tmp_path / "model", {n: model_files()[n] for n in WANTED})
    seen = []
    Store(tmp_path / "a", progress=lambda *step: seen.append(step)).put(folder, URL)
    model = Store(tmp_path / "b").get(URL)
    assert model.files == WANTED
    assert all((model.path / n).read_bytes() == (folder / n).read_bytes() for n in WANTED)
    assert seen[-1][1] == seen[-1][2] > 0


def test_a_download_that_fails_leaves_nothing_that_looks_complete_and_is_resumed(tmp_path, s3):
    upload(s3, model_files())
    big = bytes(64 * 1024)

    class Cut(Exception):
        pass

    def cut(phase, done, total):
        if done > total - len(big):
            raise Cut

    upload(s3, {"zz.json": big})
    with pytest.raises(Cut):
        Store(tmp_path, progress=cut).get(URL)
    assert [p for p in (tmp_path / "s3").iterdir() if not p.name.startswith(".")] == []
    seen = []
    model = Store(tmp_path, progress=lambda *step: seen.append(step)).get(URL)
    assert model.files == (*WANTED, "zz.json")
    assert sorted(p.name for p in model.path.iterdir()) == sorted(model.files)
    assert seen[0][1] >= 0
    assert [p.name for p in (tmp_path / "s3").iterdir() if p.name.endswith(".partial")] == []


def test_an_upload_that_fails_leaves_no_config_that_would_make_it_a_model(tmp_path, s3):
    folder = write(tmp_path / "model", {n: model_files()[n] for n in WANTED})

    def lose_a_file(phase, done, total):
        (folder / "tokenizer.json").unlink(missing_ok=True)

    with pytest.raises(ModelError, match=rf"can't read {folder}/tokenizer\.json: No such file"):
        Store(tmp_path, progress=lose_a_file).put(folder, URL)
    keys = [entry["Key"] for entry in s3.list_objects_v2(Bucket="models").get("Contents", ())]
    assert "team/tiny/config.json" not in keys


def test_what_changes_while_it_is_fetched_is_not_taken(tmp_path, s3):
    upload(s3, model_files())
    source = S3Source(s3_prefix(URL), tmp_path)
    assert len(source.files()) == len(WANTED)
    upload(s3, {"tokenizer.json": b"longer than it was"})
    with pytest.raises(ModelError, match=r"tokenizer\.json: 18 bytes came where 2 were listed"):
        source.fetch(lambda *_: None)
    assert [p for p in (tmp_path / "s3").iterdir() if not p.name.startswith(".")] == []


def test_two_servers_on_one_cache_get_one_whole_copy(tmp_path, s3):
    upload(s3, model_files())
    starts = threading.Barrier(4)
    found = []

    def get():
        starts.wait(10)
        found.append(Store(tmp_path).get(URL))

    threads = [threading.Thread(target=get) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 4
    assert len(set(found)) == 1
    assert found[0].files == WANTED


def test_a_key_that_leads_outside_is_refused_and_nothing_is_written(tmp_path, s3, server):
    # boto3 would normalise such a key on its way, so the listing itself is what holds it.
    s3.put_object(Bucket="models", Key="team/tiny/a/..%2Fb", Body=b"")
    upload(s3, {"config.json": b"{}", "a//b": b""})
    with pytest.raises(ModelError, match="outside the model's folder"):
        Store(tmp_path).get(URL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://models/team/none", "s3://models/team/none/ holds no files: give the bucket"),
        ("s3://no-such-bucket/x", "there is no such bucket"),
        ("s3://models/pickle", "pickle only"),
    ],
)
def test_what_can_not_be_fetched_says_what_to_do(tmp_path, s3, url, said):
    upload(s3, {"config.json": b"{}", "pytorch_model.bin": b"x"}, prefix="pickle/")
    with pytest.raises(ModelError, match=said):
        Store(tmp_path).get(url)


def test_a_revision_is_refused(tmp_path):
    with pytest.raises(ModelError, match="has no revisions"):
        Store(tmp_path).get(URL, revision="main")


def test_missing_credentials_are_named(tmp_path, s3, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(ModelError, match="no credentials: set AWS_ACCESS_KEY_ID"):
        Store(tmp_path).get(URL)


def test_an_endpoint_out_of_reach_is_named(tmp_path, s3, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(ModelError, match="S3 is out of reach"):
        Store(tmp_path).get(URL)
