"""The ``human`` judge: a person at a local page, blind, one pair at a time."""

from __future__ import annotations

import hashlib
import operator
import secrets
import sys
import threading
import webbrowser
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from realbench.arena.judges.judge import JudgeOptions, Judgment, Picture, Showing, Verdict
from realbench.arena.page.human_page import (
    GUIDANCE,
    QUESTION,
    Choice,
    PagePicture,
    Pair,
    Request,
    VotingSession,
    human_page,
)
from realbench.images import UnreadableImage, for_browser, read_bytes_and_hash
from realbench.loopback import serving

_INVITATION = "Judge the pairs here (Ctrl-C ends it, votes are kept):"
_AHEAD = 3  # the pair that is shown and those that the page loads meanwhile
_PAGE_VERSION = 1  # raised when a change of the page could change how people vote
_VERDICTS: dict[Choice, Verdict] = {"left": "first", "right": "second", "tie": "tie"}


class HumanJudge:
    """Asks a person, on a page that this process serves.

    The first picture of a showing is on the left; as one order is enough for a person, the run
    draws at random which that is. A vote is confirmed to the page when the caller comes back for
    the next one, thus after it was written. Undo yields the showing with None. It ends, with
    what was voted, when the person finishes or the showings do; a picture that can no longer be
    read gives an invalid judgment, and the person is not asked.

    Args:
        options: ``host``, ``port`` and ``open_browser`` matter here.
        rater: Who votes, where several people's votes are to be told apart.
        announce: Called once with the page's address; prints it to the terminal if not given.
    """

    orders = 1
    is_vlm = False

    def __init__(
        self,
        options: JudgeOptions | None = None,
        *,
        rater: str = "",
        announce: Callable[[str], object] | None = None,
    ) -> None:
        self.name = f"human:{rater}" if rater else "human"
        self._options = options or JudgeOptions()
        self._announce = announce or partial(print, _INVITATION, file=sys.stderr)

    @property
    def fingerprint(self) -> str:
        """Hex digest of what the person is asked and shown."""
        asked = "\0".join((str(_PAGE_VERSION), QUESTION, GUIDANCE))
        return hashlib.sha256(asked.encode()).hexdigest()

    def describe(self) -> dict[str, Any]:
        """Return the question that the page asks."""
        return {"question": QUESTION, "guidance": GUIDANCE, "page_version": _PAGE_VERSION}

    def judge(self, showings: Iterable[Showing]) -> Iterator[tuple[Showing, Judgment | None]]:
        """Serve the page until all showings are judged or the person finishes.

        Raises:
            UsageError: the port is in use, or the host is not one of this machine.
        """
        session = VotingSession()
        upcoming = _Upcoming(showings, session)
        yield from upcoming.fill()
        if not session.n_ahead:
            return
        token = secrets.token_urlsafe(16)
        request: Request | None = None
        app = human_page(session, token)
        with serving(app, host=self._options.host, port=self._options.port) as address:
            try:
                url = f"{address}/{token}/"
                self._announce(url)
                if self._options.open_browser:
                    threading.Thread(target=webbrowser.open, args=[url], daemon=True).start()
                while (request := session.next_request()) is not None:
                    yield upcoming.answer(request)
                    session.confirm(request)
                    yield from upcoming.fill()
            finally:
                session.end(unconfirmed=request)


class _Upcoming:
    """Pulls showings as the person gets on, and knows which pair of the page is which showing."""

    def __init__(self, showings: Iterable[Showing], session: VotingSession) -> None:
        n_left = operator.length_hint(showings, -1)
        if n_left >= 0:
            session.expect(getattr(showings, "n_done", 0), n_left)
        self._left = iter(showings)
        self._session = session
        self._showings: dict[Pair, Showing] = {}

    def fill(self) -> Iterator[tuple[Showing, Judgment]]:
        """Offer the page the pairs that it has room for; yield those that cannot be shown."""
        while self._session.n_ahead < _AHEAD:
            showing = next(self._left, None)
            if showing is None:
                self._session.exhaust()
                return
            left, right = (PagePicture(_loader(p)) for p in (showing.first, showing.second))
            try:
                left.load()
                right.load()
            except UnreadableImage as error:
                self._session.pass_over()
                yield showing, Judgment("invalid", raw=error.reason)
                continue
            pair = Pair(showing.prompt, left, right)
            self._showings[pair] = showing
            self._session.offer(pair)

    def answer(self, request: Request) -> tuple[Showing, Judgment | None]:
        """Return what a vote or an undo means to the run."""
        assert request.pair is not None
        showing = self._showings[request.pair]
        if request.kind == "undo":
            return showing, None
        return showing, Judgment(_VERDICTS[request.choice], seconds=request.seconds)


def _loader(picture: Picture) -> Callable[[], tuple[bytes, str]]:
    def load() -> tuple[bytes, str]:
        data, sha256 = read_bytes_and_hash(picture.path)
        if sha256 != picture.sha256:
            raise UnreadableImage("changed since the run began", picture.path)
        return for_browser(data)

    return load
