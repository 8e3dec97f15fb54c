"""The figures: what is divided by what, and that nothing is lost on the way to a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.mixed_lengths import INPUTS, OUTPUTS, figures, grid, workload
from benchmarks.offline.loop import Done, Job
from benchmarks.offline.percent import change, percentile
from benchmarks.offline.records import (
    Absent,
    Bandwidth,
    Group,
    Point,
    Records,
    Round,
    Start,
    digest,
)
from benchmarks.offline.tables import bandwidth_share, same_answers, tables
from benchmarks.offline.weights import SHAPES, bytes_per_decoded_token

GROUP = Group("llama-100m", "float32", 2)
POINT = Point(64, 5, 1)


def round_of(subject: str, rate: float, repeat: int = 0, **changed: object) -> Round:
    values: dict[str, object] = {
        "group": GROUP,
        "subject": subject,
        "point": POINT,
        "repeat": repeat,
        "seconds": 5 / rate,
        "tokens_per_s": rate,
        "first_s": 0.25,
        "whole_s": 5 / rate,
        "decode_tokens_per_s": rate,
        "digests": ["same"],
    }
    return Round(**(values | changed))  # type: ignore[arg-type]


def records() -> Records:
    """Two subjects with three repeats, a start and a bandwidth; a third has only a reason."""
    found = Records(bandwidths=[Bandwidth(2, 20e9), Bandwidth(2, 24e9), Bandwidth(1, 99e9)])
    for repeat, (ours, theirs) in enumerate([(30.0, 10.0), (20.0, 8.0), (40.0, 12.0)]):
        found.rounds += [round_of("lmi-dist", ours, repeat), round_of("generate", theirs, repeat)]
    found.starts.append(Start(GROUP, "lmi-dist", 2.5, True, {"kernels": "cpu"}, 640.0))
    found.absents.append(Absent(GROUP, "llama.cpp", None, "not installed: make peers"))
    return found


def test_a_rounds_figures_leave_the_prompt_out_of_decoding() -> None:
    job = Job([[1] * 64], [5], 1)
    done = Done(seconds=2.5, sent=[0.5], first=[1.0], ended=[2.0], answers=[[1, 2, 3, 4, 5]])
    found = Round.of(GROUP, "a", POINT, 0, job, done)
    assert found.tokens_per_s == 2.0
    assert found.first_s == 0.5
    assert found.whole_s == 1.5
    assert found.decode_tokens_per_s == 4.0  # four ids in the second after the first one


def test_a_round_of_several_requests_has_no_decode_rate_of_its_own() -> None:
    job = Job([[1]] * 2, [2, 2], 2)
    done = Done(1.0, [0.0, 0.0], [0.1, 0.3], [0.8, 1.0], [[1, 2], [1, 2]])
    found = Round.of(GROUP, "a", Point(1, 2, 2), 0, job, done)
    assert found.decode_tokens_per_s is None
    assert (found.first_s, found.tokens_per_s) == (0.2, 4.0)


def test_an_engine_that_tells_no_first_id_has_no_figure_for_it() -> None:
    done = Done(1.0, [0.0], [None], [1.0], [[1, 2, 3, 4, 5]])
    found = Round.of(GROUP, "a", POINT, 0, Job([[1] * 64], [5], 1), done)
    assert (found.first_s, found.decode_tokens_per_s) == (None, None)


def test_records_come_back_from_their_file_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    assert Records.read(path) == Records()
    found = records()
    found.session("a command", {"cpu": "two"})
    found.absent(Absent(GROUP, "generate", POINT, "slow"))
    found.write(path)
    assert Records.read(path) == found
    assert [one.name for one in tmp_path.iterdir()] == ["figures.json"]


def test_what_is_tried_anew_is_no_longer_missing() -> None:
    found = records()
    found.absent(Absent(GROUP, "llama.cpp", None, "another reason"))
    assert [one.why for one in found.absents] == ["another reason"]
    found.forget(GROUP, "llama.cpp", POINT)
    assert len(found.absents) == 1
    found.forget(GROUP, "llama.cpp", None)
    assert found.absents == []


def test_the_table_shows_medians_with_their_spread_and_ours_over_theirs() -> None:
    (rates, costs), lines = tables(records())
    text = rates.markdown()
    assert "| lmi-dist | 30.0 (20.0 to 40.0) |" in text
    assert "| generate | 10.0 (8.0 to 12.0) | 3.00x |" in text
    assert "llama-100m, float32, 2 threads, 64 in / 5 out" in text
    assert "24.0 GB/s" in costs.title
    assert lines == [
        "llama.cpp, llama-100m, float32, 2 threads: nothing: not installed: make peers"
    ]


def test_starts_that_compile_stand_apart_from_later_ones() -> None:
    found = records()
    found.starts.append(Start(GROUP, "lmi-dist", 1.5, False, {}, 700.0))
    row = tables(found)[0][1].sections[0][0]
    assert row[:4] == ("lmi-dist", "2.5", "1.5", "700")


def test_the_bandwidth_share_is_weights_and_mean_context_times_the_rate() -> None:
    shape = SHAPES["llama-100m"]
    # By hand: embedding; 12 x (norms, q and o, k and v, three of the MLP); the last norm.
    layer = 2 * 768 + 2 * 768 * 768 + 2 * 256 * 768 + 3 * 768 * 2048
    assert shape.parameters == 32_000 * 768 + 12 * layer + 768
    assert shape.kv_numbers_per_token == 2 * 12 * 4 * 64
    context = 64 + 5 / 2
    read = 4 * (shape.parameters + 2 * 12 * 4 * 64 * context)
    assert bytes_per_decoded_token(shape, "float32", context) == read
    assert bandwidth_share(GROUP, POINT, 30.0, 24e9) == pytest.approx(read * 30 / 24e9)


def test_biases_are_counted_where_a_family_has_them() -> None:
    shape = SHAPES["qwen2-125m"]
    names = dict(shape.tensors())
    assert names["model.layers.5.self_attn.k_proj.bias"] == (128,)
    assert 100e6 < shape.parameters < 130e6


def test_answers_are_compared_request_by_request_at_the_same_point_and_repeat() -> None:
    found = records()
    found.rounds.append(round_of("lmi-dist", 30.0, 3, digests=["same"]))  # nothing to compare with
    found.rounds[0] = round_of("lmi-dist", 30.0, 0, digests=["other"])
    assert same_answers(found, GROUP, "lmi-dist") == "2 of 3"
    assert same_answers(found, GROUP, "nobody") == "–"
    assert digest([1, 2]) == digest((1, 2)) != digest([2, 1])


def test_percentiles_are_interpolated_and_changes_signed() -> None:
    assert percentile([1.0], 95) == 1.0
    assert percentile([1.0, 2.0, 4.0], 50) == 2.0
    assert percentile([0.0, 10.0], 95) == 9.5
    assert change(25.0, 10.0) == "+150 %"
    assert change(4.0, 10.0) == "-60 %"


def test_mixed_requests_are_seeded_and_stay_within_their_lengths() -> None:
    job = workload(200, 1000, 1, (INPUTS[1], OUTPUTS[1]))
    assert job == workload(200, 1000, 1, (INPUTS[1], OUTPUTS[1]))
    lengths = [len(prompt) for prompt in job.prompts]
    assert min(lengths) >= INPUTS[0]
    assert max(lengths) <= INPUTS[1]
    assert max(lengths) > 480
    assert min(job.outputs) >= OUTPUTS[0]
    assert 240 < max(job.outputs) <= OUTPUTS[1]
    assert max(map(max, job.prompts)) < 1000


def test_mixed_figures_count_useful_tokens_and_whole_waits() -> None:
    job = Job([[1], [2]], [3, 5], 2)
    done = Done(4.0, [0.0, 1.0], [None, None], [2.0, 4.0], [[1] * 3, [1] * 5])
    found = figures(job, done)
    assert found["tokens_per_s"] == 2.0
    assert found["latency_s"] == {"mean": 2.5, "p50": 2.5, "p95": pytest.approx(2.95)}
    slower = found | {"tokens_per_s": 0.5, "latency_s": {"mean": 5.0, "p50": 5.0, "p95": 5.0}}
    row = grid({"lmi-dist": [found], "generate": [slower]}, "model").sections[0][0]
    assert row[1:5] == ("2.0", "+300 %", "2.50", "-50 %")
    assert row[-1] == "2 of 2"
