# The service as an image: no compiler, no pip cache, no root; the root file system may be
# read-only, but for /tmp. Mount the settings and the catalog at /etc/extauthz; in the settings,
# listen.grpc must name an address that the container's network reaches, like 0.0.0.0:9001.
#
# It is served by the Envoy that is inside. To serve with grpcio, give other arguments:
#   serve --config /etc/extauthz/extauthz.yaml --host grpcio
#
# A private package index or its certificate reaches the build as a secret, and no layer:
#   --secret id=pip_conf,src=pip.conf --secret id=pip_ca,src=ca.pem
# (the certificate is then at /run/secrets/pip_ca; say so in pip.conf: cert = /run/secrets/pip_ca)
#
# The logic of a decision is compiled (docs/adr/0023), by a gcc of the distribution that only the
# first stage has. --build-arg COMPILED=0 leaves it Python, and needs no gcc.
#
# Another BASE must have Python 3.11 with venv, with its shared library for the Envoy that is inside,
# and with its headers for the compiler. A plain Debian has them with python3-venv and python3-dev.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ARG COMPILED=1
WORKDIR /src
RUN if [ "$COMPILED" = 1 ]; then \
        apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev; \
    fi
RUN python3 -m venv /opt/build && python3 -m venv --without-pip /opt/extauthz
COPY requirements.txt requirements-build.txt ./
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    --mount=type=secret,id=pip_ca \
    /opt/build/bin/python -m pip install --no-cache-dir --require-hashes -r requirements-build.txt \
    && /opt/build/bin/python -m pip --python /opt/extauthz/bin/python install --no-cache-dir \
        --no-compile --require-hashes -r requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY extauthz extauthz
COPY mixer_compat mixer_compat
# Byte code is made here, once: the running container may not write. unchecked-hash, because a
# layer's time stamps need not survive a copy.
RUN HATCH_BUILD_HOOK_ENABLE_MYPYC=$COMPILED /opt/build/bin/hatchling build --target wheel --directory /dist \
    && /opt/build/bin/python -m pip --python /opt/extauthz/bin/python install --no-cache-dir \
        --no-compile --no-deps --no-index /dist/*.whl \
    && /opt/extauthz/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/extauthz/lib

FROM ${BASE}
ARG VERSION=dev
LABEL org.opencontainers.image.title="extauthz" \
      org.opencontainers.image.description="API management for a service mesh, decided for Envoy" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
COPY --from=build /opt/extauthz /opt/extauthz
ENV PATH=/opt/extauthz/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /etc/extauthz
# Numeric, so that Kubernetes' runAsNonRoot can see that it is not root.
USER 65532:65532
# ext_authz, and Mixer's door where the settings open it.
EXPOSE 9001 44225
STOPSIGNAL SIGTERM
# No HEALTHCHECK: orchestrators ask grpc.health.v1 on the port itself, and one here would start an
# interpreter every few seconds.
ENTRYPOINT ["extauthz"]
CMD ["serve", "--config", "/etc/extauthz/extauthz.yaml", "--host", "envoy"]
