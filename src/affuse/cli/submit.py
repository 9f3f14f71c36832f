"""affuse submit: the files that challenges ask for, with a row per frame of videos or per clip of a corpus."""

from __future__ import annotations

from cyclopts import App

from affuse.cli import submit_clips, submit_frames

app = App(name="submit", result_action="return_value")
app.default(submit_frames.run)
app.command(submit_clips.mer2023, name="mer2023")
app.command(submit_clips.muse_mimic, name="muse-mimic")
