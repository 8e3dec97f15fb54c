"""Java's command lines, of every version and mode."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmi.djl import Arguments

UNIX = ["--sock-type", "unix", "--sock-name", "/t/djl_sock.19000"]
MODEL = ["--model-dir", "/m"]
ENTRY = ["--entry-point", "model.py"]
RANK_1 = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "4"}


def test_the_shortest_form_says_nothing_of_what_came_later() -> None:
    given = Arguments.parse([*UNIX, *MODEL, *ENTRY, "--device-id", "-1"], {})
    assert given == Arguments(Path("/m"), "/t/djl_sock.19000", entry_point="model.py", device_id=-1)
    assert given.address == Path("/t/djl_sock.19000")
    assert (given.mpi, given.async_mode) == (False, None)


@pytest.mark.parametrize(
    ("more", "async_mode", "level"),
    [
        ([], None, "info"),
        (["--log-level", "debug"], None, "debug"),
        (["--log-level", "info", "--async-mode"], True, "info"),
        (["--log-level", "info", "--no-async-mode"], False, "info"),
    ],
)
def test_later_forms_and_empty_words(more: list[str], async_mode: bool | None, level: str) -> None:
    words = [*UNIX, *MODEL, "--entry-point", "", "--device-id", "0", "--cluster-size", "1"]
    words += ["--recommended-entry-point", "djl_python.huggingface", *more]
    given = Arguments.parse(words, {})
    assert (given.entry_point, given.recommended_entry_point) == (None, "djl_python.huggingface")
    assert (given.async_mode, given.log_level, given.device_id) == (async_mode, level, 0)


def test_each_rank_of_javas_mpirun_has_a_socket_of_its_own() -> None:
    words = [*MODEL, *ENTRY, *UNIX, "--tensor-parallel-degree", "2"]
    words += ["--pipeline-parallel-degree", "2", "--recommended-entry-point", ""]
    given = Arguments.parse([*words, "--log-level", "info", "--no-async-mode"], RANK_1)
    assert given.address == Path("/t/djl_sock.19000.1")
    assert (given.rank, given.world, given.mpi) == (1, 4, True)


def test_several_machines_use_ports_by_rank() -> None:
    words = [*MODEL, *ENTRY, "--sock-type", "tcp", "--sock-name", "0.0.0.0", "--port", "19000"]
    words += ["--tensor-parallel-degree", "4", "--cluster-size", "2"]
    given = Arguments.parse(words, RANK_1)
    assert given.address == ("0.0.0.0", 19001)
    assert given.cluster_size == 2


def test_a_foreign_mpiruns_variables_mean_nothing_without_a_degree() -> None:
    given = Arguments.parse([*UNIX, *MODEL, *ENTRY, "--device-id", "0"], RANK_1)
    assert (given.rank, given.address) == (0, Path("/t/djl_sock.19000"))


def test_tcp_without_a_name_is_loopback() -> None:
    words = ["--sock-type", "tcp", "--port", "19000", *MODEL, *ENTRY]
    assert Arguments.parse(words, {}).address == ("127.0.0.1", 19000)


def test_words_of_a_later_release_are_kept_and_javas_limit_is_read() -> None:
    given = Arguments.parse([*UNIX, *MODEL, "--new-thing", "1"], {"MAX_NETTY_BUFFER_SIZE": "1000"})
    assert (given.unknown, given.field_limit) == (("--new-thing", "1"), 1000)


@pytest.mark.parametrize(
    ("words", "environ", "said"),
    [
        (UNIX, {}, "--model-dir"),
        (["--sock-type", "unix", *MODEL], {}, "--sock-name"),
        (["--sock-type", "tcp", *MODEL], {}, "--port"),
        ([*UNIX, *MODEL, "--device-id", "x"], {}, "--device-id"),
        ([*UNIX, *MODEL], {"MAX_NETTY_BUFFER_SIZE": "20M"}, "MAX_NETTY_BUFFER_SIZE='20M'"),
    ],
)
def test_a_wrong_command_line_ends_with_2_and_names_the_word(
    words: list[str], environ: dict[str, str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        Arguments.parse(words, environ)
    assert said in capsys.readouterr().err
