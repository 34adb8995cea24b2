# docker build -t bullmq-proxy .
# docker run -p 8080:8080 -e REDIS_HOST=redis -e REDIS_PORT=6379 -e AUTH_KEYS="$(openssl rand -hex 16)" bullmq-proxy
FROM python:3.13-slim

# Keys and the address of Redis come by environment; nothing is written to disk.
ENV HOST=0.0.0.0 \
    PORT=8080 \
    REDIS_HOST=redis \
    PYTHONUNBUFFERED=1

RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin proxy

WORKDIR /src
COPY . .
RUN pip install --no-cache-dir --require-hashes -r requirements.lock \
  && pip install --no-cache-dir --no-deps . && rm -rf /src/*

USER proxy
WORKDIR /
EXPOSE 8080

HEALTHCHECK --interval=10s --timeout=3s --start-period=15s \
  CMD ["python", "-c", "import os, ssl, urllib.request; tls = 'BULLMQ_PROXY_TLS_CERT' in os.environ; urllib.request.urlopen('http' + 's' * tls + '://127.0.0.1:' + os.environ['PORT'] + '/health', timeout=2, context=ssl._create_unverified_context() if tls else None)"]

# The exec form: signals reach the supervisor, which drains.
STOPSIGNAL SIGTERM
CMD ["bullmq-proxy", "serve"]
