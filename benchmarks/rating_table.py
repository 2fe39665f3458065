"""Write the tables of docs/rate.md: `python -m benchmarks.rating_table`.

From the results that benchmarks.rating_panels, .rating_choice and .rate_speed wrote.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.common import filled
from benchmarks.generators_table import read, short

PAGE = Path(__file__).resolve().parents[1] / "docs" / "rate.md"
TITLES = {"agiqa3k": "AGIQA-3K, generated images", "biq2021": "BIQ2021, photographs"}


def panels() -> str:
    """Return the table of simulated panels."""
    names = ("mean", "BT.500", "SUREAL", "leafiqa")
    lines = [
        f"| raters | careless | each rates | {' | '.join(names)} | careless named | honest named |",
        f"|---|---|---|{'---|' * len(names)}---|---|",
    ]
    for row in read("rating_panels"):
        scores = " | ".join(short(row[name]) if name in row else "" for name in names)
        named = f"{100 * row['careless reported']:.0f} %" if row["careless"] else ""
        lines.append(
            f"| {row['raters']} | {row['careless']} | {100 * row['share']:.0f} % | {scores} | {named} | "
            f"{100 * row['honest reported']:.0f} % |"
        )
    return "\n".join(lines)


def choice() -> str:
    """Return the table of ways to choose pictures."""
    found = read("rating_choice")
    lines = ["| set | pictures | RMSE | against random | SRCC | against random |", "|---|---|---|---|---|---|"]
    for name, title in TITLES.items():
        for way, of in found[name].items():
            gaps = []
            for measure in ("rmse", "srcc"):
                middle, low, high = of[f"{measure} against random"]
                told = " ".join(f"{short(value)}" for value in (low, high)).replace(" ", ", ")
                gaps.append("" if way == "random" else f"{short(middle)} [{told}]")
            lines.append(f"| {title} | {way} | {short(of['rmse'])} | {gaps[0]} | {short(of['srcc'])} | {gaps[1]} |")
    lines += ["", f"({found['draws']} draws of {found['budget']} ratings.)"]
    return "\n".join(lines)


def speed() -> str:
    """Return a sentence on how long one waits."""
    found = read("rate_speed")
    memory = " / ".join(f"{value / 1000:.1f}" for value in found["memory after 10, 30 and 60 answers, MB"])
    median, largest = (found[f"next picture loaded ahead, {which} ms"] for which in ("median", "largest"))
    saved, size = found["answer to next question, largest ms"], found["picture in MB"]
    return (
        f"the address is printed after {found['until the address, s']:.1f} s, the first picture is there "
        f"{found['until the first picture, s']:.2f} s later, an answer is saved and the next question known within "
        f"{saved:.0f} ms, the picture after it ({size:.1f} MB) is loaded ahead in {median:.0f} ms (median; largest "
        f"{largest:.0f}), and the server holds {memory} GB after 10, 30 and 60 answers "
        "(`python -m benchmarks.rate_speed`)."
    )


def page() -> str:
    """Return the page with its tables."""
    text = filled(filled(PAGE.read_text(encoding="utf-8"), "panels", panels()), "choice", choice())
    return filled(text, "speed", speed(), inline=True)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
