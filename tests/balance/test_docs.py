"""The code of docs/balance.md runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path


def test_the_loop_of_the_docs_learns_and_goes_on(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[2] / "docs" / "balance.md").read_text(encoding="utf-8")
    loop, save, resume = re.findall(r"```python\n(.*?)```", text, re.S)
    found: dict[str, object] = {}
    exec(loop, found)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    assert "k.audio" in lines[-1]
    assert float(lines[-1].split()[1]) < float(lines[0].split()[1])
    balanced = found["balanced"]
    assert balanced.trace["score.audio"] > balanced.trace["score.video"]  # type: ignore[attr-defined]
    assert balanced.trace["k.audio"] < 1  # type: ignore[attr-defined]
    exec(save, found)
    exec(resume, found)
    assert found["balanced"] is not balanced
    assert capsys.readouterr().out.split() == ["10"]
    assert found["balanced"].balancer.scores.value.equal(balanced.balancer.scores.value)  # type: ignore[attr-defined]
