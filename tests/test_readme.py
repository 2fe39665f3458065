"""README and docs: figures are those of the cards, commands and names exist, links lead somewhere."""

import json
import re
import shlex
from pathlib import Path

import click
import pytest

import leafiqa
from benchmarks import details, explain, generators_table, rating_table, readme, speed_tables, unseen
from leafiqa.cli.main import cli

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_readmes_figures_are_the_cards():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.readme(text) == text, "run python -m benchmarks.readme"
    card = leafiqa.model_card("leaf")
    for row in card.accuracy:
        assert readme.figure(row["srcc"], row["srcc_interval"]) in text
        assert readme.figure(row["plcc"], row["plcc_interval"]) in text
    assert text.count("<!-- /") == 3 and "| `leaf` (`leaf_lite0.general`) | none |" in text


def test_info_prints_the_same_figures():
    from tests.conftest import invoke

    printed = invoke("info", "leaf").stdout
    for row in leafiqa.model_card("leaf").accuracy:
        low, high = row["srcc_interval"]
        assert f"SRCC {row['srcc']:.3f} [{low:.3f}, {high:.3f}]" in printed
    assert "50 % below" in printed


def commands():
    for page in PAGES:
        for block in re.findall(r"^ *```(?:bash)?\n(.*?)^ *```$", page.read_text(encoding="utf-8"), re.M | re.S):
            for line in block.splitlines():
                line = line.strip().removeprefix("$ ")
                if re.match(r"(leafiqa|torchrun .* -m leafiqa) ", line):
                    yield page.name, line[line.index("leafiqa ") :]


def test_the_tables_of_the_docs_are_those_of_the_benchmarks():
    for page, text in (
        *generators_table.pages().items(),
        (rating_table.PAGE, rating_table.page()),
        (explain.PAGE, explain.page()),
        (details.PAGE, details.page()),
        (unseen.PAGE, unseen.page()),
        *speed_tables.pages().items(),
    ):
        assert page.read_text(encoding="utf-8") == text, f"run python -m benchmarks.{page.stem}'s table"
        for name in re.findall(r"<!-- (\w+): made by", text):
            assert re.search(rf"<!-- {name}: [^>]*-->\s*\S.*?<!-- /{name} -->", text, re.S), (page.name, name)


def test_every_command_in_the_docs_parses(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    seen = set()
    for page, line in commands():
        _, name, *arguments = shlex.split(line, comments=True)
        try:
            cli.commands[name].make_context(name, arguments)
        except click.exceptions.Exit:
            pass
        except click.ClickException as error:
            pytest.fail(f"{page}: {line}: {error.format_message()}")
        seen.add(name)
    assert seen >= {"score", "info", "select", "calibrate", "eval", "label", "import", "distill", "evidence"} - {
        "import"
    }


def test_every_verb_and_option_in_the_docs_exists():
    params = [param for command in cli.commands.values() for param in command.params]
    options = {option for param in params for option in (*param.opts, *param.secondary_opts)}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for verb in re.findall(r"\bleafiqa\.([a-z_]+)\(", text):
            assert hasattr(leafiqa, verb), (page.name, verb)
        for module in re.findall(r"\bleafiqa/([\w/]+\.(?:py|toml))", text):
            assert (ROOT / "leafiqa" / module).exists(), (page.name, module)
        for option in re.findall(r"`(--[a-z-]+)", text):
            elsewhere = {"--quick", "--write-card", "--metric", "--runs", "--select", "--only"}
            assert option in options | elsewhere, (page.name, option)


def test_links_lead_somewhere():
    for page in [*PAGES, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\(([^)#\s]*)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if target and not target.startswith("http"):
                assert (page.parent / target).exists(), (page.name, target)


def test_help_tells_each_option_in_one_way():
    """The same option has the same form wherever it stands, and no help text is cut."""
    forms: dict = {}
    for name, command in cli.commands.items():
        assert command.short_help and len(command.short_help) < 66, name
        for param in command.params:
            if isinstance(param, click.Option):
                for option in param.opts:
                    kind = (param.is_flag, type(param.type).__name__, param.nargs)
                    forms.setdefault(option, {}).setdefault(kind, []).append(name)
                assert param.help, (name, param.opts)
    # -o of calibrate is a student, FOLDER/arch.tag, which may not be there yet; --by of compare a difference.
    allowed = {"-o", "--output", "--min", "--by"}
    assert {option: uses for option, uses in forms.items() if len(uses) > 1 and option not in allowed} == {}
    for name in cli.commands:
        assert "..." not in [
            line.strip()[-3:] for line in cli.get_command(None, name).get_short_help_str(80).splitlines()
        ]


def test_agreement_on_newer_generators_is_what_was_measured():
    told = json.loads((ROOT / "benchmarks" / "results" / "explain.json").read_text(encoding="utf-8"))
    of = told["sources"]["generated"]
    value = readme.figure(of["srcc_with_teacher"], of["srcc_interval"])
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"`leaf` agrees with its teacher at {value}, n = {of['n']} " in text
