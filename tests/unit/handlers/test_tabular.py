"""scikit-learn and XGBoost models: formats, trust, bodies in and out, users' functions."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
import xgboost
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from lmi.core import ConfigError, LmiError, ModelError
from lmi.custom.api import Input, Output
from lmi.custom.stock.sklearn import SklearnHandler
from lmi.custom.stock.tabular import TabularService, as_table
from lmi.custom.stock.xgboost import XGBoostHandler, with_variables

pytestmark = pytest.mark.slow
ROWS = np.random.default_rng(3).normal(size=(40, 3))
WANTED = ROWS @ [1.0, 2.0, 3.0] + 1


@pytest.fixture
def linear(tmp_path: Path) -> Path:
    skops.io.dump(LinearRegression().fit(ROWS, WANTED), tmp_path / "model.skops")
    return tmp_path


@pytest.fixture
def booster(tmp_path: Path) -> Path:
    rows = xgboost.DMatrix(ROWS, label=WANTED, feature_names=["a", "b", "c"])
    xgboost.train({"max_depth": 2, "nthread": 1}, rows, 3).save_model(tmp_path / "model.json")
    return tmp_path


def load(kind: Callable[[], TabularService], folder: Path, **options: str) -> TabularService:
    service = kind()
    service.initialize({"model_dir": str(folder), **options})
    return service


def request(body: bytes, **headers: str) -> Input:
    inputs = Input()
    inputs.properties = {name.replace("_", "-"): value for name, value in headers.items()}
    inputs.content.add("data", bytearray(body))
    return inputs


def text(output: Output | list[Output]) -> str:
    assert isinstance(output, Output)
    return output.content.value_at(0).decode()


JSON_ROWS = json.dumps(ROWS[:2].tolist()).encode()
CSV_ROWS = "\n".join(",".join(map(repr, row)) for row in ROWS[:2].tolist()).encode()


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (JSON_ROWS, None),
        (JSON_ROWS, "application/json"),
        (b'{"inputs": ' + JSON_ROWS + b"}", "application/json; charset=utf-8"),
        (CSV_ROWS, "text/csv"),
    ],
)
def test_rows_are_read_from_json_and_csv(linear: Path, body: bytes, kind: str | None) -> None:
    service = load(SklearnHandler, linear)
    headers = {} if kind is None else {"Content_Type": kind}
    found = json.loads(text(service.inference(request(body, **headers))))
    assert found["predictions"] == pytest.approx(WANTED[:2].tolist())


@pytest.mark.parametrize(
    ("accept", "csv"),
    [
        (None, False),
        ("*/*", False),
        ("application/json", False),
        ("text/csv", True),
        ("text/html, text/csv;q=0.9", True),
    ],
)
def test_the_accept_header_chooses_the_answers_form(
    linear: Path, accept: str | None, csv: bool
) -> None:
    headers = {} if accept is None else {"Accept": accept}
    output = load(SklearnHandler, linear).inference(request(JSON_ROWS, **headers))
    assert isinstance(output, Output)
    assert output.get_property("Content-Type") == ("text/csv" if csv else "application/json")
    found = text(output).split() if csv else json.loads(text(output))["predictions"]
    assert [float(each) for each in found] == pytest.approx(WANTED[:2].tolist())


def test_the_default_form_is_an_option(linear: Path) -> None:
    service = load(SklearnHandler, linear, default_accept="text/csv")
    assert len(text(service.inference(request(JSON_ROWS))).splitlines()) == 2
    assert "predictions" in text(service.inference(request(JSON_ROWS, Accept="application/json")))


def test_a_form_that_does_not_exist_is_refused(linear: Path) -> None:
    with pytest.raises(ValueError, match="image/png: expected application/json or text/csv"):
        load(SklearnHandler, linear).inference(request(JSON_ROWS, Accept="image/png"))


def test_one_row_is_a_table_of_one(linear: Path, booster: Path) -> None:
    one = json.dumps(ROWS[0].tolist()).encode()
    found = json.loads(text(load(SklearnHandler, linear).inference(request(one))))
    assert found["predictions"] == pytest.approx([WANTED[0]])
    assert len(json.loads(text(load(XGBoostHandler, booster).inference(request(one))))) == 1


@pytest.mark.parametrize("rows", [[[1, 2], [3]], 3, [[[1.0]]], []])
def test_what_is_no_table_is_refused(rows: Any) -> None:
    with pytest.raises(ValueError, match="inputs: expected rows"):
        as_table(rows)


def test_a_batch_answers_as_its_requests_alone_and_a_bad_one_harms_no_other(linear: Path) -> None:
    service = load(SklearnHandler, linear)
    inputs = Input()
    inputs.properties["batch_size"] = "3"
    for index, body in enumerate((JSON_ROWS, b"{", b"[" + JSON_ROWS[1:-1] + b"]")):
        inputs.content.add(f"batch_{index:03}.data", bytearray(body))
    found = service.inference(inputs)
    assert isinstance(found, list)
    assert [each.code for each in found] == [200, 424, 200]
    assert text(found[0]) == text(found[2]) == text(service.inference(request(JSON_ROWS)))


def test_a_type_that_was_not_trusted_is_named_and_trusting_it_is_enough(tmp_path: Path) -> None:
    model = make_pipeline(FunctionTransformer(np.sort), LinearRegression()).fit(ROWS, WANTED)
    skops.io.dump(model, tmp_path / "model.skops")
    with pytest.raises(ConfigError, match=r"skops_trusted_types.*numpy\.sort") as failed:
        load(SklearnHandler, tmp_path)
    types = ",".join(skops.io.get_untrusted_types(file=tmp_path / "model.skops"))
    assert types in str(failed.value)
    assert load(SklearnHandler, tmp_path, skops_trusted_types=types).initialized


class Bomb:
    """Runs when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return (Path.touch, (self.file,))


