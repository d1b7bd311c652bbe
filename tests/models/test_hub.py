"""Pretrained weights from the hub: fetched, resumed, verified, or refused with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from foresweep.errors import WeightsNotFound
from foresweep.models.hub import cached, download, find_weights, origin
from hub_server import COMMIT, OLDER, Hub, serving

REPO = "somebody/weights"
FILES = ("config.json", "model.safetensors")
CONTENT = {"config.json": b"{}", "model.safetensors": bytes(range(256)) * 40, "README.md": b"no"}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import constants

    with serving(Hub({REPO: CONTENT}, older={REPO: CONTENT | {"config.json": b"[]"}})) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(
            constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            hub.url + "/{repo_id}/resolve/{revision}/{filename}",
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield hub


def find(pretrained: str = "published") -> Path:
    return find_weights(pretrained, published=REPO, files=FILES)


def test_a_local_folder_of_weights_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "w").touch()
    assert find_weights(str(tmp_path), published="A/B", files=("w",)) == tmp_path


def test_a_local_folder_without_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsNotFound, match=r"has no w and no c"):
        find_weights(str(tmp_path), published="A/B", files=("w", "c"))


@pytest.mark.parametrize("pretrained", ["published", "nobody/nothing", "/no/such/folder"])
def test_weights_out_of_reach_name_both_ways_out(
    pretrained: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsNotFound, match=r"run once where .* reached, or give .* a folder"):
        find_weights(pretrained, published="Datadog/Toto-Open-Base-1.0", files=("w",))


def test_weights_are_fetched_once_and_their_commit_is_known(hub: Hub) -> None:
    assert cached(REPO, FILES) is None
    folder = find()
    assert {n: (folder / n).read_bytes() for n in FILES} == {n: CONTENT[n] for n in FILES}
    assert not (folder / "README.md").exists()
    assert origin(folder) == f"{REPO}@{COMMIT}"
    asked = len(hub.asked)
    assert find() == folder
    assert len(hub.asked) == asked  # the cache asks nobody


def test_a_revision_that_is_named_is_the_one_that_comes(hub: Hub) -> None:
    folder = find(f"{REPO}@{OLDER}")
    assert (folder / "config.json").read_bytes() == b"[]"
    assert origin(folder) == f"{REPO}@{OLDER}"
    assert origin(find()) == f"{REPO}@{COMMIT}"
    with pytest.raises(WeightsNotFound, match="no revision 'nonesuch'"):
        find(f"{REPO}@nonesuch")


def test_a_download_that_broke_off_goes_on_where_it_stopped(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    hub.stops_after = 4000
    try:
        folder = find()
    except WeightsNotFound:
        folder = find()
    assert (folder / "model.safetensors").read_bytes() == CONTENT["model.safetensors"]
    assert any(int(r.removeprefix("bytes=").partition("-")[0]) > 0 for r in hub.ranges)


def test_bytes_that_are_not_those_of_their_hash_are_refused_and_fetched_anew(hub: Hub) -> None:
    hub.altered = True
    with pytest.raises(WeightsNotFound, match=r"model.safetensors .* broken or altered"):
        find()
    hub.altered = False
    assert (find() / "model.safetensors").read_bytes() == CONTENT["model.safetensors"]


def test_gated_weights_say_where_their_licence_is_accepted(hub: Hub) -> None:
    hub.gated.add(REPO)
    with pytest.raises(WeightsNotFound, match=rf"gated: accept their licence at {hub.url}/{REPO}"):
        find()


def test_a_name_that_the_hub_does_not_know_is_said(hub: Hub) -> None:
    with pytest.raises(WeightsNotFound, match="knows no weights 'nobody/nothing'"):
        find("nobody/nothing")


def test_a_repository_without_the_files_says_which(hub: Hub) -> None:
    hub.files["a/b"] = {"config.json": b"{}", "pytorch_model.bin": b"pickle"}
    with pytest.raises(WeightsNotFound, match=r"'a/b' at .* have no model.safetensors"):
        download("a/b", FILES)


def test_without_a_network_the_address_that_did_not_answer_is_named(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WeightsNotFound, match=r"nor reachable on the hub \(http://127.0.0.1:9: "):
        find()


def test_what_is_cached_is_found_offline(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    folder = find()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert find() == folder
    with pytest.raises(WeightsNotFound, match="HF_HUB_OFFLINE is set"):
        find("somebody/else")
