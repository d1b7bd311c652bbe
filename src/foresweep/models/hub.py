"""Pretrained weights: from a local folder, the cache or the Hugging Face hub, and which revision.

`ID` is what the hub calls newest when it is first asked, and from then on what the cache holds;
`ID@REVISION` is that commit, tag or branch for good. Which commit came is in a checkpoint's card.
HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE mean what they mean everywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, TypeAlias

from foresweep.errors import WeightsNotFound

Tell: TypeAlias = Callable[[int, int], None]
PUBLISHED = {"toto": "Datadog/Toto-Open-Base-1.0", "chronos2": "amazon/chronos-2"}
KRONOS = {
    "published": "NeoQuasar/Kronos-small",
    "mini": "NeoQuasar/Kronos-mini",
    "small": "NeoQuasar/Kronos-small",
    "base": "NeoQuasar/Kronos-base",
}
KRONOS_TOKENIZERS = {
    "NeoQuasar/Kronos-mini": "NeoQuasar/Kronos-Tokenizer-2k",
    "NeoQuasar/Kronos-small": "NeoQuasar/Kronos-Tokenizer-base",
    "NeoQuasar/Kronos-base": "NeoQuasar/Kronos-Tokenizer-base",
}
SNAPSHOTS = "snapshots"
"""The folder of the cache whose subfolders are named by commit."""
SHA256_LENGTH = 64
FILES = ("config.json", "model.safetensors")
"""What the authors' folders hold."""


def find_weights(pretrained: str, *, published: str, files: Sequence[str]) -> Path:
    """The folder that holds pretrained weights: `published`, a Hugging Face id (with @REVISION or
    without) or a local folder.

    A local folder is taken as it is, then the local cache, then the hub; a download that broke off
    goes on where it stopped. Raises WeightsNotFound, which says what stood in the way: no network,
    a licence to accept, a name or revision that is not there, bytes that are not what they should
    be.
    """
    folder = Path(pretrained).expanduser()
    if folder.is_dir():
        absent = [f for f in files if not (folder / f).is_file()]
        if absent:
            raise WeightsNotFound(f"{folder} has no {' and no '.join(absent)}")
        return folder
    asked = published if pretrained == "published" else pretrained
    return cached(asked, files) or download(asked, files)


def weights_id(pretrained: str) -> str:
    """The Hugging Face id without its revision; of a Kronos, named as ID+TOKENIZER_ID, the first.

    >>> weights_id("NeoQuasar/Kronos-mini@main+NeoQuasar/Kronos-Tokenizer-2k")
    'NeoQuasar/Kronos-mini'
    """
    return pretrained.partition("+")[0].partition("@")[0]


def published_ids(model: str) -> tuple[str, ...]:
    """Hugging Face ids of what a built-in family's authors publish; () of other families."""
    if model == "kronos":
        return tuple(KRONOS_TOKENIZERS)
    return (PUBLISHED[model],) if model in PUBLISHED else ()


def is_published(model: str, pretrained: str) -> bool:
    """Are these weights that a built-in family's authors publish, by whichever of their names?"""
    name = weights_id(pretrained)
    if Path(name).expanduser().is_dir():
        return False
    if model == "kronos":
        name = KRONOS.get(name, name)
    ids = published_ids(model)
    return name in ids or (bool(ids) and name == "published")


def cached(asked: str, files: Sequence[str]) -> Path | None:
    """The folder of weights that this machine has whole, asking nobody."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    repo, _, revision = asked.partition("@")
    try:
        found = snapshot_download(
            repo, revision=revision or None, allow_patterns=list(files), local_files_only=True
        )
    except (OSError, HFValidationError):  # LocalEntryNotFoundError is an OSError
        return None
    folder = Path(found)
    return folder if all((folder / f).is_file() for f in files) else None


def download(asked: str, files: Sequence[str], tell: Tell | None = None) -> Path:
    """Fetch weights from the hub and verify what has a sha256; `tell` is called with the bytes that
    are here and all there are (default: the hub's own progress on stderr). Raises
    WeightsNotFound."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    repo, _, revision = asked.partition("@")
    ways = f"or give --pretrained a folder that holds {' and '.join(files)}"
    hub = constants.ENDPOINT
    try:
        found = snapshot_download(
            repo,
            revision=revision or None,
            allow_patterns=list(files),
            tqdm_class=None if tell is None else _telling(tell),
        )
    except GatedRepoError as error:
        raise WeightsNotFound(
            f"weights {asked!r} are gated: accept their licence at {hub}/{repo}, log in with "
            f"`hf auth login` (or set HF_TOKEN), {ways}"
        ) from error
    except RevisionNotFoundError as error:
        raise WeightsNotFound(
            f"weights {repo!r} have no revision {revision!r} at {hub}; give a commit, tag or "
            f"branch that is there, or the id alone"
        ) from error
    except RepositoryNotFoundError as error:
        raise WeightsNotFound(
            f"{hub} knows no weights {repo!r}, or shows them only to those who may see them: look "
            f"at the spelling, log in with `hf auth login` (or set HF_TOKEN), {ways}"
        ) from error
    except OfflineModeIsEnabled as error:
        raise WeightsNotFound(_unreachable(asked, "HF_HUB_OFFLINE is set", ways)) from error
    except (LocalEntryNotFoundError, HFValidationError, OSError) as error:
        cause = error.__cause__ or error
        if isinstance(cause, OfflineModeIsEnabled):
            why = "HF_HUB_OFFLINE is set"
        else:
            why = f"{hub}: {str(cause).splitlines()[0] if str(cause) else type(cause).__name__}"
        raise WeightsNotFound(_unreachable(asked, why, ways)) from error
    folder = Path(found)
    absent = [f for f in files if not (folder / f).is_file()]
    if absent:
        raise WeightsNotFound(f"weights {asked!r} at {hub} have no {' and no '.join(absent)}")
    for name in files:
        _verify(folder / name, asked)
    return folder


def _telling(tell: Tell) -> type[Any]:
    """A progress bar of the hub's kind that draws nothing and tells."""
    from huggingface_hub import utils

    bar: Any = utils.tqdm  # type: ignore[attr-defined]

    class Telling(bar):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs | {"file": StringIO(), "disable": False})

        def update(self, n: float | None = 1) -> bool | None:
            drawn: bool | None = super().update(n)
            if getattr(self, "unit", "") == "B":
                tell(int(self.n), int(self.total or 0))
            return drawn

    return Telling