@pytest.mark.parametrize(
    ("kind", "name", "model_format"),
    [
        (SklearnHandler, "model.pkl", "pickle"),
        (SklearnHandler, "model.joblib", "joblib"),
        (SklearnHandler, "model.cloudpkl", "cloudpickle"),
        (XGBoostHandler, "model.pkl", "pickle"),
    ],
)
def test_nothing_is_unpickled_unless_that_is_asked_for(
    kind: Callable[[], TabularService], name: str, model_format: str, tmp_path: Path
) -> None:
    run = tmp_path / "it-ran"
    (tmp_path / name).write_bytes(pickle.dumps(Bomb(run)))
    with pytest.raises(ConfigError, match=r"trust_insecure_model_files.*expected true"):
        load(kind, tmp_path, model_format=model_format)
    assert not run.exists()
    load(kind, tmp_path, model_format=model_format, trust_insecure_model_files="true")
    assert run.exists()


def test_a_pickled_model_answers_where_that_is_allowed(tmp_path: Path) -> None:
    model = LinearRegression().fit(ROWS, WANTED)
    (tmp_path / "any-name.pkl").write_bytes(pickle.dumps(model))
    service = load(
        SklearnHandler, tmp_path, model_format="pickle", trust_insecure_model_files="true"
    )
    found = json.loads(text(service.inference(request(JSON_ROWS))))
    assert found["predictions"] == pytest.approx(WANTED[:2].tolist())


def test_a_booster_predicts_rows_without_names(booster: Path) -> None:
    service = load(XGBoostHandler, booster)
    found = json.loads(text(service.inference(request(JSON_ROWS))))["predictions"]
    names = xgboost.DMatrix(ROWS[:2], feature_names=["a", "b", "c"])
    assert found == pytest.approx(service.model.predict(names).tolist())
    with pytest.raises(ValueError, match="rows of 2 values, the model has 3 features"):
        service.inference(request(b"[[1, 2]]"))


def test_formats_of_xgboost_come_from_variables_too(booster: Path) -> None:
    (booster / "model.json").rename(booster / "model.ubj")
    found = with_variables({"model_dir": str(booster)}, {"MODEL_FORMAT": "ubj"})
    assert found["model_format"] == "ubj"
    told = {"model_format": "json"}
    assert with_variables(told, {"MODEL_FORMAT": "ubj"})["model_format"] == "json"


@pytest.mark.parametrize(
    ("files", "says"),
    [([], "found none"), (["a.skops", "b.skops"], "found a.skops, b.skops")],
)
def test_the_models_file_must_be_one(files: list[str], says: str, tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(ModelError, match=says):
        load(SklearnHandler, tmp_path)


def test_the_file_named_model_is_meant_among_several(linear: Path) -> None:
    (linear / "older.skops").touch()
    assert load(SklearnHandler, linear).initialized


def test_a_wrong_format_and_a_broken_file_are_errors_of_the_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model_format='onnx'.*expected one of skops, joblib"):
        load(SklearnHandler, tmp_path, model_format="onnx")
    (tmp_path / "model.json").write_text("{}")
    with pytest.raises(LmiError, match=r"model\.json"):
        load(XGBoostHandler, tmp_path)


HOOKS = """
import numpy as np
from djl_python import Output
from djl_python.input_parser import init_handler, input_formatter, prediction_handler
from djl_python.output_formatter import output_formatter

@init_handler
def load(model_dir, **kwargs):
    return {"dir": model_dir, "factor": 10}

@input_formatter
def read(inputs, content_type=None, **kwargs):
    return np.array([len(word) for word in inputs.get_as_string().split()])

@prediction_handler
def predict(X, model, **kwargs):
    return X * model["factor"]

@output_formatter
def write(predictions):
    return {"scaled": predictions.tolist()}
"""


def test_marked_functions_of_a_model_py_take_the_place_of_each_step(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(HOOKS)
    for kind in (SklearnHandler, XGBoostHandler):
        service = load(kind, tmp_path)
        found = service.inference(request(b"a bcd", Content_Type="text/plain", Accept="x/y"))
        assert json.loads(text(found)) == {"scaled": [10, 30]}
