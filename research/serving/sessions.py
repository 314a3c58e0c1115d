"""Sessions of recurrent policies: the state of a client's episode, kept between requests.

A session is a name that a client chooses, for one version of a model and one owner of keys. Its
first step, and one that asks for a reset, begins with the model's `initial_state`. A step that
fails leaves its state unchanged.
"""

import asyncio
import time
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import numpy as np

from sparring.serving import request_context
from sparring.serving.batching import Arrays
from sparring.serving.errors import Refusal
from sparring.serving.model import Servable, Signature
from sparring.serving.request_limits import Limits
from sparring.serving.rest_api import Query

STATE = "state"
INITIAL = "initial_state"  # name of the signature that returns the first state

Call = Callable[[Servable, Signature, Arrays], Awaitable[dict[str, np.ndarray]]]


@dataclass
class _Session:
    state: np.ndarray | None = None
    steps: int = 0
    used: float = 0.0
    # Held during a step, so that steps are taken in the order of their requests
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class Sessions:
    """Sessions in memory, `limits.sessions` at most.

    Each is forgotten `limits.session_idle` seconds after its last step.
    """

    def __init__(self, limits: Limits, call: Call) -> None:
        self.limits = limits
        self._call = call
        # By version, and gone with it; the most recently used session comes last
        self._of: weakref.WeakKeyDictionary[Servable, dict[tuple[str, str], _Session]] = (
            weakref.WeakKeyDictionary()
        )

    def __len__(self) -> int:
        return sum(map(len, self._of.values()))

    async def step(
        self, servable: Servable, signature: Signature, arrays: Arrays, query: Query
    ) -> tuple[dict[str, np.ndarray], int]:
        """Take a session's next step; return the outputs without the state, and the step's index.

        Steps count from 1.

        Raises:
            Refusal: there is more than one instance, or too many sessions are in use.
        """
        if any(len(array) != 1 for array in arrays.values()):
            raise Refusal("INVALID_ARGUMENT", "A session takes one instance at a time")
        session = self._find(servable, query.session or "")
        async with session.turn:
            state = session.state
            steps = session.steps
            if state is None or query.reset:
                opening = servable.signatures[INITIAL]
                given = {name: arrays[name] for name in opening.takes}
                state = (await self._call(servable, opening, given))[STATE]
                steps = 0
            outputs = dict(await self._call(servable, signature, {**arrays, STATE: state}))
            # Copied, as a view would keep the whole batch alive
            session.state = outputs.pop(STATE).copy()
            session.steps = steps + 1
            return outputs, session.steps

    def _find(self, servable: Servable, name: str) -> _Session:
        known = self._of.setdefault(servable, {})
        key = (request_context.known("key") or "", name)
        now = time.monotonic()
        session = known.pop(key, None)
        if session is None or self._idle(session, now):
            self._make_room(now)
            session = _Session()
        session.used = now
        known[key] = session  # last
        return session

    def _idle(self, session: _Session, now: float) -> bool:
        return now - session.used > self.limits.session_idle and not session.turn.locked()

    def _make_room(self, now: float) -> None:
        for known in self._of.values():
            while known and self._idle(next(iter(known.values())), now):
                del known[next(iter(known))]
        if len(self) >= self.limits.sessions:
            raise Refusal(
                "RESOURCE_EXHAUSTED", f"{self.limits.sessions} sessions are in use: come again"
            )


def remembers(servable: Servable, signature: Signature) -> bool:
    """Return whether a signature takes a state and returns the next.

    Its model must also have a signature for the first state.
    """
    opening = servable.signatures.get(INITIAL)
    known = (
        opening is not None
        and STATE in opening.gives
        and opening.takes.keys() <= signature.takes.keys()
    )
    return known and STATE in signature.takes and STATE in signature.gives
