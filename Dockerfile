# The service in a container: CPU by default, `--build-arg ENGINE=gpu` for NVIDIA. No torch in either.
# The base is an argument so that a mirrored or home-made image of the same Python can stand in.
ARG PYTHON_IMAGE=python:3.11-slim

FROM ${PYTHON_IMAGE} AS build
ARG ENGINE=cpu
# More of pyproject.toml's optional dependencies, with spaces between: `--build-arg EXTRAS="milvus s3"`.
ARG EXTRAS=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# Without pip: the image installs nothing after it is built.
RUN python -m venv --without-pip /opt/bindery
WORKDIR /src

# Dependencies first, from pyproject.toml itself, so that a change of code does not install them again.
# A package index behind a mirror or a private CA: `docker build --secret id=pipconf,src=... --secret id=ca,src=...`
# (see docs/deploy.md). Secrets are mounts of one step; nothing of them is in any layer, and without them the step runs as it is.
COPY pyproject.toml constraints.txt ./
RUN --mount=type=secret,id=pipconf,target=/etc/pip.conf \
    --mount=type=secret,id=ca,target=/etc/ssl/certs/private-ca.pem \
    python -c 'import sys, tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; print(*p["dependencies"], *(d for e in sys.argv[1:] for d in p["optional-dependencies"][e]), sep="\n")' \
      "$ENGINE" $EXTRAS > requirements.txt \
 && pip --python /opt/bindery/bin/python install --constraint constraints.txt --requirement requirements.txt

COPY README.md LICENSE NOTICE ./
COPY bindery bindery
COPY service service
# The commands for training and export need torch, which this image has not.
RUN --mount=type=secret,id=pipconf,target=/etc/pip.conf \
    --mount=type=secret,id=ca,target=/etc/ssl/certs/private-ca.pem \
    pip wheel --no-deps --constraint constraints.txt --wheel-dir /dist . \
 && pip --python /opt/bindery/bin/python install --no-deps /dist/*.whl \
 && rm -f /opt/bindery/bin/bindery-train /opt/bindery/bin/bindery-export

# What only a developer of numpy and the like needs: about a tenth of the packages.
RUN find /opt/bindery -type d \( -name tests -o -name include \) -path '*/site-packages/*' -prune -exec rm -rf {} + \
 && find /opt/bindery -name '*.pyi' -delete


FROM ${PYTHON_IMAGE}
ARG ENGINE=cpu
LABEL org.opencontainers.image.title="bindery" \
      org.opencontainers.image.description="Embeddings of text, image, video, audio, depth and thermal in one space" \
      org.opencontainers.image.licenses="Apache-2.0 AND GPL-2.0-or-later" \
      bindery.engine="${ENGINE}"

RUN groupadd --gid 10001 bindery \
 && useradd --uid 10001 --gid bindery --no-create-home --home-dir /tmp --shell /usr/sbin/nologin bindery \
 && install -d -o bindery -g bindery /data /bundles
COPY --from=build /opt/bindery /opt/bindery
# CUDA comes as packages (gpu only): the loader must find it without an environment variable. On cpu the list is empty.
RUN find /opt/bindery -type d -path '*/nvidia/*' -name lib > /etc/ld.so.conf.d/bindery.conf && ldconfig

ENV PATH=/opt/bindery/bin:$PATH \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    BINDERY_HOST=0.0.0.0 BINDERY_PORT=8000 \
    BINDERY_DATA_DIR=/data BINDERY_BUNDLES_DIR=/bundles \
    BINDERY_LOG_JSON=true
USER 10001:10001
WORKDIR /data
VOLUME ["/data", "/bundles"]
EXPOSE 8000
STOPSIGNAL SIGTERM
# Without curl, and without a proxy in the way.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
  CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['BINDERY_PORT']), timeout=4); c.request('GET', '/readyz'); sys.exit(c.getresponse().status != 200)"]
# Exec form: the server is process 1 and gets SIGTERM itself, finishes what it accepted and ends.
CMD ["bindery", "serve"]
