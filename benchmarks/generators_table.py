"""Write the tables of docs/generators.md and docs/integrations.md: `python -m benchmarks.generators_table`.

From the results that benchmarks.generators, .coverage, .compare_speed and .reward_hacking wrote.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from benchmarks.common import filled

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
WAYS = ("images as independent", "image pairs, prompts ignored", "percentile bootstrap over prompts")
BOOTSTRAPS = ("BCa bootstrap over prompts", "leafiqa")


def read(name: str) -> dict | list:
    """Return a benchmark's results."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def short(value: float, digits: int = 3) -> str:
    """Return a number below one without its zero."""
    return re.sub(r"^(-?)0\.", r"\1.", f"{value:.{digits}f}")


def people() -> str:
    """Return the table of verdicts against human scores."""
    lines = [
        '| generators | prompts | tau of means | verdicts "better" | confirmed | open | contradicted |',
        "|---|---|---|---|---|---|---|",
    ]
    for row in read("generators"):
        what = f"{row['generators']} {'generators' if row['by'] == 'generator' else 'settings'}, {row['split']}"
        for name, counts in row.items():
            if not (name.endswith("prompts") and isinstance(counts, dict)):
                continue
            of = [counts.get(kind, 0) for kind in ("confirmed", "open", "contradicted")]
            whole = name == "all prompts"
            prompts = f"all {row['prompts']}" if whole else f"{name.split()[0]}, {counts['draws']} draws"
            tau = row["tau"] if whole else counts["mean tau"]
            shares = " | ".join(f"{100 * count / sum(of):.1f} %" for count in of)
            lines.append(f"| {what} | {prompts} | {short(tau)} | {sum(of)} | {shares} |")
    return "\n".join(lines)


def coverage() -> str:
    """Return the table of coverage, and what else was simulated."""
    found = read("coverage")
    ways = (*WAYS, *BOOTSTRAPS)
    lines = [f"| prompts | seeds | {' | '.join(ways)} |", f"|---|---|{'---|' * len(ways)}"]
    for row in found["coverage"]:
        if row["level"] == "near the top":
            cells = " | ".join(short(row[way]) for way in ways)
            lines.append(f"| {row['prompts']} | {row['seeds']} | {cells} |")
    all_of = [row["leafiqa"] for row in found["coverage"]]
    rows = {(row["prompts"], row["seeds"]): row for row in found["errors_and_power"]}
    one, naive = rows[(30, 4)], "images as independent"
    family = found["family_and_floor"]
    equal, apart, many = one["equal"], one["different"], rows[(100, 4)]["different"]
    any_pair = "any of six equal pairs called different"
    floor = family["two runs of one generator differ by less than the noise floor"]
    lines += [
        "",
        f"Over both cases leafiqa's intervals cover {short(min(all_of))} to {short(max(all_of))}. With 30 prompts and "
        f"4 seeds two equal generators are called different in {100 * equal['leafiqa']:.1f} % of trials "
        f"({100 * equal[naive]:.1f} % if images are taken as independent; at 16 seeds "
        f"{100 * rows[(30, 16)]['equal'][naive]:.0f} %), two that differ by a third of a standard deviation in "
        f"{100 * apart['leafiqa']:.0f} %; with 100 prompts in {100 * many['leafiqa']:.0f} %. Of six pairs of equal "
        f"generators any is called different in {100 * family[f'{any_pair}, corrected']:.1f} % (without correction "
        f"{100 * family[f'{any_pair}, not corrected']:.0f} %). Two runs of one generator differ by less than the noise "
        f"floor in {100 * floor:.1f} %.",
    ]
    return "\n".join(lines)


def speed() -> str:
    """Return a sentence on what comparing costs."""
    found = read("compare_speed")
    return (
        f"three folders of {found['pictures'] // 3:,} pictures of 512 pixels took {found['compare / score']:.2f} times "
        f"what `leafiqa score` takes, {found['compare with page / score']:.2f} times with the page "
        f"({found['page in MB']:.0f} MB), and {found['again, from the cache, with page / score']:.2f} times when "
        "repeated (`python -m benchmarks.compare_speed`)."
    )


def hacking() -> str:
    """Return the table of what optimising does and what the guard hears."""
    found = read("reward_hacking")
    lines = [
        "| optimised | steps | `leaf` | other student | PSNR | alarms with prompts | alarms without |",
        "|---|---|---|---|---|---|---|",
    ]

    def heard(alarms: list[str]) -> str:
        return ", ".join(alarm.split(" is ")[0].replace("_", " ") for alarm in alarms) or "none"

    for way, stages in found["ways"].items():
        for step, of in stages.items():
            if int(step) == 0 and way != "pixels":
                continue
            name = "nothing" if int(step) == 0 else way
            psnr = "" if of["psnr"] is None else f"{of['psnr']:.0f} dB"
            lines.append(
                f"| {name} | {step} | {short(of['score'], 2)} | {short(of['other student'], 2)} | {psnr} | "
                f"{heard(of['alarms with prompts'])} | {heard(of['alarms without prompts'])} |"
            )
    false = found["false_alarms"]
    lines += [
        "",
        f"False alarms on pictures that nobody optimised: {100 * false['with prompts']:.1f} % with prompts, "
        f"{100 * false['without prompts']:.1f} % without.",
    ]
    return "\n".join(lines)


def pages() -> dict[Path, str]:
    """Return the pages with their tables."""
    generators, integrations = ROOT / "docs" / "generators.md", ROOT / "docs" / "integrations.md"
    text = filled(generators.read_text(encoding="utf-8"), "generators", people())
    text = filled(filled(text, "coverage", coverage()), "speed", speed(), inline=True)
    return {
        generators: text,
        integrations: filled(integrations.read_text(encoding="utf-8"), "hacking", hacking()),
    }


if __name__ == "__main__":
    for page, content in pages().items():
        page.write_text(content, encoding="utf-8")
