"""One WebSocket connection: frames in, messages to the session. What goes out is in `sending_connection.py`.

The library's protocol, which does no I/O, keeps the state, reads what is no whole text message, and knows the closing
handshake. The socket is ours, without a task or a queue: they cost more than everything else that a message needs.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Sequence
from typing import Final

from websockets.frames import Frame, Opcode, apply_mask  # type: ignore[attr-defined] # compiled, or not
from websockets.protocol import Event, State

from bullmq_proxy.gateway.access.accounts import Account
from bullmq_proxy.gateway.access.grants import Effect
from bullmq_proxy.gateway.net import frames
from bullmq_proxy.gateway.net.ends import OTHER
from bullmq_proxy.gateway.net.penalties import Penalties
from bullmq_proxy.gateway.net.places import KINDS
from bullmq_proxy.gateway.net.sending_connection import LARGE, SendingConnection
from bullmq_proxy.gateway.net.shared import PartialMessage, Shared
from bullmq_proxy.gateway.sessions.interfaces import Session
from bullmq_proxy.gateway.wire.closing import CloseCode
from bullmq_proxy.gateway.wire.endpoints import SessionEndpoint
from bullmq_proxy.gateway.wire.envelope import expires

log = logging.getLogger(__name__)

_TEXT, _BINARY, _CONT, _CLOSE, _PONG = Opcode.TEXT, Opcode.BINARY, Opcode.CONT, Opcode.CLOSE, Opcode.PONG
_OPEN = State.OPEN
_UNAUTHORIZED_TIMEOUT: Final = 1.0  # s when its key is not valid any more: its jobs go back when the socket is closed
_UNTIMED_FRAMES: Final = 4  # between two looks at the clock
_POLICY_TIMEOUT: Final = 1.0  # s then to read the close frame; what is still sent is not looked at
_TINY: Final = 128  # bytes of a fragment that is smaller than any reason to send fragments
_JOBS_WEIGH: Final = 10  # jobs at a time of a worker are as much to do as one more connection
_FRAGMENTS: Final = 1024  # fragments of one message; a frame of no bytes counts towards no size limit
_FIRST_PUSH_DELAY: Final = 0.02  # s; some clients set their handlers a tick after the handshake's answer has come


_TAKING_LATE_MESSAGES: Final = frozenset(code for code in CloseCode if code.takes_late_messages)


class Connection(SendingConnection):
    """The server's end of one connection; the Client of its session."""

    __slots__ = (
        "_fragments",
        "_missing",
        "_owed",
        "_partial",
        "_penalties",
        "_pieces",
        "_reading_paused",
        "_rest",
        "_starting",
        "_weight",
        "session",
    )

    def __init__(self, shared: Shared) -> None:
        """Make a connection."""
        super().__init__(shared)
        self.session: Session | None = None
        self._owed = 0  # bytes of the current frame that the library's parser has not seen yet
        self._pieces: list[bytes] = []  # of a frame that is not whole yet
        self._missing = 0  # bytes until it is, or until there is more to know of it
        self._fragments: list[bytes] = []
        self._weight = 0  # beside that of any connection
        self._partial: PartialMessage | None = None  # a frame or a message that is not whole yet
        self._reading_paused = False  # by the session
        self._rest = b""  # has been read, and waits for its turn or for the session; nothing more is read meanwhile
        self._starting: asyncio.TimerHandle | None = None  # the session has not started yet
        self._penalties: Penalties | None = None  # of messages that are no successful calls

    # The handshake

    def enter(self, account: Account, endpoint: SessionEndpoint, queue: str, effects: Sequence[Effect]) -> None:
        """Count the connection for its key until it is lost, unless it is lost already; raises GatewayError."""
        if not self.is_lost:
            account.enter(self, endpoint, queue, effects)
            self.account, self.place = account, self._shared.places.of(KINDS[endpoint], queue)

    def attach(self, session: Session) -> bool:
        """Hand the connection its session, which it then tells when it is over; False if it is over already."""
        if self.is_lost:
            return False
        self.session = session
        self._weight = (session.work.concurrency or 0) // _JOBS_WEIGH
        if self._weight:
            self._shared.unopened.weigh(self._weight)
        return True

    def opened(self) -> None:
        """Read what came early, now that the handshake is answered.

        The session starts, and may push, once the client has said something since, or a little later: the first push
        must not come in one segment with the answer.
        """
        self._shared.unopened.opened(self)
        if self._end is None and self.place is not None:
            self._shared.opened(self, self.place)
        self.request = None  # with the client's key
        early, self.early = self.early, None
        if self.session is not None and not self._close_code:
            self._starting = self.loop.call_later(_FIRST_PUSH_DELAY, self._start_session)
        self.resume_socket()
        if early:
            self._read_frames(bytes(early))

    def _start_session(self) -> None:
        if self._starting is not None:
            self._starting.cancel()
            self._starting = None
        if self.session is not None and not self._close_code:
            try:
                self.session.start()
            except Exception:
                self._close_for_bug("a session could not start")

    # In

    def data_received(self, data: bytes) -> None:
        """Bytes from the socket."""
        self.heard = True
        if self._end is not None and self._close_code not in _TAKING_LATE_MESSAGES:
            self._pause_for_a_while()  # it may go on with what it was closed for
            if self._close_code == CloseCode.POLICY:
                return
        if self.early is not None:
            self.receive_early(data)
            return
        if self._starting is not None:
            self._start_session()
        if self._rest:
            self._rest += data
        elif self.pinged is not None and frames.is_answer(data) and not self._pieces and not self._owed:
            self.forget_ping()
        else:
            self._read_frames(data)

    def _read_frames(self, data: bytes) -> None:
        """Take the whole text messages, which is nearly everything; leave all else to the library's parser.

        Its parser is right about everything, and costs 4 of the 15 us of an `add`. It must see whole frames from their
        first byte on, so what it is still owed is counted, and a frame of ours that is cut off waits here for its rest.
        """
        if self._pieces:
            self._pieces.append(data)
            self._missing -= len(data)
            self._hold(len(data))
            if self._missing > 0:
                if self._missing > LARGE and self._shared.budget.turns.are_taken:
                    self._shared.read_in_turn(self)
                return
            data = b"".join(self._pieces)
            self._pieces.clear()
            self._let_go()
        at, end = 0, len(data)
        untimed, deadline = _UNTIMED_FRAMES, 0.0
        while at < end:
            if self._reading_paused:
                self._rest = data[at:]
                return
            if self._close_code == CloseCode.POLICY:
                return
            if not untimed:
                now = time.perf_counter()
                if not deadline:
                    deadline = now + self._shared.turn
                elif now >= deadline:
                    self._put_off(data[at:])
                    return
                untimed = _UNTIMED_FRAMES
            untimed -= 1
            if self._owed:
                stop = at + self._owed
            else:
                found = frames.extent(data, at)
                if found is None:
                    self._keep_header(data[at:])
                    return
                start, stop = found
                if self._is_ours(data, at, stop - start):
                    if stop > end:
                        self._keep(data[at:], stop - end)
                        return
                    payload = data[start:stop] if stop - start < LARGE else memoryview(data)[start:stop]
                    self._message(apply_mask(payload, data[start - 4 : start]))
                    at = stop
                    continue
                if frames.is_whole_ping_or_pong(data, at, start, stop) and self.protocol.state is _OPEN:
                    self.penalize()
                    if data[at] == frames.WHOLE_PING:
                        self.answer_ping(apply_mask(data[start:stop], data[start - 4 : start]))
                    at = stop
                    continue
                if data[at] & frames.OPCODE == _CLOSE:  # RFC 6455 §5.4: a control frame may come between fragments
                    self.protocol.current_size = None
            self._owed = max(0, stop - end)
            if self._owed:
                self._hold(end - at)
            self._read_by_library(data[at:stop])
            if not self._owed and not self._fragments:
                self._let_go()
            at = stop

    def _put_off(self, rest: bytes) -> None:
        """Take the rest of what was read in the next turn of the loop: it is the turn of others now."""
        self._rest = rest
        self.pause_socket()
        self._take_rest_soon()

    def _take_rest_soon(self) -> None:
        self._shared.unfinished.add(self, self.take_rest)

    def read_on(self) -> None:
        """Read from the socket again, unless something else forbids it."""
        if not self.is_reading_paused:
            self.resume_socket()

    def take_rest(self) -> None:
        """Go on with what has been read, and then with reading, unless the session has paused that."""
        if not self._reading_paused and self._rest:
            rest, self._rest = self._rest, b""
            self._read_frames(rest)
        if self not in self._shared.long:
            self.read_on()

    def _is_ours(self, data: bytes, at: int, length: int) -> bool:
        """Return whether the frame that begins at `at` is a whole text message, and may come now."""
        return (
            data[at] == frames.WHOLE_TEXT
            and frames.is_masked(data, at)
            and length <= self._shared.max_message_size
            and self.protocol.current_size is None  # not between the fragments of another message
            and (self.protocol.state is _OPEN or self._close_code != 0)
        )

    def _keep(self, beginning: bytes, missing: int) -> None:
        self._pieces.append(beginning)
        self._missing = missing
        self._hold(len(beginning))
        if missing > LARGE and self._partial is not None:
            self._partial.wait_for_room()
            if not self._partial.waits and self._shared.budget.turns.are_taken:
                self._shared.read_in_turn(self)

    def _hold(self, size: int) -> None:
        """Count bytes of a message that is not whole yet."""
        if self._partial is None:
            self._partial = PartialMessage(self, self._shared)
        self._partial.hold(size)

    def _let_go(self) -> None:
        """Count them no more: the message is whole, or will never be."""
        if self._partial is not None:
            self._partial.let_go()
            self._partial = None

    def _keep_header(self, header: bytes) -> None:
        """Keep the beginning of a header; a wrong one is the library's to refuse, with all that follows."""
        if frames.may_be_valid(header) and frames.length_so_far(header) <= self._shared.max_message_size:
            self._keep(header, 1)
        else:
            self._owed = sys.maxsize
            self._read_by_library(header)

    def _read_by_library(self, data: bytes) -> None:
        protocol = self.protocol
        protocol.receive_data(data)
        self.send_data()
        for event in protocol.events_received():
            self.process_event(event)
        if protocol.close_expected():
            if self._end is None and not self._close_code and protocol.close_sent is not None:
                self._log_end(protocol.close_sent.code, protocol.close_sent.reason)
            self.end_within()

    def eof_received(self) -> None:
        """Note that the client will send no more: the transport closes itself, once the client has read."""
        super().eof_received()
        self.end_within()

    def process_event(self, event: Event) -> None:
        """Handle one frame."""
        assert isinstance(event, Frame)
        opcode = event.opcode
        if opcode is _TEXT and event.fin:
            self._message(bytes(event.data))
        elif opcode is _TEXT or opcode is _CONT:
            if len(event.data) < _TINY:
                self.penalize()
            self._fragment(event)
        elif opcode is _BINARY:
            self.close_with(CloseCode.UNSUPPORTED_DATA, "text frames only")
        elif opcode is _PONG:
            self.penalize()
        elif opcode is _CLOSE:
            self.transport.close()  # both have said goodbye; a client that lingers must not hold up a drain

    def _fragment(self, frame: Frame) -> None:
        """Collect a fragmented message. The order of frames and the size of the whole are checked by the library."""
        self._fragments.append(bytes(frame.data))
        if frame.fin:
            fragments, self._fragments = self._fragments, []
            self._let_go()
            self._message(b"".join(fragments))
        else:
            self._hold(len(frame.data))
        if len(self._fragments) > _FRAGMENTS:
            self._fragments.clear()
            self._let_go()
            self.close_with(CloseCode.TOO_BIG, f"more than {_FRAGMENTS} fragments")

    def _message(self, message: bytes) -> None:
        # The client's own close frame can be in the same read: what it sent before that still counts.
        if self._close_code:
            if self.session is not None and self._close_code in _TAKING_LATE_MESSAGES:
                self.session.late_message_received(message)
            return
        # The parser leaves this to us (RFC 6455 §8.1), and msgspec does not look into what it hands on unparsed.
        if not message.isascii() and not _is_utf8(message):
            self.close_with(CloseCode.INVALID_DATA, "a text frame must be UTF-8")
        elif self.session is not None:
            try:
                self.session.message_received(message)
            except Exception:
                self._close_for_bug("a message could not be taken")

    def penalize(self, size: int = 0) -> None:
        """Count a message of `size` bytes that was no successful call, nor an answer to a job; too many close it."""
        if self._penalties is None:
            self._penalties = Penalties()
        if self._penalties.are_too_many(size, self.loop.time(), self._shared.bad_messages_per_second):
            self.close_with(CloseCode.POLICY, "too many messages that are no successful calls", _POLICY_TIMEOUT)

    def _close_for_bug(self, what: str) -> None:
        log.exception(what)
        self.close_with(CloseCode.INTERNAL, "internal error")

    def pause_reading(self) -> None:
        """Stop reading from the socket; TCP then slows the client down."""
        self._reading_paused = True
        self.pause_socket()

    def resume_reading(self) -> None:
        """Read from the socket again, after what was read already."""
        if self._reading_paused:
            self._reading_paused = False
            self._take_rest_soon()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way, so that the connection can be closed without loss."""
        return self.session is None or self.session.is_idle

    @property
    def is_reading_paused(self) -> bool:
        """Whether the socket is not read, so that nothing can be heard from the client."""
        return self._reading_paused or bool(self._rest) or (self._partial is not None and self._partial.waits)

    @property
    def last_heard(self) -> float:
        """The loop time at which something came last, to half of `ping_interval`: each read is not timed."""
        return self.loop.time() if self.heard else self.heard_at

    # The end

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Close the connection."""
        self.close_with(code, reason)

    def close_with(self, code: int, reason: str = "", timeout: float | None = None) -> None:
        """Send what is left and a close frame, and give the peer `timeout` seconds, or the usual ones, to answer it."""
        if self.protocol.state is _OPEN:
            super().close_with(code, reason, timeout)
            self._reading_paused = False
            self._take_rest_soon()  # its answer must be read

    def close_unauthorized(self, reason: str, code: CloseCode = CloseCode.INVALID_AUTHENTICATION) -> None:
        """Close the connection; its jobs go back as in a drain, and no attempt is counted."""
        self._drain_and_close(code, reason, timeout=_UNAUTHORIZED_TIMEOUT)

    def tell_expiry(self, left: float) -> None:
        """Tell the client that its token expires in so many seconds."""
        self.send(expires(left))

    def retire(self) -> None:
        """Let a worker finish what it has, and give it nothing new; close the connection of any other client."""
        if self.session is None or not self.session.retire():
            self.send_away()

    def expire(self, reason: str, *, is_overdue: bool) -> None:
        """Let the client come back on another connection: a worker's is closed when it has no jobs, or is overdue."""
        if self.session is not None and not is_overdue:
            self.session.retire()
            if not self.session.is_idle:
                return
        self._drain_and_close(CloseCode.GOING_AWAY, reason)

    def send_away(self) -> None:
        """Close the connection with 4001; its jobs go back as in a drain, and no attempt is counted."""
        self._drain_and_close(CloseCode.SENT_AWAY, "closeConnection was called")

    def _drain_and_close(self, code: CloseCode, reason: str, timeout: float | None = None) -> None:
        if self.protocol.state is _OPEN:
            if self.session is not None:
                self.session.drain(0.0)
            self.close_with(code, reason, timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        """Release everything: the socket is gone."""
        super().connection_lost(exc)
        if self.early is None:  # it was opened
            ends, code = self._shared.ends, self.end_code
            ends[code if code in ends else OTHER] += 1
            self._shared.ends_soon(self)
        self._shared.unfinished.pop(self, None)
        self._shared.long.pop(self, None)
        self.forget_ping()
        self._let_go()
        if self._weight:
            self._shared.unopened.weigh(-self._weight)
            self._weight = 0
        self._rest = b""
        for timer in (self._end, self._starting):
            if timer is not None:
                timer.cancel()
        if self.account is not None:
            self.account.leave(self)
        session, self.session = self.session, None
        if session is not None:
            session.connection_lost()


def _is_utf8(message: bytes) -> bool:
    try:
        message.decode()
    except UnicodeDecodeError:
        return False
    return True
