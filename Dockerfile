# One image for the meter, authz and Envoy: docker-compose.yml gives each its command.
# docs/operations.md says how it is run, and how far this file has been checked.

# Deployments that want a fixed base name it by digest: --build-arg PYTHON_IMAGE=python@sha256:...
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
# The same uv as in the Makefile.
ARG UV_VERSION=0.13.9
RUN pip install --no-cache-dir --disable-pip-version-check "uv==${UV_VERSION}"
ENV UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_PYTHON_DOWNLOADS=never
WORKDIR /app
# The locked packages change less often than the source: a layer of their own.
COPY pyproject.toml uv.lock ./
RUN uv sync --frozen --no-dev --extra envoy --no-install-project
COPY README.md LICENSE ./
COPY authz authz
COPY meter meter
COPY tollkeeper tollkeeper
COPY envoy envoy
RUN uv sync --frozen --no-dev --extra envoy --no-editable

FROM ${PYTHON_IMAGE} AS run
LABEL org.opencontainers.image.title="Tollkeeper" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/app/.venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# Volumes take the owner of the folder that they are mounted on.
RUN groupadd --gid 10001 tollkeeper \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent \
        --shell /usr/sbin/nologin tollkeeper \
    && install -d -o 10001 -g 10001 -m 0700 /run/tollkeeper /var/log/tollkeeper
COPY --from=build /app/.venv /app/.venv
WORKDIR /app
USER 10001:10001
EXPOSE 8080 8081
# Each part drains on it: python -m meter, python -m authz, tollkeeper envoy.
STOPSIGNAL SIGTERM
# A container of this image alone serves the meter; compose asks each part about itself.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD ["tollkeeper", "health", "meter"]
CMD ["python", "-m", "meter"]
