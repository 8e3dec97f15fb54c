"""Functions over real worker processes: every answer, every way to fail, nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from lmi.core import (
    ConfigError,
    DeadlineExceeded,
    EngineDead,
    EngineError,
    LmiError,
    ModelError,
    OutOfMemory,
    RequestError,
)
from lmi.custom import FunctionSpec, load_function
from tests.support.functions import PATIENCE, pool_of, served, write_model

pytestmark = pytest.mark.slow

ECHO = """
    from djl_python import Output

    def handle(inputs):
        if inputs.is_empty():
            return None
        return Output().add(inputs.get_as_bytes()).add_property("Content-Type", "text/plain")
"""


def until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < limit, "it did not come true"
        time.sleep(0.005)


def test_a_handler_gets_the_request_and_its_output_is_the_answer(tmp_path: Path) -> None:
    with served(tmp_path, ECHO) as calls:
        answer = calls.ask(b"hello", properties={"content-type": "text/plain"})
    assert answer.body == b"hello"
    assert answer.status == 200
    assert answer.content_type == "text/plain"
    assert answer.error is None


def test_the_initialise_call_has_every_option_and_comes_once(tmp_path: Path) -> None:
    text = """
        import os
        seen = []
        def handle(inputs):
            if inputs.is_empty():
                seen.append(dict(inputs.get_properties()))
                return None
            return {"seen": seen, "now": inputs.get_property("MODEL_DIR"), "cwd": os.getcwd()}
    """
    properties = {"task": "x", "tensor_parallel_degree": 2}
    with served(tmp_path, text, properties=properties) as calls:
        for _ in range(2):
            answer = json.loads(calls.ask().body)
    folder = str(tmp_path)
    assert answer["now"] == answer["cwd"] == folder
    assert answer["seen"] == [
        {**properties, "model_dir": folder, "device_id": "-1", "handler": "handle"}
    ]


def test_a_request_has_its_query_its_headers_and_bytearrays(tmp_path: Path) -> None:
    text = """
        def handle(inputs):
            if inputs.is_empty():
                return None
            content = inputs.get_content()
            return {
                "keys": content.get_keys(),
                "types": [type(value).__name__ for value in content.get_values()],
                "header": inputs.get_property("X-Thing"),
                "handler": inputs.get_property("handler"),
                "name": inputs.get_function_name(),
            }
    """
    with served(tmp_path, text) as calls:
        answer = json.loads(calls.ask(b"1", properties={"x-thing": "7"}).body)
    assert answer == {
        "keys": ["data"],
        "types": ["bytearray"],
        "header": "7",
        "handler": "handle",
        "name": "handle",
    }


RESULTS = {
    "None": (204, None, b""),
    "{'a': [1, 'é']}": (200, "application/json", '{"a":[1,"é"]}'.encode()),
    "[1, 2]": (200, "application/json", b"[1,2]"),
    "'text'": (200, "text/plain; charset=utf-8", b"text"),
    "b'raw'": (200, "application/octet-stream", b"raw"),
    "Model(size=3)": (200, "application/json", b'{"size":3}'),
    "Output(503, 'busy').add('later')": (503, None, b"later"),
    "object()": (424, "application/json", None),
}


def test_a_result_is_answered_by_its_type(tmp_path: Path) -> None:
    text = """
        from pydantic import BaseModel
        from djl_python import Output
        class Model(BaseModel):
            size: int
        def handle(inputs):
            return None if inputs.is_empty() else eval(inputs.get_as_string())
    """
    with served(tmp_path, text) as calls:
        for result, (status, content_type, body) in RESULTS.items():
            answer = calls.ask(result.encode())
            assert (answer.status, answer.content_type) == (status, content_type)
            assert body is None or answer.body == body


STREAMS = {
    "generator": "def handle(inputs):\n    return None if inputs.is_empty() else items()",
    "output": (
        "def handle(inputs):\n"
        "    return None if inputs.is_empty() else Output().add_stream_content(items(), None)"
    ),
    "async generator": (
        "async def handle(inputs):\n    return None if inputs.is_empty() else aitems()"
    ),
    "async def of a generator": (
        "async def handle(inputs):\n    return None if inputs.is_empty() else items()"
    ),
    "plain def of an async generator": (
        "def handle(inputs):\n    return None if inputs.is_empty() else aitems()"
    ),
}


@pytest.mark.parametrize("kind", STREAMS)
def test_a_stream_comes_item_by_item_as_it_is_made(tmp_path: Path, kind: str) -> None:
    text = f"""
