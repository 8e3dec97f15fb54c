"""A table once, shown twice: on a terminal, and as Markdown in the results' folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.table import Table


@dataclass(slots=True)
class Grid:
    """Rows of text in sections. title: says what the numbers are."""

    title: str
    columns: Sequence[str]
    sections: list[list[Sequence[str]]] = field(default_factory=lambda: [[]])

    def row(self, *cells: str) -> None:
        """One more row of the present section."""
        self.sections[-1].append(cells)

    def section(self) -> None:
        """What follows stands apart."""
        self.sections.append([])

    def rich(self) -> Table:
        """For a terminal."""
        table = Table(*self.columns, title=self.title)
        for rows in self.sections:
            for row in rows:
                table.add_row(*row)
            table.add_section()
        return table

    def markdown(self) -> str:
        """For a file."""
        rows = [row for rows in self.sections for row in rows]
        lines = [self.columns, ["---"] * len(self.columns), *rows]
        return f"**{self.title}**\n\n" + "\n".join([f"| {' | '.join(line)} |" for line in lines])
