"""Engines that say the wrong thing, each in one way that a real engine could."""

from __future__ import annotations

from dataclasses import replace

from lmi.core import (
    Delta,
    EngineError,
    Finish,
    GenerationRequest,
)
from lmi.engines.echo import EchoConfig
from lmi.engines.echo_script import decode
from tests.support.engines.poisonable import Poisonable
from tests.support.engines.sporadic import EVERY, Sporadic
from tests.support.engines.wrapped import Faulty


class LosesATokenInTheMiddle(Sporadic):
    def change(self, deltas: list[Delta]) -> list[Delta]:
        return [delta for delta in deltas if delta.finish or not self.now()]


class LosesTheLastToken(Faulty):
    def change(self, deltas: list[Delta]) -> list[Delta]:
        return [delta._replace(tokens=()) if delta.finish else delta for delta in deltas]


class RepeatsAToken(Sporadic):
    def change(self, deltas: list[Delta]) -> list[Delta]:
        return [
            delta._replace(tokens=delta.tokens * 2) if self.now() else delta for delta in deltas
        ]


class SwapsNeighbours(Sporadic):
    """Hands out a token after the one that follows it: what is said stays the same in length."""

    def __init__(self, config: EchoConfig) -> None:
        super().__init__(config)
        self._late: dict[tuple[int, int], Delta] = {}

    def change(self, deltas: list[Delta]) -> list[Delta]:
        out = []
        for delta in deltas:
            key = delta.request_id, delta.choice
            late = self._late.pop(key, None)
            if late is not None:
                out.append(delta._replace(tokens=delta.tokens + late.tokens))
            elif delta.finish is None and self.now():
                self._late[key] = delta
            else:
                out.append(delta)
        return out


class SwapsTwoRequests(Sporadic):
    """Two requests get each other's token, as after a mix-up of rows in a batch."""

    def change(self, deltas: list[Delta]) -> list[Delta]:
        running = [delta for delta in deltas if delta.finish is None]
        if len(running) < 2 or not self.now():
            return deltas
        first, second, *others = running
        mixed = first._replace(tokens=second.tokens), second._replace(tokens=first.tokens)
        return [*mixed, *others, *[delta for delta in deltas if delta.finish]]


class AnswersForAnother(Faulty):
    """Takes one id twice: what a request says goes to the one before it as well."""

    def change(self, deltas: list[Delta]) -> list[Delta]:
        return deltas + [
            delta._replace(request_id=delta.request_id - 1) for delta in deltas if delta.finish
        ]


class CountsOneTooMany(Faulty):
    def change(self, deltas: list[Delta]) -> list[Delta]:
        return [
            delta._replace(usage=delta.usage._replace(completion_tokens=delta.usage[1] + 1))
            if delta.usage
            else delta
            for delta in deltas
        ]


class StopsEarly(Sporadic):
    """Ends for its length before it is reached."""

    def change(self, deltas: list[Delta]) -> list[Delta]:
        out = []
        for delta in deltas:
            if delta.finish is None and self.now():
                self.inner.cancel(delta.request_id)
            wrong = delta.finish is Finish.CANCELLED
            out.append(delta._replace(finish=Finish.LENGTH) if wrong else delta)
        return out


class ForgetsLogprobs(Faulty):
    def change(self, deltas: list[Delta]) -> list[Delta]:
        return [
            delta._replace(tokens=tuple([token._replace(logprob=None) for token in delta.tokens]))
            for delta in deltas
        ]


class LosesThePrompt(Faulty):
    def change(self, deltas: list[Delta]) -> list[Delta]:
        return [delta._replace(prompt=delta.prompt[1:]) for delta in deltas]


class FinishesTwice(Faulty):
    def change(self, deltas: list[Delta]) -> list[Delta]:
        return deltas + [delta._replace(tokens=()) for delta in deltas if delta.finish]