def _unreachable(asked: str, why: str, ways: str) -> str:
    return (
        f"weights {asked!r} are neither a folder here, nor cached, nor reachable on the hub "
        f"({why}); either run once where huggingface.co can be reached, {ways}"
    )


def _verify(file: Path, asked: str) -> None:
    """The cache names large files by the sha256 that the hub states. Raises WeightsNotFound for
    bytes that are others, and removes them: the next try fetches them anew."""

    blob = file.resolve()
    if len(blob.name) != SHA256_LENGTH or blob.parent.name != "blobs":
        return  # small files are named by git's own hash; without symbolic links there is no name
    with blob.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != blob.name:
        file.unlink()
        blob.unlink()
        raise WeightsNotFound(
            f"{file.name} of {asked!r} came with sha256 {found[:12]}... where the hub states "
            f"{blob.name[:12]}...: it was broken or altered on its way and is removed; try again"
        )


def fetch_weights(model: str, pretrained: str, tell: Callable[[str, int, int], None]) -> None:
    """Have on this machine what a built-in family starts from, fetching only what is not cached;
    `tell` is called with the id, the bytes here and all there are. A plug-in's are fetched by its
    own workers. Raises WeightsNotFound."""
    for asked in _ids(model, pretrained):
        if cached(asked, FILES) is None:
            tell(asked, 0, 0)
            download(asked, FILES, partial(tell, asked))


def weights_from(model: str, pretrained: str | None, published: str = "") -> list[str]:
    """Where the weights that a run started from came from, each as ID@COMMIT or as a folder; []
    from scratch, and for a plug-in that does not say which id it calls `published`."""
    if pretrained is None:
        return []
    folder = Path(pretrained).expanduser()
    if folder.is_dir():
        return [origin(folder)]
    asked = published if published and pretrained == "published" else pretrained
    ids = [asked] if published else _ids(model, pretrained)
    found = [cached(one, FILES) for one in ids]
    return [origin(folder) for folder in found if folder is not None]


def _ids(model: str, pretrained: str) -> list[str]:
    """The Hugging Face ids behind a name."""
    if model == "kronos":
        names = list(dict.fromkeys(kronos_pair(pretrained).values()))
    elif model in PUBLISHED:
        names = [PUBLISHED[model] if pretrained == "published" else pretrained]
    else:
        return []
    return [name for name in names if not Path(name).expanduser().is_dir()]


def kronos_pair(name: str) -> dict[str, str]:
    """Hugging Face id or folder of each of Kronos' nets, by net. Raises WeightsNotFound for one
    whose tokenizer nobody names."""
    predictor, _, tokenizer = name.partition("+")
    predictor = predictor if Path(predictor).is_dir() else KRONOS.get(predictor, predictor)
    tokenizer = tokenizer or KRONOS_TOKENIZERS.get(weights_id(predictor), "")
    if not tokenizer:
        what = "one net" if Path(name).expanduser().is_dir() else "no folder here"
        raise WeightsNotFound(
            f"{name!r} is {what} and no Kronos whose tokenizer is known "
            f"({', '.join(KRONOS_TOKENIZERS)}); either name both as PREDICTOR+TOKENIZER "
            f"(Hugging Face ids or folders), or give --pretrained a folder with the subfolders "
            f"tokenizer and model"
        )
    return {"tokenizer": tokenizer, "predictor": predictor}


def origin(folder: Path) -> str:
    """Where weights in a folder come from, for a card: ID@COMMIT for the cache of the hub, else the
    folder."""
    if folder.parent.name == SNAPSHOTS and folder.parent.parent.name.startswith("models--"):
        repo = folder.parent.parent.name.removeprefix("models--").replace("--", "/")
        return f"{repo}@{folder.name}"
    return str(folder.resolve())
