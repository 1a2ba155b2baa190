"""Plug-ins of real distributions: folders with metadata and a module, put on ``sys.path``."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flexgnn.backends.arrow import ArrowBackend
from flexgnn.backends.ram import RamBackend
from flexgnn.core.errors import PluginError
from flexgnn.core.plugins import Plugins, load_plugins
from flexgnn.planners.greedy import GreedyPlanner

Install = Callable[..., Plugins]

WORKING = """
from flexgnn.backends.arrow import ArrowBackend
from flexgnn.core.graph.dataset import Dataset
from flexgnn.core.hookspecs import hookimpl

class Other(ArrowBackend):
    "Another backend.\\n\\nIts second paragraph."
    name = "other"

@hookimpl
def flexgnn_list_tier_backends():
    return [Other]

@hookimpl
def flexgnn_list_datasets():
    return (Dataset("ring", "A ring of nodes.", None),)
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a distribution with one plug-in module, and loads all plug-ins again."""

    def install(
        package: str, source: str, *, module: str | None = None, plugin: str = "other", metadata: str = ""
    ) -> Plugins:
        site = tmp_path / package
        info = site / f"{package}-1.2.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n{metadata}")
        (info / "entry_points.txt").write_text(f"[flexgnn]\n{plugin} = {module or package}\n")
        (site / f"{package}.py").write_text(source)
        monkeypatch.syspath_prepend(site)
        load_plugins.cache_clear()
        return load_plugins()

    yield install
    load_plugins.cache_clear()
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def usable(plugins: Plugins) -> set[tuple[str, str]]:
    return {(entry.kind, entry.name) for entry in plugins.entries() if entry.usable}


BUILT_IN = usable(load_plugins())


def test_built_ins_come_through_entry_points() -> None:
    plugins = load_plugins()
    assert plugins.problems == []
    assert plugins.tier_backend("arrow") is ArrowBackend
    assert plugins.compute_backend("ram") is RamBackend
    assert plugins.planner("greedy") is GreedyPlanner
    assert plugins.dataset("wordnet").name == "wordnet"
    own = [entry for entry in plugins.entries() if entry.package == "flexgnn"]
    assert {entry.name for entry in own} >= {"arrow", "zarr", "lmdb", "ram", "greedy", "wordnet"}
    for entry in own:
        assert entry.version
        assert entry.summary


def test_plugins_are_loaded_once() -> None:
    assert load_plugins() is load_plugins()


def test_a_third_party_plug_in(install: Install) -> None:
    plugins = install("flexgnn_other", WORKING)
    assert plugins.tier_backend("other").__module__ == "flexgnn_other"
    assert plugins.dataset("ring").summary == "A ring of nodes."
    (entry,) = [e for e in plugins.entries() if e.name == "other"]
    assert (entry.kind, entry.name, entry.package, entry.version) == ("SSD backend", "other", "flexgnn_other", "1.2")
    assert entry.usable
    assert entry.summary == "Another backend."
    assert plugins.problems == []


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def (", "SyntaxError: "),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise RuntimeError('two\\nlines')", "RuntimeError: two lines"),
        ("from flexgnn.core.tier import Missing", "ImportError: cannot import name 'Missing'"),
        ("import absent_module", "it needs the module 'absent_module': install it."),
        (
            WORKING.replace("list_tier", "list_teir"),
            "unknown hook 'flexgnn_list_teir_backends'; the hooks are flexgnn_",
        ),
        (WORKING.replace("flexgnn_list_tier_backends", "tiers"), "unknown hook 'tiers'"),
        (WORKING.replace("@hookimpl\n", ""), "is not marked with flexgnn.hookimpl"),
        (WORKING.replace("datasets()", "datasets(path)"), "PluginValidationError: "),
        (WORKING.replace("return [Other]", "return 7"), "TypeError: "),
        (WORKING.replace("return [Other]", "raise OSError('no device')"), "OSError: no device"),
    ],
)
def test_a_broken_plug_in_is_told_of_and_stops_nothing(install: Install, source: str, reason: str) -> None:
    plugins = install("broken", source)
    assert usable(plugins) == BUILT_IN
    (problem,) = plugins.problems
    assert problem.startswith("The plug-in 'other' of broken 1.2 can't be used: ")
    assert reason in problem
    assert "\n" not in problem
    with pytest.raises(PluginError, match="The plug-in 'other' of broken can't be used: "):
        plugins.tier_backend("other")


def test_an_entry_point_whose_module_is_missing(install: Install) -> None:
    (problem,) = install("broken", "", module="elsewhere.backend").problems
    assert "ModuleNotFoundError: No module named 'elsewhere'" in problem


@pytest.mark.parametrize("extra", ["extra == 'disk'", 'python_version >= "3.8" and extra == "disk"'])
def test_a_missing_module_names_the_extra_that_brings_it(install: Install, extra: str) -> None:
    metadata = f"Provides-Extra: disk\nRequires-Dist: numpy\nRequires-Dist: Absent-Module>=2 ; {extra}\n"
    (problem,) = install("broken", "import absent_module.part", metadata=metadata).problems
    assert problem.endswith("it needs the module 'absent_module': pip install 'broken[disk]'.")


def test_an_entry_point_can_name_its_extra(install: Install) -> None:
    (problem,) = install("broken", "import absent_module", module="broken [fast]").problems
    assert problem.endswith("pip install 'broken[fast]'.")


@pytest.mark.parametrize(
    ("replace", "by", "reason"),
    [
        ("Other(ArrowBackend)", "Other", "it is no subclass of TierBackend."),
        ("return [Other]", "return ['other']", "it is no subclass of TierBackend."),
        ('name = "other"', "name = 7", "Other has no name."),
        (
            "return [Other]",
            "from flexgnn.core.tier import TierBackend; return [type('Half', (TierBackend,), {'name': 'half'})]",
            "it lacks close, find_blob, flush, keys, read_blob, remove_blob, write_blob of TierBackend.",
        ),
        ('(Dataset("ring", "A ring of nodes.", None),)', "['ring']", "it is no Dataset."),
    ],
)
def test_what_does_not_meet_its_contract(install: Install, replace: str, by: str, reason: str) -> None:
    plugins = install("broken", WORKING.replace(replace, by))
    (problem,) = plugins.problems
    assert reason in problem
    assert usable(plugins) >= BUILT_IN


def test_a_name_that_is_taken_stays_with_flexgnn(install: Install) -> None:
    plugins = install("another", WORKING.replace('"other"', '"arrow"'))
    assert plugins.tier_backend("arrow") is ArrowBackend
    (problem,) = plugins.problems
    assert problem == ("The SSD backend 'arrow' of another 1.2 can't be used: flexgnn brings one of that name already.")
    assert plugins.dataset("ring").name == "ring"


def test_of_two_third_parties_the_first_by_name_wins(install: Install) -> None:
    install("zeta", WORKING)
    plugins = install("alpha", WORKING)
    assert plugins.tier_backend("other").__module__ == "alpha"
    assert [problem.partition(" can't")[0] for problem in plugins.problems] == [
        "The SSD backend 'other' of zeta 1.2",
        "The data set 'ring' of zeta 1.2",
    ]


def test_one_name_for_two_kinds_is_no_clash(install: Install) -> None:
    plugins = install("another", WORKING.replace('"ring"', '"arrow"'))
    assert plugins.problems == []
    assert plugins.dataset("arrow").name == "arrow"


def test_a_module_called_like_a_hook_is_none(install: Install) -> None:
    source = "import flexgnn_helper\n" + WORKING
    helper = "from flexgnn.core.hookspecs import hookimpl"
    install("flexgnn_helper", helper, plugin="helper")
    assert install("another", source).problems == []


def test_an_unknown_name_is_answered_with_those_that_exist() -> None:
    plugins = load_plugins()
    with pytest.raises(PluginError, match=r"no SSD backend 'arow'. Did you mean 'arrow'\? There are: arrow"):
        plugins.tier_backend("arow")
    with pytest.raises(PluginError, match=r"no compute backend 'tpu'. There are: .*ram"):
        plugins.compute_backend("tpu")
    with pytest.raises(PluginError, match=r"no planner 'gredy'. Did you mean 'greedy'\?"):
        plugins.planner("gredy")
    with pytest.raises(PluginError, match=r"no data set 'wordnt'. Did you mean 'wordnet'\?"):
        plugins.dataset("wordnt")


def test_an_environment_without_any_plug_in() -> None:
    with pytest.raises(PluginError, match=r"no planner 'greedy' and no other"):
        Plugins([]).planner("greedy")
