"""Where the keys of tokens come from: a file that a reload reads again, or a URL that is asked now and then.

A URL is asked in a thread, for a limited time and size. Until it has answered once no token can be verified; later the
keys that were read last stay in force for as long as it does not answer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from bullmq_proxy.gateway.access.token_keys import (
    LARGEST_SET,
    TokenKeys,
    TokenKeysError,
    parse_keys,
    read_token_keys,
    require_library,
)
from bullmq_proxy.gateway.values.token_bucket import TokenBucket

log = logging.getLogger(__name__)

REFRESH: Final = 600.0
"""Seconds after which a URL is asked again."""
FIRST_RETRY: Final = 1.0
"""Seconds after which it is asked again when it has not answered; each further pause is twice as long."""
LONGEST_RETRY: Final = 60.0
TIMEOUT: Final = 5.0
"""Seconds for an answer of a URL; a shard waits so long with its start at most."""
ASKING_RATE: Final = 0.1
"""Questions a second to a URL because of ids that are not known, after the first few."""
_FIRST_FEW: Final = 4
_AGAIN: Final = 10.0  # s for which the answer counts that there is no key of an id
_REMEMBERED: Final = 1000  # ids that were asked for
_CHUNK: Final = 2**14  # bytes


class TokenSource:
    """The keys in force, and how others take their place.

    Attributes:
        keys: None before a URL has answered for the first time.
    """

    def __init__(self, place: str, gone: Callable[[], None]) -> None:
        """Read a file, or prepare to ask a URL.

        Args:
            place: the path or URL.
            gone: is called when keys are not in force any more.

        Raises:
            TokenKeysError: a file cannot be used, or a package is missing.
        """
        require_library()
        self._place = place
        self._is_url = "://" in place
        self._gone = gone
        self._thread: ThreadPoolExecutor | None = None  # of our own: a resolver can keep it for long
        self._fetching: asyncio.Task[None] | None = None
        self._due = 0.0  # when the URL is asked next, in loop time
        self._failures = 0
        self._answered = float("-inf")  # when the last question was put that was answered, in loop time
        self._bucket = TokenBucket()
        self._asked: dict[str | None, float] = {}  # when somebody came with an id that is not known
        self.keys: TokenKeys | None = None
        if not self._is_url:
            self._use(read_token_keys(place))

    async def start(self) -> None:
        """Ask a URL for the first time; without an answer the gateway starts all the same, and asks again."""
        if self._is_url:
            self._ask()
            assert self._fetching is not None
            await asyncio.wait([self._fetching])

    async def close(self) -> None:
        """Ask no more."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait([self._fetching])
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)

    def read_again(self) -> None:
        """Read a file again; one that cannot be used changes nothing. A URL is asked soon.

        Raises:
            TokenKeysError: the file cannot be used.
        """
        if self._is_url:
            self._ask()
        else:
            self._use(read_token_keys(self._place))

    def tick(self) -> None:
        """Ask a URL when it is time; called once a second."""
        if self._is_url and asyncio.get_running_loop().time() >= self._due:
            self._ask()

    def may_become_known(self, id: str | None) -> bool:
        """Return whether a key that is not known may be soon, since the URL is asked because of it."""
        if not self._is_url:
            return False
        now = asyncio.get_running_loop().time()
        asked = self._asked.get(id, float("-inf"))
        if now - asked > _AGAIN:
            if len(self._asked) >= _REMEMBERED:
                self._asked.clear()
            self._asked[id] = asked = now
        if asked <= self._answered:  # in the same turn of the loop, at the earliest
            return False
        if not self._is_asking and self._bucket.take(ASKING_RATE, now, seconds=_FIRST_FEW / ASKING_RATE):
            self._ask()
        return True

    def _use(self, keys: TokenKeys) -> None:
        before, self.keys = self.keys, keys
        if before is None or before.fingerprints != keys.fingerprints:
            log.info("token_keys: keys that verify tokens: %d", len(keys))
            for remark in keys.remarks:
                log.warning("token_keys: %s", remark)
        if before is not None and not before.fingerprints <= keys.fingerprints:
            self._gone()

    @property
    def _is_asking(self) -> bool:
        return self._fetching is not None and not self._fetching.done()

    def _ask(self) -> None:
        if not self._is_asking:
            self._fetching = asyncio.create_task(self._fetch(), name="keys of tokens")

    async def _fetch(self) -> None:
        loop = asyncio.get_running_loop()
        self._thread = self._thread or ThreadPoolExecutor(1, "keys of tokens")
        began = loop.time()
        try:
            async with asyncio.timeout(TIMEOUT):
                text = await loop.run_in_executor(self._thread, fetch, self._place)
            self._use(parse_keys(text, self._place, secrets=False))
        except (OSError, ValueError) as error:  # a TokenKeysError is a ValueError, a TimeoutError an OSError
            pause = min(LONGEST_RETRY, FIRST_RETRY * 2.0 ** min(self._failures, 16))
            self._failures += 1
            why = str(error) if isinstance(error, TokenKeysError) else f"{self._place}: {error or 'no answer in time'}"
            log.warning("token_keys: %s; asking again in %g s", why, pause)
        else:
            pause, self._failures, self._answered = REFRESH, 0, began
        self._due = loop.time() + pause


def read_now(place: str) -> TokenKeys:
    """Return the keys of a file or URL, for who starts nothing.

    Raises:
        OSError: the URL does not answer.
        ValueError: the keys cannot be used, or a package is missing.
    """
    if "://" not in place:
        return read_token_keys(place)
    require_library()
    return parse_keys(fetch(place), place, secrets=False)


def fetch(url: str) -> bytes:
    """Return what a URL has, within `TIMEOUT`. Nothing but the URL itself is asked: no redirect is followed.

    Raises:
        OSError: there is no answer, or another one than 200.
        ValueError: it is longer than a set may be.
    """
    from http.client import HTTPException  # noqa: PLC0415 - with all that it imports, only for who needs it
    from urllib.request import HTTPRedirectHandler, build_opener  # noqa: PLC0415

    class NoRedirects(HTTPRedirectHandler):
        def redirect_request(self, *_: object) -> None:
            return None

    deadline, text = time.monotonic() + TIMEOUT, b""
    try:
        with build_opener(NoRedirects()).open(url, timeout=TIMEOUT) as response:
            while chunk := response.read1(_CHUNK):
                text += chunk
                if len(text) > LARGEST_SET:
                    raise TokenKeysError(f"{url}: it is longer than {LARGEST_SET // 1024} KiB")
                if time.monotonic() > deadline:
                    raise TimeoutError
    except HTTPException as error:
        raise OSError(f"no HTTP: {type(error).__name__}") from None
    return text
