"""affuse demo: the whole way on a synthetic corpus, from nothing to an analysed clip."""

from __future__ import annotations

import shutil
from pathlib import Path

from affuse.cli.console import Quiet, Threads, note, output

SIZE = {"conversations": 24, "utterances": 4, "speakers": 24, "seconds": 1.6}


def run(out: Path = Path("demo"), *, threads: Threads = None, quiet: Quiet = False) -> int:
    """Generate a synthetic corpus, extract, train, evaluate, report, and analyse one of its clips, all below OUT."""
    from affuse.cli.console import choose_device
    from affuse.cli.extract import extract_into
    from affuse.cli.import_ import summary
    from affuse.cli.timeline_table import print_table
    from affuse.cli.train import print_scores, train_with_progress
    from affuse.core import registry
    from affuse.core.config import load_recipe
    from affuse.evaluation.protocol import evaluate
    from affuse.inference.clips import analyze_clip
    from affuse.inference.recognizer import load
    from affuse.reporting.report import write_report
    from affuse.training.binding import bind, missing_stores

    device = choose_device("cpu", threads)
    _make_room(out)
    note("[bold]1/5[/] generate and import a synthetic corpus (drawn faces, synthesised voices, templated text)", quiet)
    corpus = registry.load("corpora", "synthetic")(out / "corpus", labels="iemocap-4", **SIZE)
    if not quiet:
        summary(corpus)
    note("[bold]2/5[/] extract features", quiet)
    recipe = bind(load_recipe("demo"), corpus)
    for name, parameters in missing_stores(recipe, corpus).items():
        extract_into(corpus, name, parameters, 0, quiet)
    note("[bold]3/5[/] train", quiet)
    train_with_progress(recipe, "demo", corpus, out / "run", None, device, quiet)
    note("[bold]4/5[/] evaluate with every subset of modalities", quiet)
    result = evaluate(out / "run", corpus, missing="each", device=device)
    page = write_report(out / "run")
    if not quiet:
        print_scores(result)
    note("[bold]5/5[/] analyse a clip that the model has not seen, with that model and with affuse-base", quiet)
    clip = corpus.path / corpus.table.loc[corpus.table["split"] == "test", "video"].iloc[0]
    timeline = analyze_clip(load(out / "run", device), str(clip))
    shipped = analyze_clip(load("affuse-base", device), str(clip))
    print_table(timeline)
    print_table(shipped)
    timeline.save(out / "timeline.json", "json")
    timeline.save(out / "timeline.html", "html")
    output.print("\n[yellow]The corpus is synthetic: these numbers show that the way works, nothing about people.[/]")
    made = {"report": page, "run": out / "run", "timeline": out / "timeline.html", "corpus": corpus.path}
    for name, path in made.items():
        output.print(f"{name:>9}: {path}", soft_wrap=True, markup=False)
    return 0


def _make_room(out: Path) -> None:
    """Remove the corpus and the run of an earlier demo; BadConfig for others of that name."""
    from affuse.core import io
    from affuse.core.errors import BadConfig

    ours, old = out / "demo.json", [out / name for name in ("corpus", "run") if (out / name).exists()]
    if old and not ours.is_file():
        message = f"{old[0]} is there already, and no demo's"
        raise BadConfig(message, "give the demo a folder of its own: affuse demo OUT")
    io.write_json(ours, {"made_by": "affuse demo"})
    for folder in old:
        shutil.rmtree(folder)
