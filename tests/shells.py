"""The command line, called in one process."""

from __future__ import annotations

import pytest

from foresweep.cli.main import main


class Shell:
    """Runs commands and remembers what they said."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *args: str, code: int = 0) -> str:
        """Standard output of a command that must end with `code`."""
        with pytest.raises(SystemExit) as ended:
            main(args)
        self.out, self.err = self.capsys.readouterr()
        assert (ended.value.code or 0) == code, self.out + self.err
        assert "Traceback (most recent call last)" not in self.err
        return self.out

    def error(self, *args: str, code: int) -> str:
        """The one line of a command that must fail with `code`."""
        self(*args, code=code)
        lines = self.err.strip().splitlines()
        assert len(lines) == 1, self.err
        return lines[0]