import time
from pathlib import Path
from djl_python import Output

def go(step):
    while not Path(f"go{{step}}").exists():
        time.sleep(0.01)

def items():
    for step in range(3):
        go(step)
        yield f"item {{step}};"

async def aitems():
    for item in items():
        yield item

{STREAMS[kind]}
"""
    with served(tmp_path, text) as calls:
        number = calls.start()
        answer = calls.answers[number]
        for step in range(3):
            assert len(answer.pieces) == step
            (tmp_path / f"go{step}").touch()
            until(lambda step=step: calls.take(0.05) or len(answer.pieces) > step)
        calls.wait(number)
    assert answer.body == b"item 0;item 1;item 2;"
    assert answer.error is None


def test_a_stream_content_without_formatter_is_lines_of_outputs(tmp_path: Path) -> None:
    text = """
        from djl_python import Output
        def handle(inputs):
            return None if inputs.is_empty() else Output().add_stream_content(iter(["a", "b"]))
    """
    with served(tmp_path, text) as calls:
        assert calls.ask().body == b'{"outputs":"a"}\n{"outputs":"b"}\n'


def test_a_handler_for_the_asynchronous_mode_answers_with_its_maps(tmp_path: Path) -> None:
    text = """
        from djl_python import Input
        from djl_python.async_utils import create_non_stream_output, create_stream_chunk_output
        async def handle(inputs: Input):
            if inputs.is_empty():
                return None
            match inputs.get_as_string():
                case "whole":
                    return create_non_stream_output({"a": 1})
                case "refused":
                    return create_non_stream_output("", error="not this one", code=451)
                case how:
                    return chunks(how)
        async def chunks(how):
            yield create_stream_chunk_output({"n": 0}, False)
            if how == "broken":
                yield create_stream_chunk_output("", True, error="half way", code=424)
            yield create_stream_chunk_output({"n": 1}, True)
    """
    with served(tmp_path, text) as calls:
        whole = calls.ask(b"whole")
        assert (whole.status, whole.content_type) == (200, "application/json")
        assert whole.body == b'{"a":1}\n'
        refused = calls.ask(b"refused")
        assert (refused.status, refused.body) == (451, b'{"code":451,"error":"not this one"}')
        stream = calls.ask(b"stream")
        assert (stream.content_type, stream.body) == (
            "application/jsonlines",
            b'{"n":0}\n{"n":1}\n',
        )
        broken = calls.ask(b"broken")
        assert broken.body == b'{"n":0}\n'
        assert isinstance(broken.error, EngineError)
        assert str(broken.error) == "half way"


def test_an_exception_fails_its_own_request_and_is_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = """
        def handle(inputs):
            if inputs.is_empty():
                return None
            if inputs.get_as_string() == "bad":
                raise ValueError("no such thing")
            return "fine"
    """
    with caplog.at_level("INFO", "lmi.worker"), served(tmp_path, text) as calls:
        bad, good = calls.wait(calls.start(b"bad"), calls.start(b"good"))
        until(lambda: "ValueError: no such thing" in caplog.text)
    assert (bad.status, bad.head.reason) == (424, "invoke handler failure")
    assert json.loads(bad.body) == {
        "code": 424,
        "message": "invoke handler failure",
        "error": "no such thing",
    }
    assert good.body == b"fine"
    assert "model.py" in caplog.text


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_running_out_of_memory_is_507(tmp_path: Path, kind: str) -> None:
    text = f"""
        class OutOfMemoryError(RuntimeError):
            pass
        {kind} handle(inputs):
            if not inputs.is_empty():
                raise eval(inputs.get_as_string())("32 GiB")
    """
    with served(tmp_path, text) as calls:
        for error in (b"MemoryError", b"OutOfMemoryError"):
            answer = calls.ask(error)
            assert (answer.status, answer.head and answer.head.reason) == (507, "32 GiB")


def test_a_stream_that_breaks_ends_with_an_error_after_its_items(tmp_path: Path) -> None:
    text = """
        def handle(inputs):
            return None if inputs.is_empty() else items(inputs.get_as_string())
        def items(how):
            if how == "late":
                yield "one"
            raise KeyError("gone")
    """
    with served(tmp_path, text) as calls:
        late = calls.ask(b"late")
        early = calls.ask(b"early")
    assert late.body == b"one"
    assert isinstance(late.error, EngineError)
    assert (early.status, early.error) == (424, None)


def test_what_users_code_prints_is_logged_with_the_worker(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = """
        import sys
        print("loading")
        def handle(inputs):
            print("to the error stream", file=sys.stderr)
            sys.stdout.buffer.write(b"bytes \\xff\\n")
            sys.stdout.flush()
            return None
    """
    with caplog.at_level("INFO", "lmi.worker"), served(tmp_path, text):
        until(lambda: "bytes" in caplog.text)
    found = {(record.levelname, record.getMessage()) for record in caplog.records}
    assert ("INFO", "[m-0] loading") in found
    assert ("WARNING", "[m-0] to the error stream") in found
    assert ("INFO", "[m-0] bytes �") in found


def test_finalize_is_called_after_the_answer(tmp_path: Path) -> None:
    text = """
        from pathlib import Path
        from djl_python import Output
        def handle(inputs):
            if inputs.is_empty():
                return None
            return Output().add("answer").finalize(Path("done").write_text, "yes")
    """
    with served(tmp_path, text) as calls:
        assert calls.ask().body == b"answer"
        until(lambda: (tmp_path / "done").exists())


def test_async_calls_run_at_the_same_time_in_one_worker(tmp_path: Path) -> None:
    text = """
        import asyncio
        met = asyncio.Event()
        waiting = 0
        async def handle(inputs):
            global waiting
            if inputs.is_empty():
                return None
            waiting += 1
            if waiting == 8:
                met.set()
            await met.wait()
            return inputs.get_as_string()
    """
    with served(tmp_path, text, concurrency=8) as calls:
        assert calls.function.info.concurrency == 8
        answers = calls.wait(*[calls.start(b"%d" % number) for number in range(8)])
    assert [answer.body for answer in answers] == [b"%d" % number for number in range(8)]


def test_another_function_of_the_module_can_be_asked_by_name(tmp_path: Path) -> None:
    text = """
        def predict(inputs):
            return None if inputs.is_empty() else "predicted"
        def register_adapter(inputs):
            return "registered"
    """
    with served(tmp_path, text, handler="predict") as calls:
        assert calls.ask().body == b"predicted"
        assert calls.ask(function="register_adapter").body == b"registered"
        answer = calls.ask(function="absent")
    assert answer.status == 424
    assert b"no function 'absent'" in answer.body


# Workers that end


def test_a_killed_worker_is_noticed_within_a_second_and_replaced(tmp_path: Path) -> None:
    text = """
        import time
        def handle(inputs):
            if inputs.is_empty():
                return None
            if inputs.get_as_string() == "hang":
                time.sleep(600)
            return "fine"
    """
    with served(tmp_path, text) as calls:
        hung, waiting = calls.start(b"hang"), calls.start(b"next")
        until(lambda: calls.function.stats().running == 1)
        (pid,) = pool_of(calls).pids
        began = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        answer = calls.wait(hung)
        assert time.monotonic() - began < 1.0
        assert isinstance(answer.error, EngineDead)
        assert "SIGKILL" in str(answer.error)
        assert calls.wait(waiting).body == b"fine"
        assert calls.function.stats().restarts == 1
        assert not psutil.pid_exists(pid)


def test_a_worker_that_ends_itself_says_so_with_its_last_words(tmp_path: Path) -> None:
    text = """
        import os, sys
        def handle(inputs):
            if not inputs.is_empty():
                print("about to leave", file=sys.stderr, flush=True)
                os._exit(7)
    """
    with served(tmp_path, text) as calls:
        answer = calls.ask()
    assert "exit code 7; its last words: about to leave" in str(answer.error)


def test_what_a_worker_said_before_its_end_counts(tmp_path: Path) -> None:
    text = """
        import os
        from djl_python import Output
        def handle(inputs):
            if inputs.is_empty():
                return None
            return Output().add(b"x" * 3_000_000).finalize(os._exit, 0)
    """
    with served(tmp_path, text) as calls:
        for lives in range(1, 4):
            answer = calls.ask()
            assert (len(answer.body), answer.error) == (3_000_000, None)
            # Not before: a call that is given to a worker on its way out is lost with it.
            until(lambda lives=lives: calls.function.stats().restarts == lives)


def test_a_death_is_noticed_though_a_child_keeps_the_socket_open(tmp_path: Path) -> None:
    text = """
        import os, time
        def handle(inputs):
            if inputs.is_empty():
                return None
            if os.fork() == 0:
                time.sleep(600)
            open("forked", "w").close()
            time.sleep(600)
    """
    with served(tmp_path, text) as calls:
        number = calls.start()
        until((tmp_path / "forked").exists)
        (pid,) = pool_of(calls).pids
        children = psutil.Process(pid).children()
        os.kill(pid, signal.SIGKILL)
        began = time.monotonic()
        assert isinstance(calls.wait(number).error, EngineDead)
        assert time.monotonic() - began < 1.5
        psutil.wait_procs(children, timeout=5)
        assert not [child for child in children if child.is_running()]


def test_a_hung_call_is_ended_answered_and_its_worker_replaced(tmp_path: Path) -> None:
    text = """
        import time
        def handle(inputs):
            if inputs.is_empty():
                return None
            while inputs.get_as_string() == "hang":
                time.sleep(1)
            return "fine"
    """
    with served(tmp_path, text, predict_timeout=0.3) as calls:
        answer = calls.ask(b"hang")
        assert isinstance(answer.error, DeadlineExceeded)
        assert "0.3 s" in str(answer.error)
        assert calls.ask(b"next").body == b"fine"


def test_a_hung_async_call_harms_no_other(tmp_path: Path) -> None:
    text = """
        import asyncio
        async def handle(inputs):
            if inputs.is_empty():
                return None
            if inputs.get_as_string() == "hang":
                await asyncio.sleep(600)
            return "fine"
    """
    with served(tmp_path, text, predict_timeout=0.3) as calls:
        pids = pool_of(calls).pids
        assert isinstance(calls.ask(b"hang").error, DeadlineExceeded)
        assert calls.ask(b"next").body == b"fine"
        assert pool_of(calls).pids == pids
        until(lambda: calls.function.stats().running == 0)
        assert not pool_of(calls)._left


def test_a_stream_that_goes_on_slowly_is_not_hung(tmp_path: Path) -> None:
    text = """
        import time
        def handle(inputs):
            return None if inputs.is_empty() else items()
        def items():
            for step in range(6):
                time.sleep(0.1)
                yield str(step)
    """
    with served(tmp_path, text, predict_timeout=0.4) as calls:
        answer = calls.ask()
    assert (answer.body, answer.error) == (b"012345", None)


def test_a_worker_that_cannot_come_back_is_given_up(tmp_path: Path) -> None:
    text = """
        import os, pathlib
        if pathlib.Path("used").exists():
            raise ImportError("the disk is gone")
        def handle(inputs):
            if not inputs.is_empty():
                pathlib.Path("used").touch()
                os._exit(1)
    """
    with served(tmp_path, text, restart_limit=2) as calls:
        assert isinstance(calls.ask().error, EngineDead)
        waiting = calls.start()
        assert "the disk is gone" in str(calls.wait(waiting).error)
        with pytest.raises(EngineDead, match="the disk is gone"):
            calls.function.poll(PATIENCE)
        with pytest.raises(EngineDead):
            calls.start()


def test_closing_ends_every_process_even_a_busy_one(tmp_path: Path) -> None:
    with served(tmp_path, ECHO, workers=2) as calls:
        pids = pool_of(calls).pids
        assert len(pids) == 2
    assert not [pid for pid in pids if psutil.pid_exists(pid)]


def test_workers_end_with_a_front_that_is_killed(tmp_path: Path) -> None:
    front = f"""
