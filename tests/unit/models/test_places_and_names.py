"""Model ids are read as what they are, and no name from outside leaves the model's folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmi.core import ModelError
from lmi.models.names import safe_name, wanted
from lmi.models.place import Folder, HubModel, S3Prefix, place_of
from lmi.models.source import StoredFile

PARTS = st.sampled_from(["..", ".", "", "a", "b c", "…", "\0", "\\", "~", "C:", "-", "con", "a\nb"])


def test_a_folder_wins_over_a_hub_id_of_the_same_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert place_of("owner/name") == HubModel("owner/name")
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert place_of("owner/name") == Folder(tmp_path / "owner" / "name")


@pytest.mark.parametrize(
    ("model_id", "place"),
    [
        ("gpt2", HubModel("gpt2")),
        ("Qwen/Qwen2.5-0.5B_x", HubModel("Qwen/Qwen2.5-0.5B_x")),
        ("s3://bucket/a/b", S3Prefix("bucket", "a/b/")),
        ("s3://bucket/a/b/", S3Prefix("bucket", "a/b/")),
        ("s3://bucket", S3Prefix("bucket", "")),
    ],
)
def test_an_id_says_where_the_model_is(model_id, place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert place_of(model_id) == place


@pytest.mark.parametrize(
    ("model_id", "said"),
    [
        ("", "give a folder"),
        ("./nothing", "no such folder"),
        ("/nothing/here", "no such folder"),
        ("file:///nothing/here", "no such folder"),
        ("djl://ai.djl.huggingface/x", "djl:// is not supported"),
        ("https://hub/x", "https:// is not supported"),
        ("a/b/c", "no name for the hub"),
        ("owner/..", "no name for the hub"),
        ("owner/na me", "no name for the hub"),
        ("x" * 97, "no name for the hub"),
        ("s3://", "can't be a bucket"),
        ("s3://UPPER/x", "can't be a bucket"),
        ("s3://bucket/model.tar.gz", "is an archive"),
        ("model.tgz", "is an archive"),
    ],
)
def test_what_can_be_no_model_is_refused_with_a_way_out(model_id, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=said):
        place_of(model_id)


def test_a_file_is_no_model(tmp_path):
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ModelError, match="is a file: give the folder"):
        place_of(str(tmp_path / "model.safetensors"))


@given(st.lists(PARTS, min_size=1, max_size=5).map("/".join))
def test_no_accepted_name_leaves_the_folder_or_names_it(name):
    root = Path("/models/one")
    try:
        accepted = safe_name(name, "s3://bucket/x/")
    except ModelError:
        return
    written = root / accepted
    assert written.is_relative_to(root)
    assert written != root
    assert ".." not in written.parts
    assert written.relative_to(root).as_posix() == name
    assert "\0" not in name


@given(st.text(max_size=20))
def test_a_name_is_accepted_as_it_is_or_refused(name):
    try:
        assert safe_name(name, "x") == name
    except ModelError:
        assert not name.replace("/", "").replace(".", "").isalnum() or "/" in name or "." in name


@pytest.mark.parametrize(
    "name", ["../up", "a/../../up", "/etc/passwd", "a//b", "a/", "./a", "..\\a"]
)
def test_the_classic_escapes_are_refused(name):
    with pytest.raises(ModelError, match=r"^owner/name holds the file name '.*outside the model"):
        safe_name(name, "owner/name")


def names(*listed: str) -> list[str]:
    return [file.name for file in wanted([StoredFile(name, 1) for name in listed], "owner/name")]


def test_weights_come_once_and_as_safetensors():
    listed = names(
        "pytorch_model.bin",
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "onnx/model.onnx",
        "training_args.bin",
        "consolidated.safetensors",
        "model.Q4.gguf",
        "tf_model.h5",
    )
    assert listed == ["config.json", "model.safetensors", "tokenizer.json"]


def test_mistrals_own_names_are_taken_where_there_are_no_others():
    assert names("config.json", "consolidated.safetensors") == [
        "config.json",
        "consolidated.safetensors",
    ]


def test_weights_that_are_pickle_only_are_refused_with_the_reason():
    with pytest.raises(ModelError, match=r"pickle only \(pytorch_model\.bin\).*convert"):
        names("config.json", "pytorch_model.bin")


@pytest.mark.parametrize("mark", ["model.py", "MODEL"])
def test_a_folder_with_its_own_code_or_of_another_kind_comes_whole(mark):
    config = ["config.json"] if mark == "model.py" else []
    assert names(mark, "weights.pt", *config) == sorted([mark, "weights.pt", *config])
