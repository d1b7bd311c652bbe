"""The example of the whole circle runs, from the first sweep to the one after the alarm."""

from __future__ import annotations

import importlib.util
import shlex
from pathlib import Path

import pytest

from foresweep.cli.main import main

SCRIPT = Path(__file__).parents[2] / "examples" / "workflow" / "workflow.py"


@pytest.mark.slow
def test_the_circle_closes_on_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its commands in this process, whose imports are done; the last in one of its own, as the
    script has it."""
    spec = importlib.util.spec_from_file_location("workflow", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    workflow = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(workflow)
    typed, said = workflow.run, {}

    def run(command: str, *codes: int, cwd: Path) -> str:
        words = shlex.split(command)
        capsys.readouterr()
        if words[1] == "champion":
            out = typed(command, *codes, cwd=cwd)
        else:
            monkeypatch.chdir(cwd)
            with pytest.raises(SystemExit) as ended:
                main(words[1:])
            out, err = capsys.readouterr()
            assert (ended.value.code or 0) in (0, *codes), out + err
        said[f"{len(said)} {words[1]}"] = str(out)
        return str(out)

    monkeypatch.setattr(workflow, "run", run)
    workflow.main(tmp_path)
    assert [key.partition(" ")[2] for key in said] == [
        "sweep", "best", "impact", "sweep", "verdict", "best", "promote", "predict", "predict",
        "monitor", "sweep", "champion",
    ]  # fmt: skip
    assert "ALARM: the champion does worse than" in said["9 monitor"]
    assert "Live: ALARM at" in said["11 champion"]
