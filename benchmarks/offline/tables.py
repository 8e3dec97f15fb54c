"""The tables of a comparison, from its records alone."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Final, TypeVar

from benchmarks.figures import shown
from benchmarks.grid import Grid
from benchmarks.offline.records import Absent, Group, Point, Records, Round, Start
from benchmarks.offline.subjects import OURS, REFERENCE
from benchmarks.offline.weights import SHAPES, bytes_per_decoded_token

Value = TypeVar("Value")

NOTHING: Final = "–"


def tables(records: Records) -> tuple[list[Grid], list[str]]:
    """Per group: tokens per second for each pair of lengths, then what a start and a token cost;
    and, as lines, why something is missing."""
    grids = []
    for group in _groups(records):
        rounds = [found for found in records.rounds if found.group == group]
        lengths = _unique([(one.point.inputs, one.point.outputs) for one in rounds])
        grids += [rates(records, group, pair) for pair in lengths]
        grids.append(costs(records, group))
    return grids, reasons(records.absents)


def rates(records: Records, group: Group, lengths: tuple[int, int]) -> Grid:
    """Tokens per second of all subjects at these lengths, by concurrency."""
    rounds = [
        found
        for found in records.rounds
        if found.group == group and (found.point.inputs, found.point.outputs) == lengths
    ]
    columns = sorted({found.point.concurrency for found in rounds})
    grid = Grid(
        f"{_title(group)}, {lengths[0]} in / {lengths[1]} out: tokens/s, median (least to most) of "
        f"repeats | how many times as fast {OURS} is",
        ("engine", *[f"concurrency {concurrency}" for concurrency in columns]),
    )
    for subject in _subjects(records, group):
        cells = []
        for concurrency in columns:
            point = Point(*lengths, concurrency)
            own = _of(rounds, subject, point)
            cells.append(_rate_cell(own, _of(rounds, OURS, point), subject))
        grid.row(subject, *cells)
    return grid


def _rate_cell(own: Sequence[Round], ours: Sequence[Round], subject: str) -> str:
    if not own:
        return NOTHING
    text = shown([found.tokens_per_s for found in own], ",.1f")
    if subject == OURS or not ours:
        return text
    return f"{text} | {ratio(ours, own):.2f}x"


def ratio(ours: Sequence[Round], theirs: Sequence[Round]) -> float:
    """Of the median rates."""
    return median([one.tokens_per_s for one in ours]) / median([one.tokens_per_s for one in theirs])


def costs(records: Records, group: Group) -> Grid:
    """Start-up, memory, and the share of memory bandwidth at concurrency 1."""
    bound = max([one.bytes_per_s for one in records.bandwidths if one.threads == group.threads])
    grid = Grid(
        f"{_title(group)}: start, memory, and one request alone; memory reads measured in this "
        f"run: {bound / 1e9:.1f} GB/s",
        (
            "engine",
            "ready s, cold",
            "ready s, again",
            "peak MiB",
            "first id ms",
            "decode tokens/s",
            "of bandwidth",
            f"answers as {REFERENCE}'s",
        ),
    )
    for subject in _subjects(records, group):
        rounds = [one for one in records.rounds if (one.group, one.subject) == (group, subject)]
        alone = _shortest_alone(rounds)
        starts = [one for one in records.starts if (one.group, one.subject) == (group, subject)]
        decodes = [one.decode_tokens_per_s for one in alone if one.decode_tokens_per_s is not None]
        shares = [
            bandwidth_share(one.group, one.point, one.decode_tokens_per_s, bound)
            for one in alone
            if one.decode_tokens_per_s is not None
        ]
        firsts = [1000 * one.first_s for one in alone if one.first_s is not None]
        peaks = [one.peak_mib for one in starts if one.peak_mib is not None]
        grid.row(
            subject,
            _ready(starts, cold=True),
            _ready(starts, cold=False),
            shown(peaks[-1:], ",.0f") if peaks else NOTHING,
            shown(firsts, ",.0f") if firsts else NOTHING,
            shown(decodes, ",.1f") if decodes else NOTHING,
            f"{median(shares):.0%}" if shares else NOTHING,
            same_answers(records, group, subject),
        )
    return grid


def bandwidth_share(group: Group, point: Point, decode_per_s: float, bound: float) -> float:
    """What a lone request's decoding reads per second, over what memory could give.

    The context of the mean step is the prompt and half of the answer."""
    context = point.inputs + point.outputs / 2
    read = bytes_per_decoded_token(SHAPES[group.shape], group.dtype, context)
    return read * decode_per_s / bound


def same_answers(records: Records, group: Group, subject: str) -> str:
    """How many requests got the ids that the reference gave, of those that both answered.

    In float32 all should be equal; in bfloat16 rounding decides near-ties of random weights."""
    reference = {
        (one.point, one.repeat): one.digests
        for one in records.rounds
        if (one.group, one.subject) == (group, REFERENCE)
    }
    same = both = 0
    for one in records.rounds:
        other = reference.get((one.point, one.repeat))
        if (one.group, one.subject) == (group, subject) and other is not None:
            pairs = list(zip(one.digests, other, strict=True))
            both += len(pairs)
            same += sum([own == its for own, its in pairs])
    return f"{same} of {both}" if both else NOTHING


def reasons(absents: Sequence[Absent]) -> list[str]:
    """A line per missing thing."""
    lines = []
    for one in absents:
        what = "nothing" if one.point is None else f"not {_point(one.point)}"
        lines.append(f"{one.subject}, {_title(one.group)}: {what}: {one.why}")
    return lines


def _shortest_alone(rounds: Sequence[Round]) -> list[Round]:
    alone = [one for one in rounds if one.point.concurrency == 1]
    if not alone:
        return []
    least = min([one.point.inputs for one in alone])
    return [one for one in alone if one.point.inputs == least]


def _ready(starts: Sequence[Start], *, cold: bool) -> str:
    found = [one.ready_s for one in starts if one.cold is cold]
    return shown(found, ".1f") if found else NOTHING


def _of(rounds: Sequence[Round], subject: str, point: Point) -> list[Round]:
    return [one for one in rounds if (one.subject, one.point) == (subject, point)]


def _title(group: Group) -> str:
    threads = "1 thread" if group.threads == 1 else f"{group.threads} threads"
    return f"{group.shape}, {group.dtype}, {threads}"


def _point(point: Point) -> str:
    return f"{point.inputs} in / {point.outputs} out at concurrency {point.concurrency}"


def _groups(records: Records) -> list[Group]:
    return _unique([one.group for one in records.rounds])


def _subjects(records: Records, group: Group) -> list[str]:
    return _unique([one.subject for one in records.rounds if one.group == group])


def _unique(values: Sequence[Value]) -> list[Value]:
    return list(dict.fromkeys(values))
