"""Names to families: what a plug-in brings is found, and what is wrong with it is said."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from foresweep.errors import MissingExtra, ModelError
from foresweep.models import registry
from foresweep.models.base import pick_device
from foresweep.models.checkpoint import write_checkpoint
from foresweep.search.plan import SweepPlan
from planted_model import plugin


def test_a_plugin_s_space_and_module_are_found_without_importing_it(tmp_path: Path) -> None:
    with plugin(tmp_path, space='model = "guest"\n'):
        assert registry.module_of("guest") == "guest_package.model"
        assert registry.space_text("guest") == 'model = "guest"\n'
        assert "guest_package.model" not in sys.modules


def test_a_built_in_s_space_lies_beside_its_module() -> None:
    assert 'model = "kronos"' in (registry.space_text("kronos") or "")
    assert registry.space_text("drift") is None


def test_a_plugin_that_cannot_be_imported_is_named_with_its_package(tmp_path: Path) -> None:
    with (
        plugin(tmp_path, module="import nothing_like_this\n"),
        pytest.raises(ModelError, match=r"'guest' of the package guest-plugin.*nothing_like_this"),
    ):
        registry.get_model("guest")


def test_a_plugin_without_the_promised_class_is_named(tmp_path: Path) -> None:
    with plugin(tmp_path, module="x = 1\n"), pytest.raises(ModelError, match="Guest"):
        registry.get_model("guest")


def test_a_name_that_two_packages_claim_belongs_to_neither(tmp_path: Path) -> None:
    with plugin(tmp_path):
        (tmp_path / "second-0.1.dist-info").mkdir()
        info = tmp_path / "second-0.1.dist-info"
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: second\nVersion: 0.1\n")
        (info / "entry_points.txt").write_text("[foresweep.models]\nguest = second:Guest\n")
        registry.look_anew()
        with pytest.raises(ModelError, match=r"claimed by guest-plugin.*and second"):
            registry.get_model("guest")


def test_a_plugin_s_checkpoint_says_which_packages_made_it(tmp_path: Path) -> None:
    with plugin(tmp_path):
        made = write_checkpoint(tmp_path / "checkpoint", model="guest", config={})
    assert made.card["versions"]["guest-plugin"] == "0.1"
    assert set(made.card["versions"]) >= {"numpy", "foresweep"}


OLD = """from foresweep.models.baselines.naive import Drift


class Guest(Drift):
    name = "guest"

    def train(self, train, config, resources, *, seed, horizon, score, report, out, resume=None):
        raise AssertionError("not reached")
"""


def test_a_plugin_whose_train_takes_the_old_arguments_is_refused_by_name(tmp_path: Path) -> None:
    with (
        plugin(tmp_path, module=OLD),
        pytest.raises(ModelError, match=r"'guest' of the package guest-plugin.*train\(job\)"),
    ):
        registry.get_model("guest")


@pytest.mark.parametrize(
    ("name", "package"), [("toto", "toto"), ("kronos", "kronos_finance"), ("chronos2", "peft")]
)
def test_a_family_whose_package_is_absent_names_what_to_install_before_data_are_read(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = registry.find_spec
    monkeypatch.setattr(registry, "find_spec", lambda p: None if p == package else there(p))
    with pytest.raises(MissingExtra, match=rf"{package}.*pip install 'foresweep\[models\]'"):
        SweepPlan(models=(name,), data="/no/such/folder").checked()
    with pytest.raises(MissingExtra, match=package):
        registry.get_model(name)


def test_a_baseline_is_swept_where_no_torch_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert pick_device("auto") == "cpu"
    with pytest.raises(MissingExtra, match="torch"):
        pick_device("cuda")
    assert SweepPlan(models=("har",)).checked().models == ("har",)
