"""Parameters that this server doesn't know or doesn't honour, with the nearest known name."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from lmi.schemas.body import LmiBody, LmiParameters
from lmi.schemas.config import Form
from lmi.schemas.errors import bad_payload

_BODY_NAMES = frozenset(LmiBody.model_fields)
_PARAMETER_NAMES = frozenset(LmiParameters.model_fields)

# Names of the reference's engines that change the answer only a little, so that leaving them out is
# better than refusing; never to be guessed a nearest name for.
NOT_HONOURED = frozenset(
    {
        "cached_prompt",
        "detokenize",
        "early_stopping",
        "length_penalty",
        "spaces_between_special_tokens",
        "typical_p",
        "use_beam_search",
        "watermark",
    }
)

MAX_REPORTED = 8  # names; a body may hold thousands of unknown ones
_MAX_NAME = 64  # characters of a name that are compared and shown


@dataclass(frozen=True, slots=True)
class Ignored:
    """A parameter that was left out of account. nearest: the known name it looks like, or None."""

    name: str
    nearest: str | None = None
    known: bool = False

    def __str__(self) -> str:
        if self.known:
            return f"{self.name} (not supported)"
        return f"{self.name} ({self.nearest}?)" if self.nearest else self.name


def review(form: Form, request: LmiBody, parameters: LmiParameters) -> list[Ignored]:
    """What a body holds beyond the known fields; BadPayload for what must not be dropped."""
    extra = dict(parameters.model_extra or {})
    beams = extra.pop("num_beams", None)
    if beams not in (None, 1):
        raise bad_payload(
            form,
            "parameters.num_beams: beam search is not available; expected 1, or best_of with "
            "sampling.",
            "parameters.num_beams",
        )
    return [
        *ignored(request.model_extra or {}, _BODY_NAMES, NOT_HONOURED),
        *ignored(extra, _PARAMETER_NAMES, NOT_HONOURED, _BODY_NAMES),
    ]


def ignored(
    names: Iterable[str],
    known: frozenset[str],
    not_honoured: Collection[str],
    outside: frozenset[str] = frozenset(),
) -> list[Ignored]:
    """The first few of `names`, with what is known about each.

    known: what a name may have been meant for. outside: names that belong beside `parameters`.
    """
    found: list[Ignored] = []
    for name in names:
        if len(found) == MAX_REPORTED:
            break
        # It goes into headers and logs: no line ends, nothing invisible.
        shown = "".join([char if char.isprintable() else "?" for char in name[:_MAX_NAME]])
        if name in not_honoured:
            found.append(Ignored(shown, known=True))
        elif name in outside:
            found.append(Ignored(shown, f"{name} beside parameters"))
        else:
            found.append(Ignored(shown, _nearest(shown, known)))
    return found


def _nearest(name: str, known: frozenset[str]) -> str | None:
    matches = difflib.get_close_matches(name.lower(), sorted(known), n=1, cutoff=0.7)
    return matches[0] if matches else None