import time
from pathlib import Path
from lmi.custom import FunctionSpec, load_function
function = load_function(FunctionSpec("m", Path({str(write_model(tmp_path, ECHO))!r})))
print(*function.pids, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", front], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert psutil.pid_exists(pid)
        process.kill()
    until(lambda: not psutil.pid_exists(pid))


# Cancellation


def test_a_cancelled_call_that_waits_is_dropped(tmp_path: Path) -> None:
    text = """
        import time
        from pathlib import Path
        def handle(inputs):
            if inputs.is_empty():
                return None
            Path(inputs.get_as_string()).touch()
            while not Path("go").exists():
                time.sleep(0.01)
            return "done"
    """
    with served(tmp_path, text) as calls:
        first, second = calls.start(b"first"), calls.start(b"second")
        calls.function.cancel(second)
        assert isinstance(calls.wait(second).error, RequestError)
        (tmp_path / "go").touch()
        assert calls.wait(first).body == b"done"
    assert not (tmp_path / "second").exists()


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_cancelled_stream_closes_its_generator(tmp_path: Path, kind: str) -> None:
    sleep = "await asyncio.sleep(0.001)" if kind == "async def" else "time.sleep(0.001)"
    text = f"""
        import asyncio, time
        from pathlib import Path
        {kind} handle(inputs):
            return None if inputs.is_empty() else items()
        {kind} items():
            try:
                while True:
                    yield "x"
                    {sleep}
            finally:
                Path("closed").touch()
    """
    with served(tmp_path, text) as calls:
        number = calls.start()
        until(lambda: calls.take(0.05) or bool(calls.answers[number].pieces))
        calls.function.cancel(number)
        calls.wait(number)
        until((tmp_path / "closed").exists)
        assert calls.function.stats().running == 0
        assert not pool_of(calls)._left  # nothing is remembered of a call that is over


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_stream_waits_for_a_reader_that_does_not_read(tmp_path: Path, kind: str) -> None:
    text = f"""
        from pathlib import Path
        {kind} handle(inputs):
            return None if inputs.is_empty() else items()
        {kind} items():
            for step in range(100):
                Path("made").write_text(str(step))
                yield b"x" * 100_000
    """
    with served(tmp_path, text) as calls:
        number = calls.start()
        made = tmp_path / "made"

        def count() -> int:
            return int(made.read_text() or 0) if made.exists() else 0

        until(lambda: count() >= 9)  # each is a tenth of the window
        settled = -1
        while (now := count()) != settled:
            settled = now
            time.sleep(0.2)
        assert settled < 30  # of 100
        assert len(calls.wait(number).body) == 10_000_000


# Batches

BATCHED = """
    from djl_python import Output
    def handle(inputs):
        if inputs.is_empty():
            return None
        batch = inputs.get_batches()
        texts = [each.get_as_string() for each in batch]
        if "boom" in texts:
            raise ValueError("a bad one")
        output = Output()
        for index, each in enumerate(batch):
            value = f"{each.get_as_string()} of {len(batch)} {each.get_property('X-N')}"
            if inputs.is_batch():
                output.add(value, batch_index=index)
            else:
                output.add(value)
        return output
"""


def test_calls_that_come_together_are_one_batch(tmp_path: Path) -> None:
    with served(tmp_path, BATCHED, batch_size=4, max_batch_delay=20.0) as calls:
        numbers = [calls.start(b"%d" % n, properties={"x-n": str(n)}) for n in range(4)]
        answers = calls.wait(*numbers)
    assert [answer.body.decode() for answer in answers] == [f"{n} of 4 {n}" for n in range(4)]


def test_a_batch_that_is_not_full_goes_after_its_delay(tmp_path: Path) -> None:
    with served(tmp_path, BATCHED, batch_size=4, max_batch_delay=0.05) as calls:
        answers = calls.wait(calls.start(b"a"), calls.start(b"b"))
        assert [answer.body for answer in answers] == [b"a of 2 None", b"b of 2 None"]
        assert calls.ask(b"c").body == b"c of 1 None"


def test_a_batch_that_fails_is_an_error_for_each_of_it(tmp_path: Path) -> None:
    with served(tmp_path, BATCHED, batch_size=2, max_batch_delay=20.0) as calls:
        answers = calls.wait(calls.start(b"boom"), calls.start(b"b"))
        assert [answer.status for answer in answers] == [424, 424]
        answers = calls.wait(calls.start(b"a"), calls.start(b"b"))
        assert [answer.status for answer in answers] == [200, 200]


# Several workers


def test_several_workers_work_at_once_and_more_come_with_a_queue(tmp_path: Path) -> None:
    text = """
        import os, time
        from pathlib import Path
        def handle(inputs):
            if inputs.is_empty():
                return None
            Path(f"busy{os.getpid()}").touch()
            while not Path("go").exists():
                time.sleep(0.01)
            return str(os.getpid())
    """
    with served(tmp_path, text, workers=2, max_workers=3, max_idle=0.1) as calls:
        numbers = [calls.start() for _ in range(6)]
        until(lambda: len(list(tmp_path.glob("busy*"))) == 3)
        (tmp_path / "go").touch()
        answers = calls.wait(*numbers)
        assert len({answer.body for answer in answers}) == 3
        until(lambda: calls.function.stats().workers == 2)


# Loading


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("import absent_module", ModelError, "model.py:1: ModuleNotFoundError"),
        ("def handle(:", ModelError, "model.py:1: SyntaxError"),
        ("import sys\nsys.exit(3)", ModelError, "model.py:2: SystemExit: 3"),
        (
            "def handle():\n    pass",
            ConfigError,
            r"handle\(\).*model.py:1.*handle\(inputs: Input\)",
        ),
        ("x = 1", ConfigError, "no such function; expected handle"),
        ("def handle(inputs):\n    1 / 0", ModelError, "initialise call: ZeroDivisionError"),
        ("def handle(inputs):\n    raise MemoryError('80 GiB')", OutOfMemory, "80 GiB"),
        (
            "from djl_python import Output\n"
            "def handle(inputs):\n    return Output().error('no weights')",
            ModelError,
            "answered 424 .*no weights",
        ),
        ("def model_fn(path):\n    pass", ConfigError, r"expected model_fn\(model_dir\)"),
        ("import os\nos._exit(3)", EngineDead, "exit code 3"),
    ],
)
def test_a_handler_that_cannot_be_loaded_says_why(
    tmp_path: Path, text: str, error: type[LmiError], said: str
) -> None:
    spec = FunctionSpec("m", write_model(tmp_path, text))
    with pytest.raises(error, match=said) as caught:
        load_function(spec)
    assert len(str(caught.value).splitlines()) == 1
    assert not psutil.Process().children()


