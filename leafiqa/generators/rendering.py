"""A comparison of generators as text for a terminal, Markdown and LaTeX."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from leafiqa.files import printable
from leafiqa.generators.comparing import GeneratorSummary, MetricResult, PairResult

if TYPE_CHECKING:
    from leafiqa.generators.generator_comparison import GeneratorComparison

NOT_QUALITY = (
    "A score says how good single pictures look. It does not say whether they show what the prompt asks for, nor "
    "whether they differ from each other."
)
_CURVE = (1, 2, 4, 8, 16, 32)


def number(value: float | None, digits: int = 3, sign: bool = False) -> str:
    """Return a number to so many decimals, a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "-"
    # Adding zero makes -0.0 of a value that rounds to nothing 0.0.
    return f"{round(value, digits) + 0.0:{'+' if sign else ''}.{digits}f}"


def interval(ends: tuple[float, float], digits: int = 3, sign: bool = False) -> str:
    """Return an interval in brackets, nothing where there is none."""
    if not all(map(math.isfinite, ends)):
        return ""
    return f"[{number(ends[0], digits, sign)}, {number(ends[1], digits, sign)}]"


def percent(share: float | None) -> str:
    """Return a share in per cent."""
    return "-" if share is None or not math.isfinite(share) else f"{100 * share:.0f} %"


def chance(p: float) -> str:
    """Return a p value."""
    return "-" if not math.isfinite(p) else "<.001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def rank(result: MetricResult, name: str) -> str:
    """Return the rank, or the range of ranks, that a generator may have."""
    if name not in result.ranks:
        return "-"
    best, worst = result.ranks[name]
    return str(best) if best == worst else f"{best}-{worst}"


def headline(result: MetricResult) -> str:
    """Return the one sentence that a reader wants first."""
    names = [of.name for of in result.generators if of.name in result.ranks]
    if len(names) < 2:
        return "Fewer than two generators have scores: nothing to compare."
    if len(names) == 2:
        words = result.pairs[0].verdict.words
        return f"{words[0].upper()}{words[1:]}." if words.startswith(("no ", "cannot ", "one ")) else f"{words}."
    best = printable(names[0])
    over = {name: _better_of(result, names[0], name) for name in names[1:]}
    if worse := [printable(name) for name, better in over.items() if better == name]:
        return (
            f"No generator is clearly the best: {best} stands highest over all pairs, but {', '.join(worse)} "
            f"{'is' if len(worse) == 1 else 'are'} better than it on the prompts that both have."
        )
    rivals = [printable(name) for name, better in over.items() if better is None]
    if not rivals:
        return f"{best} is better than {'both' if len(names) == 3 else f'all {len(names) - 1}'} others."
    if len(rivals) == len(names) - 1:
        return f"No generator is clearly the best: {best} stands highest, and cannot be told apart from any other."
    return (
        f"{best} stands highest and is better than {len(over) - len(rivals)} of {len(over)} others; it cannot be told "
        f"apart from {', '.join(rivals)}."
    )


def _better_of(result: MetricResult, first: str, second: str) -> str | None:
    """Return which of two generators is significantly better, None if neither is shown to be."""
    pair = result.pair(first, second)
    return None if pair is None else pair.better


def curve_points(of: GeneratorSummary) -> list[tuple[int, float]]:
    """Return some points of a generator's best-of-N curve: 1, 2, 4, ... and the last."""
    last = len(of.best_of)
    return [(n, of.best_of[n - 1]) for n in sorted({*(n for n in _CURVE if n <= last), last} - {0})]


