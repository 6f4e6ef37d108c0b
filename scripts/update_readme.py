"""Copies the tables that README.md shows from `results/`, so that no number is typed by hand.

Between `<!-- table: PATH -->` and `<!-- end -->` stands, of each setting of that file, the table of
results (paired tests and notes stay in the file). `tests/test_readme.py` fails when they differ.

Run: python scripts/update_readme.py
"""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def results_of(markdown: str) -> str:
    """The first table under each heading, the heading of a setting as a line of its own."""
    kept: list[str] = []
    wanted = True
    for line in markdown.splitlines():
        if line.startswith("## "):
            kept += ["", f"**{line[3:]}**", ""]
            wanted = True
        elif line.startswith("|") and wanted:
            kept.append(line)
        elif kept and kept[-1].startswith("|"):
            wanted = False
    return "\n".join(kept).strip("\n") + "\n"


def filled(readme: str, root: Path = ROOT) -> str:
    """The README with every block made anew from its file."""

    def block(match: re.Match[str]) -> str:
        table = results_of((root / match[2]).read_text(encoding="utf-8"))
        return f"{match[1]}{table}{match[3]}"

    return BLOCK.sub(block, readme)


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")
