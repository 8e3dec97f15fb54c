"""Every example resolves, and where it can be served here, it answers."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys

import httpx
import pytest
import yaml

from lmi.models import Store
from lmi.models.s3 import s3_client
from tests.support.hub import FakeHub, serve
from tests.support.serving import DEMO, OURS, serving

pytestmark = pytest.mark.slow

EXAMPLES = DEMO.parent
MOST_BYTES_OF_THE_DEMO = 8 * 1024 * 1024
# The demo model has less context than the examples'; vLLM would come first, and starts slowly.
SMALL = ("--set", "option.max_model_len=512", "--set", "option.rolling_batch=lmi-dist")


def environ(**more: str) -> dict[str, str]:
    """This process's environment without options, and `more`."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    return {**clean, **more}


def check(*words: str, **more: str) -> dict[str, object]:
    """What `lmi check --json` says of a folder or an environment."""
    done = subprocess.run(
        [sys.executable, "-m", "lmi.cli", "check", "--json", *words],
        env=environ(**more),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["warnings"] == []
    assert isinstance(found, dict)
    return found


def words_of(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [word for word in answer.json()["generated_text"].split() if word.isalpha()]


BODY = {"inputs": "The with statement", "parameters": {"max_new_tokens": 24}}


def demo_files() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in DEMO.iterdir() if path.is_file()}


def test_every_example_has_a_readme_of_three_lines():
    folders = [folder for folder in EXAMPLES.iterdir() if folder.is_dir() and folder != DEMO]
    assert len(folders) >= 6
    for folder in folders:
        lines = (folder / "README.md").read_text().splitlines()
        assert len(lines) == 3, folder
        assert lines[0].startswith("# ")


@pytest.mark.parametrize(
    ("folder", "engine", "model"),
    [
        ("demo", "lmi-dist", "demo"),
        ("hub-id", "vllm", "Qwen/Qwen2.5-0.5B-Instruct"),
        ("s3", "vllm", "s3://my-bucket/models/my-model"),
        ("deepspeed", "deepspeed", "Qwen/Qwen2.5-0.5B-Instruct"),
        ("smoothquant", "deepspeed", "Qwen/Qwen2.5-0.5B-Instruct"),
        ("gptq", "lmi-dist", "Qwen/Qwen2.5-0.5B-Instruct-GPTQ-Int4"),
        ("awq", "lmi-dist", "Qwen/Qwen2.5-0.5B-Instruct-AWQ"),
    ],
)
def test_each_folder_resolves_and_names_its_model(folder, engine, model):
    found = check(str(EXAMPLES / folder))
    assert found["engine"] == engine
    assert str(found["model"]).endswith(model)


def test_the_demo_model_is_small_and_its_card_tells_its_figures(tmp_path):
    assert sum(map(len, demo_files().values())) <= MOST_BYTES_OF_THE_DEMO
    header = Store(tmp_path).inspect(str(DEMO))
    card = (DEMO / "README.md").read_text()
    assert header.architectures == ("LlamaForCausalLM",)
    assert header.dtype == "float16"
    assert header.heads != header.kv_heads
    assert f"{header.parameters:,} parameters" in card
    assert f"{header.max_positions:,} tokens of context" in card
    assert f"{header.vocab_size:,} tokens" in card


def test_the_demo_model_says_what_its_card_shows():
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    card = (DEMO / "README.md").read_text()
    shown = re.findall(r"^greedy( ⏹)?\n\n((?:>.*\n?)+)", card, re.MULTILINE)
    assert len(shown) >= 3
    tokenizer = AutoTokenizer.from_pretrained(DEMO)
    model = AutoModelForCausalLM.from_pretrained(DEMO, dtype=torch.float32)
    for ended, quoted in shown:
        text = "\n".join(line.removeprefix(">").removeprefix(" ") for line in quoted.splitlines())
        prompt, answer = re.fullmatch(r"\*\*(.*?)\*\*(.*)", text, re.DOTALL).groups()
        ids = tokenizer(prompt, return_tensors="pt")
        made = model.generate(**ids, max_new_tokens=60, repetition_penalty=1.1, pad_token_id=1)
        new = made[0, ids["input_ids"].shape[1] :]
        assert tokenizer.decode(new, skip_special_tokens=True).rstrip() == answer.rstrip()
        assert (int(new[-1]) == tokenizer.eos_token_id) == bool(ended)


def test_the_cards_request_is_answered(tmp_path):
    card = (DEMO / "README.md").read_text()
    body = re.search(r"-d '(\{.*\})'", card)
    assert body is not None
    with serving(tmp_path / "log", str(DEMO)) as server:
        answer = httpx.post(f"{server.url}/invocations", content=body[1], timeout=60)
        assert len(words_of(answer)) >= 5


def test_the_hub_example_is_served_from_a_hub(tmp_path):
    hub = FakeHub({"Qwen/Qwen2.5-0.5B-Instruct": demo_files()})
    with serve(hub):
        more = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"}
        arguments = [str(EXAMPLES / "hub-id"), *SMALL]
        with serving(tmp_path / "log", *arguments, environ=more) as server:
            answer = httpx.post(f"{server.url}/invocations", json=BODY, timeout=60)
            assert len(words_of(answer)) >= 5
    assert any("/resolve/" in line and "model.safetensors" in line for line in hub.asked)


def test_the_s3_example_is_served_from_s3(tmp_path, monkeypatch):
    from moto.server import ThreadedMotoServer

    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    try:
        more = {
            "AWS_ENDPOINT_URL": "http://{}:{}".format(*moto.get_host_and_port()),
            "AWS_ACCESS_KEY_ID": "id",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        for name, value in more.items():
            monkeypatch.setenv(name, value)
        s3_client().create_bucket(Bucket="my-bucket")
        Store(tmp_path).put(DEMO, "s3://my-bucket/models/my-model")
        more["SERVING_DOWNLOAD_DIR"] = str(tmp_path / "downloads")
        arguments = [str(EXAMPLES / "s3"), *SMALL]
        with serving(tmp_path / "log", *arguments, environ=more) as server:
            answer = httpx.post(f"{server.url}/invocations", json=BODY, timeout=60)
            assert len(words_of(answer)) >= 5
        assert list((tmp_path / "downloads" / "s3").glob("my-model-*/config.json"))
    finally:
        moto.stop()


def test_the_environment_alone_resolves():
    lines = (EXAMPLES / "environment-only" / "lmi.env").read_text().splitlines()
    found = check(**dict(line.split("=", 1) for line in lines))
    assert found["model"] == "Qwen/Qwen2.5-0.5B-Instruct"


def test_docker_gets_the_folder_the_port_and_a_read_only_disk(tmp_path):
    fake = tmp_path / "docker"
    fake.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    fake.chmod(0o755)
    done = subprocess.run(
        ["sh", EXAMPLES / "docker-run" / "run.sh", EXAMPLES / "hub-id"],
        env=environ(DOCKER=str(fake), PORT="9000"),
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    )
    ran = shlex.join(done.stdout.splitlines())
    assert ran.startswith("run --rm --read-only --tmpfs /tmp:")
    assert "--publish 127.0.0.1:9000:8080" in ran
    assert f"--volume {EXAMPLES / 'hub-id'}:/opt/ml/model:ro lmi:cpu serve" in ran


def test_kubernetes_waits_for_ping_and_for_live_requests():
    text = (EXAMPLES / "kubernetes" / "deployment.yaml").read_text()
    deployment, service = yaml.safe_load_all(text)
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    given = {e["name"]: e["value"] for e in container["env"] if "value" in e}
    found = check(**given)
    assert found["model"] == given["HF_MODEL_ID"]
    assert pod["terminationGracePeriodSeconds"] > int(given["OPTION_DRAIN_SECONDS"])
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/ping", "port": "http"}
    assert container["ports"] == [{"name": "http", "containerPort": 8080}]
    assert container["args"] == ["serve"]
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/tmp"}
    assert service["spec"]["ports"][0]["targetPort"] == "http"
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels == service["spec"]["selector"]


def test_sagemaker_gets_requests_that_its_api_takes():
    from botocore.session import Session
    from botocore.validate import ParamValidator

    role = "arn:aws:iam::123456789012:role/lmi"
    done = subprocess.run(
        [
            *(sys.executable, EXAMPLES / "sagemaker" / "deploy.py", "--dry-run"),
            *("--image", "123456789012.dkr.ecr.eu-west-1.amazonaws.com/lmi:cpu", "--role", role),
            *("--model-data", "s3://bucket/prefix/"),
            *("--env", "HF_MODEL_ID=owner/name", "OPTION_MAX_MODEL_LEN=2048"),
        ],
        env=environ(),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    calls = json.loads(done.stdout)
    api = Session().get_service_model("sagemaker")
    names = {"create_model": "CreateModel", "create_endpoint": "CreateEndpoint"}
    names["create_endpoint_config"] = "CreateEndpointConfig"
    assert [call["call"] for call in calls] == [
        "create_model",
        "create_endpoint_config",
        "create_endpoint",
    ]
    for call in calls:
        shape = api.operation_model(names[call.pop("call")]).input_shape
        report = ParamValidator().validate(call, shape)
        assert not report.has_errors(), report.generate_report()
    found = check(**calls[0]["PrimaryContainer"]["Environment"])
    assert found["model"] == "owner/name"


def test_the_library_example_answers_its_prompts_without_the_server() -> None:
    program = (
        "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0]);"
        "print('IMPORTED', *sys.modules)"
    )
    script = str(EXAMPLES / "library" / "generate.py")
    done = subprocess.run(
        [sys.executable, "-c", program, script, str(DEMO)],
        env=environ(OMP_NUM_THREADS="1"),
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    answers, _, imported = done.stdout.partition("IMPORTED ")
    spoken = re.fullmatch("The with statement(.+)\nA list is(.+)\nRaised when(.+)\n", answers, re.S)
    assert spoken is not None, answers
    for answer in spoken.groups():
        assert len([word for word in answer.split() if word.isalpha()]) > 3, answer
    ours = {".".join(name.split(".")[:2]) for name in imported.split() if name.startswith("lmi.")}
    assert ours == {"lmi.core", "lmi.dist", "lmi.text"}
    assert "transformers" not in imported.split()  # the demo model is one of our own decoder's