class ForgetsUsage(Faulty):
    def change(self, deltas: list[Delta]) -> list[Delta]:
        return [delta._replace(usage=None) for delta in deltas]


class FinishesBeforeItsLastToken(Faulty):
    def change(self, deltas: list[Delta]) -> list[Delta]:
        out = []
        for delta in deltas:
            if delta.finish is None:
                out.append(delta)
            else:
                last = delta._replace(finish=None, usage=None, error=None)
                out += [delta._replace(tokens=()), last]
        return out


class SpeaksAfterCancel(Faulty):
    """Another step of a cancelled request was on its way."""

    def change(self, deltas: list[Delta]) -> list[Delta]:
        late = [
            Delta(delta.request_id, delta.choice, ())
            for delta in deltas
            if delta.finish is Finish.CANCELLED
        ]
        return deltas + late


class NeverFinishes(Sporadic):
    def change(self, deltas: list[Delta]) -> list[Delta]:
        return [delta for delta in deltas if delta.finish is None or not self.now()]


class ForgetsTheCancelled(Faulty):
    def change(self, deltas: list[Delta]) -> list[Delta]:
        return [delta for delta in deltas if delta.finish is not Finish.CANCELLED]


class ForgetsTheLastChoice(Faulty):
    def change(self, deltas: list[Delta]) -> list[Delta]:
        return [delta for delta in deltas if delta.choice < 2]


class DiesSilently(Sporadic):
    """After a while no poll says anything; nothing is raised."""

    def change(self, deltas: list[Delta]) -> list[Delta]:
        self._chances += bool(deltas)
        return deltas if self._chances < EVERY else []


class OneErrorHarmsAll(Poisonable):
    """Whoever stands beside a request that fails, fails as well."""

    def __init__(self, config: EchoConfig) -> None:
        super().__init__(config)
        self._harmed: set[tuple[int, int]] = set()

    def change(self, deltas: list[Delta]) -> list[Delta]:
        deltas = [delta for delta in super().change(deltas) if delta[:2] not in self._harmed]
        if not any(delta.finish is Finish.ERROR for delta in deltas):
            return deltas
        error = EngineError("somebody else's fault")
        self._harmed |= {delta[:2] for delta in deltas}
        return [delta._replace(finish=Finish.ERROR, error=error) for delta in deltas]


class FailsOneByOne(Sporadic):
    """A request fails now and then for no reason of its own."""

    def change(self, deltas: list[Delta]) -> list[Delta]:
        error = EngineError("no reason")
        return [
            delta._replace(finish=Finish.ERROR, error=error)
            if delta.finish and self.now()
            else delta
            for delta in deltas
        ]


class DecodesEachTokenAlone(Faulty):
    """A character over two tokens comes out broken."""

    def change(self, deltas: list[Delta]) -> list[Delta]:
        return [
            delta._replace(
                tokens=tuple([token._replace(text=decode([token.id])) for token in delta.tokens])
            )
            for delta in deltas
        ]


class SaysAnotherText(Faulty):
    def change(self, deltas: list[Delta]) -> list[Delta]:
        return [
            delta._replace(
                tokens=tuple([token._replace(text=token.text.lower()) for token in delta.tokens])
            )
            for delta in deltas
        ]


class KeepsWhatItHeldBack(Faulty):
    """What may have become a stop string is never said when it did not."""

    def change(self, deltas: list[Delta]) -> list[Delta]:
        return [
            delta._replace(tokens=tuple([token._replace(text="") for token in delta.tokens]))
            if delta.finish is Finish.LENGTH
            else delta
            for delta in deltas
        ]


class IgnoresStopStrings(Faulty):
    def submit(self, request: GenerationRequest, /) -> None:
        sampling = replace(request.sampling, stop=())
        super().submit(replace(request, sampling=sampling))


class SaysTheStopString(Faulty):
    def submit(self, request: GenerationRequest, /) -> None:
        sampling = replace(request.sampling, include_stop_text=True)
        super().submit(replace(request, sampling=sampling))
