# Telltale in one image for both services: the web server (default command) and the worker (see docker-compose.yml).
# Python 3.11 to 3.13 work; 3.12 is what this image is made with.

FROM python:3.12-slim-bookworm AS build
WORKDIR /app
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
# requirements-serve.txt makes an image without torch, 5 GB smaller: no closer look, no GPU.
ARG REQUIREMENTS=requirements.txt
COPY requirements*.txt ./
RUN pip install --no-cache-dir --disable-pip-version-check -r ${REQUIREMENTS} \
    && pip install --no-cache-dir --disable-pip-version-check --no-deps -r requirements-voices.txt
# Only what the base weights need, so that a change elsewhere does not download them again.
COPY config.ini ./
COPY utils utils
COPY models models
# Readable for the user that serves, whatever mode the files were written with.
RUN python -m utils.base_weights && chmod -R a+rX trained_models

FROM python:3.12-slim-bookworm
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
RUN useradd --system --uid 10001 --home-dir /app --shell /usr/sbin/nologin telltale \
    && install -d -o telltale -g telltale /app/instance
COPY --from=build /opt/venv /opt/venv
COPY config.ini inference.py ./
COPY models models
COPY utils utils
COPY web_app web_app
COPY docs/openapi.json docs/
COPY trained_models trained_models
COPY --from=build /app/trained_models/base trained_models/base
USER telltale
VOLUME /app/instance
EXPOSE 5000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:5000/api/health', timeout=4)"]
# The worker is a service of its own.
CMD ["python", "-m", "web_app", "serve", "--host=0.0.0.0", "--no-worker"]
