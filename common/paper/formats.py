"""Sections of text cells as Markdown and LaTeX."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LATEX = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "±": r"$\pm$", "≥": r"$\geq$"}


@dataclass(frozen=True)
class Section:
    """A table of text with its heading, and a note on what the numbers are.

    Attributes:
        numbers: columns from this one on are aligned to the right.
        appendix: whether it only says where the numbers come from; LaTeX leaves it out.
    """

    title: str
    note: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: int
    appendix: bool = False

    @classmethod
    def of(cls, title: str, note: str, rows: Sequence[Mapping[str, str]], **more) -> "Section":
        """A section from rows with the same keys, which are its columns; at least one."""
        return cls(title, note, list(rows[0]), [list(row.values()) for row in rows], **more)


def markdown(title: str, sections: Sequence[Section], pictures: Sequence[str]) -> str:
    """A document of pictures, given by their paths from its folder, and of all sections."""
    parts = [f"# {title}\n", *(f"![{title}]({picture})\n" for picture in pictures)]
    for section in sections:
        rule = ["---" if i < section.numbers else "---:" for i in range(len(section.columns))]
        lines = [section.columns, rule, *section.rows]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        note = f"{section.note}\n\n" if section.note else ""
        parts.append(f"## {section.title}\n\n{note}{table}\n")
    return "\n".join(parts)


def latex(title: str, sections: Sequence[Section]) -> str:
    """The sections with results as `table` environments; they need the package booktabs."""
    parts = [f"% {title}: made by python -m common.paper.tables\n"]
    for section in sections:
        if not section.appendix:
            parts.append(_latex_table(title, section))
    return "\n".join(parts)


def _latex_table(title: str, section: Section) -> str:
    columns = "".join("l" if i < section.numbers else "r" for i in range(len(section.columns)))
    heading, *rows = (
        " & ".join(map(_latex_text, line)) + r" \\" for line in (section.columns, *section.rows)
    )
    lines = [r"\toprule", heading, r"\midrule", *rows, r"\bottomrule"]
    body = "\n    ".join(lines)
    caption = _latex_text(f"{title}: {section.title}. {section.note}".strip())
    return (
        f"\\begin{{table}}\n  \\centering\n  \\begin{{tabular}}{{{columns}}}\n    {body}\n"
        f"  \\end{{tabular}}\n  \\caption{{{caption}}}\n\\end{{table}}\n"
    )


def _latex_text(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in text)
