"""Put the newest results into docs/benchmarks.md: `python -m benchmarks.tables`.

Between `<!-- NAME -->` and `<!-- end -->` stand the tables of `benchmarks/results/NAME.json` with
their machine and date; everything else of the file is text and stays.
"""

import argparse
import re
from pathlib import Path
from typing import Any

from benchmarks.measure import RESULTS, read
from common.foundation.errors import UserError, one_line_errors
from common.foundation.files import atomic_write

DOCUMENT = Path(__file__).parent.parent / "docs" / "benchmarks.md"
MARKED = re.compile(r"<!-- (\w+) -->\n.*?<!-- end -->", re.DOTALL)
BUSY = 1.5  # load per core from which on others were at work, too


def describe(content: dict[str, Any]) -> str:
    """Where and when a result was measured, in one line."""
    machine = content["machine"]
    device = "" if machine["device"] == "cpu" else f"{machine['device_name']}, "
    versions = machine["versions"]
    busy = machine["load"][0] > BUSY * machine["cores"]
    warning = f" **Not idle: load {machine['load'][0]:g}; look at ratios only.**" if busy else ""
    return (
        f"*{content['date']}, {device}{machine['cpu']}, {machine['cores']} cores, "
        f"{machine['threads']} threads, torch {versions['torch']}, Python {versions['python']}.*"
        f"{warning}"
    )


def fill(text: str, results: Path) -> str:
    """`text` with the tables between its marks; a result that is not there leaves a note."""

    def section(match: re.Match[str]) -> str:
        name = match[1]
        path = results / f"{name}.json"
        lines = [f"<!-- {name} -->", ""]
        if path.is_file():
            content, tables = read(path)
            lines += [describe(content), ""]
            for table in tables:
                if table.rows:
                    lines += [f"{table.title}:", "", *table.lines(), ""]
        else:
            lines += ["*Not measured yet.*", ""]
        return "\n".join([*lines, "<!-- end -->"])

    return MARKED.sub(section, text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON files")
    parser.add_argument("--document", type=Path, default=DOCUMENT, help="what is filled")
    options = parser.parse_args()
    if not options.document.is_file():
        raise UserError(f"there is no {options.document}; give --document FILE")
    text = fill(options.document.read_text(), options.results)
    with atomic_write(options.document) as file:
        file.write(text.encode())


if __name__ == "__main__":
    with one_line_errors():
        main()
