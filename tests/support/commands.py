"""The command in this process, on one experiment file and one results folder."""

from pathlib import Path

import pytest

from tlresearch import cli


class Command:
    """Called with a command and its words: exit code, output, error output."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
        self.file, self.results, self.capsys = folder / "tiny.yaml", folder / "results", capsys
        self.file.write_text(text)

    def __call__(self, command: str, *words: str) -> tuple[int, str, str]:
        code = cli.main([command, str(self.file), *words, "--results", str(self.results)])
        out = self.capsys.readouterr()
        return code, out.out, out.err

    def listing(self) -> dict[str, int]:
        """What lies in the results folder, and when it was written."""
        paths = self.results.rglob("*")
        return {str(p.relative_to(self.results)): p.stat().st_mtime_ns for p in paths}

    def written(self) -> dict[str, bytes]:
        """The files in the results folder, and what is in them."""
        paths = (path for path in self.results.rglob("*") if path.is_file())
        return {str(path.relative_to(self.results)): path.read_bytes() for path in paths}
