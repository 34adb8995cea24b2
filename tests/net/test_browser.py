"""Pages in a real browser: what those of an allowed origin may do, and that those of any other one may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.net.conftest import MakeGateway
from tests.net.support import RawClient
from tests.support.browser import Pages, browsing, find_chromium
from tests.support.certificates import OPENSSL, make_certificate, public_key
from tests.support.ports import free_port

CHROMIUM = find_chromium()

# A request that needs no question beforehand is sent, and refused; the page learns as little of it as of the others.
SCRIPT = """
const gateway = "http://127.0.0.1:GATEWAY", seen = {};
if (location.hostname === "127.0.0.1") {
  const frame = document.createElement("iframe");
  frame.src = `http://localhost:${location.port}/`;
  document.documentElement.append(frame);
}
const told = promise => promise.catch(error => error.name);
const headers = {"Authorization": "Bearer key-1", "Content-Type": "application/json"};
const name = location.hostname;
seen.add = await told(fetch(`${gateway}/queue/q/add`, {method: "POST", headers, body: JSON.stringify([name])})
  .then(response => response.json()).then(body => body.ok.name));
seen.simple = await told(fetch(`${gateway}/queue/q/add?token=key-1`, {method: "POST", body: JSON.stringify([name])})
  .then(response => response.status));
seen.get = await told(fetch(`${gateway}/queue/q/getJobCounts?token=key-1`).then(response => response.status));
seen.wrongKey = await told(fetch(`${gateway}/queue/q/count?token=key-2`).then(response => response.status));
seen.event = await new Promise(resolve => {
  const source = new EventSource(`${gateway}/queue/q/events?events=waiting&lastEventId=0-0&token=key-1`);
  source.onmessage = message => {
    resolve([JSON.parse(message.data).event, message.lastEventId === JSON.parse(message.data).args[1]]);
    source.close();
  };
  source.onerror = () => resolve(["no stream", source.readyState === EventSource.CLOSED]);
});
seen.socket = await new Promise(resolve => {
  const socket = new WebSocket(`ws://127.0.0.1:GATEWAY/queue/q?token=key-1`);
  socket.onopen = () => resolve("open");
  socket.onerror = () => resolve("refused");
});
return seen;
"""


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is missing: no page is tried in a browser")
async def test_pages_of_an_allowed_origin_call_and_watch_and_others_do_neither(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    assert CHROMIUM is not None
    port = free_port()
    async with Pages(SCRIPT.replace("GATEWAY", str(port))) as pages:
        gateway = await make_gateway(port=port, allowed_origins=(f"http://127.0.0.1:{pages.port}",))
        async with browsing(CHROMIUM, f"http://127.0.0.1:{pages.port}/", tmp_path):
            seen = await pages.seen(2)
        assert seen == {
            "127.0.0.1": {
                "add": "127.0.0.1",
                "simple": 200,
                "get": 200,
                "wrongKey": 401,
                "event": ["waiting", True],
                "socket": "open",
            },
            "localhost": {
                "add": "TypeError",
                "simple": "TypeError",
                "get": "TypeError",
                "wrongKey": "TypeError",
                "event": ["no stream", True],
                "socket": "refused",
            },
        }
        async with await RawClient.connect(gateway.port) as client:
            counts = await client.fetch("GET", "/queue/q/count")
            assert counts.body == b'{"ok":2}'


SECURE = """
const seen = {};
const told = promise => promise.catch(error => error.name);
const headers = {"Authorization": "Bearer key-1"};
for (const port of [TRUSTED, STRANGE]) {
  const place = `localhost:${port}/queue/q`;
  seen[port] = [
    await told(fetch(`https://${place}/add`, {method: "POST", headers, body: '["secret"]'})
      .then(response => response.json()).then(body => body.ok.name)),
    await new Promise(resolve => {
      const source = new EventSource(`https://${place}/events?events=waiting&lastEventId=0-0&token=key-1`);
      source.onmessage = message => { resolve(JSON.parse(message.data).event); source.close(); };
      source.onerror = () => { resolve("no stream"); source.close(); };
    }),
    await new Promise(resolve => {
      const socket = new WebSocket(`wss://${place}?token=key-1`);
      socket.onopen = () => socket.send('{"id":1,"data":{"fn":"count"}}');
      socket.onmessage = message => resolve(JSON.parse(message.data).data.ok);
      socket.onerror = () => resolve("refused");
    }),
  ];
}
return seen;
"""


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is missing: no page is tried in a browser")
@pytest.mark.skipif(OPENSSL is None, reason="openssl is not installed")
async def test_a_page_speaks_tls_with_a_gateway_whose_certificate_it_trusts(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    assert CHROMIUM is not None
    ports = {name: free_port() for name in ("trusted", "strange")}
    script = SECURE.replace("TRUSTED", str(ports["trusted"])).replace("STRANGE", str(ports["strange"]))
    async with Pages(script) as pages:
        for name, port in ports.items():
            certificate = make_certificate(tmp_path, name)
            tls = {"tls_cert": str(certificate), "tls_key": str(certificate.with_suffix(".key"))}
            await make_gateway(port=port, allowed_origins=(f"http://127.0.0.1:{pages.port}",), **tls)
        trust = f"--ignore-certificate-errors-spki-list={public_key(tmp_path / 'trusted.pem')}"
        async with browsing(CHROMIUM, f"http://127.0.0.1:{pages.port}/", tmp_path / "profile", trust):
            seen = await pages.seen(1)
    assert seen["127.0.0.1"] == {
        str(ports["trusted"]): ["secret", "waiting", 1],
        str(ports["strange"]): ["TypeError", "no stream", "refused"],
    }