def test_a_load_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    spec = FunctionSpec("m", write_model(tmp_path, "while True: pass"), loading_timeout=0.3)
    with pytest.raises(EngineDead, match=r"not ready after 0.3 s"):
        load_function(spec)
    assert not psutil.Process().children()


def test_an_interpreter_that_is_not_there_is_named(tmp_path: Path) -> None:
    spec = FunctionSpec("m", write_model(tmp_path, ECHO), python="/no/such/python")
    with pytest.raises(EngineDead, match="/no/such/python can't be started: No such file"):
        load_function(spec)


def test_a_file_of_the_model_does_not_hide_a_module_of_ours(tmp_path: Path) -> None:
    (tmp_path / "msgspec.py").write_text("raise ImportError('not this one')")
    (tmp_path / "shapes.py").write_text("side = 4")
    text = """
        import shapes
        def handle(inputs):
            return None if inputs.is_empty() else str(shapes.side)
    """
    with served(tmp_path, text) as calls:
        assert calls.ask().body == b"4"


def test_sagemakers_functions_are_a_handler(tmp_path: Path) -> None:
    text = """
        import json
        def model_fn(model_dir):
            return 3
        def input_fn(request_body, request_content_type):
            return json.loads(request_body)["x"]
        def predict_fn(input_data, model):
            return input_data * model
        def output_fn(prediction, accept):
            return f"{prediction} as {accept}"
    """
    with served(tmp_path, text) as calls:
        answer = calls.ask(b'{"x": 5}', properties={"accept": "text/plain"})
    assert (answer.body, answer.content_type) == (b"15 as text/plain", "text/plain")


def test_a_model_function_alone_reads_and_writes_json(tmp_path: Path) -> None:
    text = "def model_fn(model_dir):\n    return sum"
    with served(tmp_path, text) as calls:
        assert calls.ask(b"[1, 2, 3]").body == b"6"


def test_an_answer_of_many_megabytes_arrives(tmp_path: Path) -> None:
    with served(tmp_path, ECHO) as calls:
        body = os.urandom(1 << 20) * 20
        assert calls.ask(body).body == body