def _grid(header: list[str], rows: list[list[str]]) -> list[str]:
    """Return aligned lines: text columns left, number columns right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    left = {"generator", "verdict", "95 %", "first - second", "prompt"}
    lines = []
    for row in [header, *rows]:
        cells = [
            cell.ljust(width) if name in left else cell.rjust(width) for name, cell, width in zip(header, row, widths)
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def _table(result: MetricResult, below: float | None) -> tuple[list[str], list[list[str]]]:
    header = ["rank", "generator", "mean", "95 %", "median", "worst 5 %"]
    header += [] if below is None else [f"below {below:g}"]
    header += ["prompts", "images", "failed"]
    rows = []
    for of in result.generators:
        row = [rank(result, of.name), printable(of.name), number(of.mean), interval(of.interval), number(of.median)]
        row += [number(of.worst), *([] if below is None else [percent(of.below)])]
        rows.append([*row, str(of.prompts), str(of.images), str(of.failed)])
    return header, rows


def _pair_table(result: MetricResult) -> tuple[list[str], list[list[str]]]:
    header = ["first - second", "difference", "95 %", "won", "effect", "r", "p", "p corrected", "prompts", "verdict"]
    rows = []
    for pair in result.pairs:
        rows.append(
            [
                f"{printable(pair.first)} - {printable(pair.second)}",
                number(pair.difference, sign=True),
                interval(pair.interval, sign=True),
                percent(pair.won),
                number(pair.effect, 2),
                number(pair.correlation, 2),
                chance(pair.p),
                chance(pair.corrected_p),
                str(pair.prompts),
                pair.verdict.words,
            ]
        )
    return header, rows


def text(comparison: GeneratorComparison) -> str:
    """Return a comparison for a terminal."""
    lines: list[str] = []
    prompts = comparison.prompts()
    for result in comparison.metrics:
        weights = f", weights {result.weights[:12]}" if result.weights else ""
        lines += ["", f"# {printable(result.metric)}{weights}", headline(result), ""]
        lines += _grid(*_table(result, comparison.below))
        alike = [group for group in result.groups if len(group) > 1]
        if alike:
            told = "; ".join(", ".join(map(printable, group)) for group in alike)
            lines.append(f"cannot be told apart: {told}")
        lines += ["", *_grid(*_pair_table(result))]
        lines.append(
            f"(95 % intervals over prompts; p by sign flips, corrected for {_tested(result)} pair(s) by Holm; "
            f"differences up to {result.margin:.2g} are taken not to matter)"
        )
        lines += _noise_lines(result)
        curves = [of for of in result.generators if len(of.best_of) > 1]
        if curves:
            lines.append("")
            lines += [
                f"best of N, {printable(of.name)}: " + ", ".join(f"{n}: {mean:.3f}" for n, mean in curve_points(of))
                for of in curves
            ]
        for pair in result.pairs:
            lines += _prompt_lines(pair, prompts, 5 if len(result.pairs) == 1 else 2)
    if comparison.agreement:
        lines += ["", "# agreement of metrics"]
        lines += [
            f"{printable(of.first)} and {printable(of.second)}: SRCC over pictures {number(of.srcc, 2)}, tau of the "
            f"generators' means {number(of.tau, 2)}; verdicts: {of.same} the same, {of.opposed} opposed"
            for of in comparison.agreement
        ]
    lines += ["", NOT_QUALITY]
    return "\n".join(lines).lstrip("\n")


def _tested(result: MetricResult) -> int:
    return sum(math.isfinite(pair.p) for pair in result.pairs)


def _noise_lines(result: MetricResult) -> list[str]:
    floors = [of for of in result.generators if math.isfinite(of.noise)]
    if not floors:
        return []
    told = ", ".join(f"{printable(of.name)} {of.noise:.3f}" for of in floors)
    return [f"noise floor (two runs of one generator with other seeds differ by less, 95 %): {told}"]


def _prompt_lines(pair: PairResult, prompts: dict[str, str], count: int) -> list[str]:
    found = []
    for words, of in (
        ("lower", pair.prompt_differences[:count]),
        ("higher", pair.prompt_differences[::-1][:count]),
    ):
        chosen = [one for one in of if (one.difference < 0) == (words == "lower") and one.difference != 0]
        if chosen:
            told = "; ".join(f"{one.difference:+.3f} {_short(prompts[one.unit])}" for one in chosen)
            found.append(f"{printable(pair.first)} {words} than {printable(pair.second)}: {told}")
    return ["", *found] if found else []


def _short(prompt: str) -> str:
    prompt = printable(prompt)
    return prompt if len(prompt) <= 60 else f"{prompt[:57]}..."


def _markdown_table(header: list[str], rows: list[list[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(_marked(cell) for cell in line) + " |" for line in lines]


def _marked(text: str) -> str:
    """Return text for Markdown in which nothing is a mark or an HTML element."""
    return re.sub(r"([\\|*_`\[\]])", r"\\\1", text).replace("&", "&amp;").replace("<", "&lt;")


def markdown(comparison: GeneratorComparison) -> str:
    """Return the tables in Markdown."""
    lines: list[str] = []
    for result in comparison.metrics:
        weights = f" (weights {result.weights[:12]})" if result.weights else ""
        lines += [f"**{_marked(printable(result.metric))}**{weights}: {_marked(headline(result))}", ""]
        lines += [*_markdown_table(*_table(result, comparison.below)), ""]
        lines += [*_markdown_table(*_pair_table(result)), ""]
    return "\n".join([*lines, NOT_QUALITY])


_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LATEX |= {c: f"\\{c}" for c in "&%$#_{}"}


def _tex(cell: str) -> str:
    return "".join(_LATEX.get(c, c) for c in printable(cell))


def latex(comparison: GeneratorComparison) -> str:
    """Return a table of generators for a paper, one for each metric, with a caption that says how it was made."""
    lines: list[str] = ["% needs \\usepackage{booktabs}"]
    for result in comparison.metrics:
        prompts = sorted({of.prompts for of in result.generators})
        many = str(prompts[0]) if len(prompts) == 1 else f"{prompts[0]} to {prompts[-1]}"
        weights = f", weights {result.weights[:12]}" if result.weights else ""
        lines += [
            r"\begin{table}",
            r"\centering",
            r"\begin{tabular}{clcccc}",
            r"\toprule",
            r"Rank & Generator & Mean & 95\,\% interval & Median & 5\,\% below \\",
            r"\midrule",
        ]
        for of in result.generators:
            row = [
                rank(result, of.name).replace("-", "--"), of.name, number(of.mean), interval(of.interval),
                number(of.median), number(of.worst),
            ]  # fmt: skip
            lines.append(" & ".join(_tex(cell) for cell in row) + r" \\")
        lines += [
            r"\bottomrule",
            r"\end{tabular}",
            rf"\caption{{Image quality by {_tex(result.metric)} (leafiqa{_tex(weights)}), {many} prompts. Intervals "
            r"over prompts; ranks by paired sign-flip tests, Holm-corrected: generators with overlapping ranks cannot "
            r"be told apart.}",
            r"\end{table}",
        ]
    return "\n".join(lines)
