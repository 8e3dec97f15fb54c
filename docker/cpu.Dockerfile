# The image for machines without an accelerator: make image, or
#   docker build -f docker/cpu.Dockerfile -t lmi:cpu .
#
# BASE: any Debian or Ubuntu whose python3 is CPython 3.11. TORCH_LINKS: the address of a page of
# CPU wheels of torch; it saves 4 GB. SET: `test` has vLLM's build for processors and the libraries of
# the stock handlers too, with the developers' tools. DJL_SERVING: the address of the package
# djl-serving_*_all.deb; with it the image serves behind the DJL model server. What must stay out of the layers and of the history comes as
# secrets: `apt` (a piece of apt.conf), `ca` (certificates), `sources` (a piece of shell that
# exports UV_DEFAULT_INDEX, PIP_INDEX_URL, SSL_CERT_FILE=/run/secrets/ca and so on).
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS python
ARG DEBIAN_FRONTEND=noninteractive
RUN --mount=type=secret,id=apt,target=/etc/apt/apt.conf.d/99build \
    apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/*

FROM python AS build
ARG DEBIAN_FRONTEND=noninteractive
RUN --mount=type=secret,id=apt,target=/etc/apt/apt.conf.d/99build \
    apt-get update && apt-get install -y --no-install-recommends g++ python3-venv
WORKDIR /opt/lmi
COPY pyproject.toml setup.py README.md LICENSE ./
COPY locks locks
COPY tools/setup.py tools/setup.py
COPY lmi/__init__.py lmi/__init__.py
COPY lmi/dist/native lmi/dist/native
COPY handlers handlers
# A running container can't write beside the sources: the byte code is made here. Its time-out is
# raised from 60 s a file, which a busy builder may need.
ARG TORCH_LINKS=
ARG SET=serve
RUN --mount=type=secret,id=ca --mount=type=secret,id=sources \
    if [ -f /run/secrets/sources ]; then . /run/secrets/sources; fi \
    && export LMI_TORCH_LINKS="${TORCH_LINKS}" LMI_NATIVE_TARGETS=all UV_NO_CACHE=1 PIP_NO_CACHE_DIR=1 \
        UV_COMPILE_BYTECODE=1 UV_COMPILE_BYTECODE_TIMEOUT=900 \
    && python3 tools/setup.py "${SET}"
COPY lmi lmi
RUN python3 -m compileall -q lmi

FROM python
ARG DEBIAN_FRONTEND=noninteractive
ARG DJL_SERVING=
RUN --mount=type=secret,id=apt,target=/etc/apt/apt.conf.d/99build --mount=type=secret,id=ca \
    --mount=type=secret,id=sources \
    if [ -n "${DJL_SERVING}" ]; then \
        if [ -f /run/secrets/sources ]; then . /run/secrets/sources; fi \
        && python3 -c 'import sys; from urllib.request import urlretrieve; urlretrieve(*sys.argv[1:])' \
            "${DJL_SERVING}" /tmp/djl-serving.deb \
        && apt-get update \
        && apt-get install -y --no-install-recommends openjdk-17-jre-headless /tmp/djl-serving.deb \
        && rm -rf /tmp/djl-serving.deb /var/lib/apt/lists/*; \
    fi
LABEL org.opencontainers.image.title="lmi" \
      org.opencontainers.image.description="A folder with a serving.properties becomes a large-model endpoint" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --uid 1000 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin lmi \
    && mkdir -p /opt/ml/model
COPY --from=build /opt/lmi /opt/lmi
COPY docker/config.properties /opt/djl/conf/config.properties
COPY docker/entrypoint.sh /usr/local/bin/entrypoint.sh
# Everything that is written goes below /tmp: with --read-only, give it a tmpfs or a volume there.
ENV PATH=/opt/lmi/.venv/bin:${PATH} \
    MODEL_SERVER_HOME=/opt/djl \
    DJL_CACHE_DIR=/tmp/.djl.ai \
    HF_HOME=/tmp/.cache/huggingface \
    XDG_CACHE_HOME=/tmp/.cache \
    PYTHONUNBUFFERED=1
USER 1000
WORKDIR /tmp
EXPOSE 8080
# A model may load for minutes; until then a red /ping is no failure.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20m --retries=3 \
    CMD ["python", "-ISc", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8080/ping', timeout=4)"]
ENTRYPOINT ["/usr/local/bin/entrypoint.sh"]
CMD ["serve"]
