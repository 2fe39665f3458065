"""The walk from images to a calibrated metric in docs/label.md, command by command, against the stand-in."""

import csv
import re
import shlex
import subprocess
import sys
from pathlib import Path

from leafiqa.evidence.files import read_evidence
from leafiqa.evidence.reliability import targets
from tests.teachers.chat_server import ChatServer, picture

PAGE = Path(__file__).resolve().parents[1] / "docs" / "label.md"
BLOCK = re.compile(r"^```(bash|toml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_walk_from_images_to_a_calibrated_metric(tmp_path):
    server = ChatServer(model="Qwen/Qwen3-VL-8B-Instruct", bias=0.4)
    (tmp_path / "photos").mkdir()
    for i in range(60):
        picture(0.02 + 0.96 * i / 59).save(tmp_path / "photos" / f"{i:02}.png")
    ran = []
    try:
        for language, text in BLOCK.findall(PAGE.read_text()):
            if language == "toml":
                # Sizes are all that is changed, so that the test takes seconds.
                (tmp_path / "mine.toml").write_text("area = 64\ncrop = 64\nlook = 64\nepochs = 2\n" + text)
                continue
            for line in text.splitlines():
                words = [word.replace("http://127.0.0.1:8000/v1", server.address) for word in shlex.split(line)]
                assert words[0] == "leafiqa"
                done = subprocess.run(
                    [sys.executable, "-m", *words], cwd=tmp_path, capture_output=True, text=True, timeout=300
                )
                assert done.returncode == 0, (line, done.stderr)
                ran.append(words[1])
                if words[1] == "select":
                    rate(tmp_path / "ratings.csv")
    finally:
        server.close()
    assert ran == ["label", "label", "evidence", "distill", "select", "calibrate", "score"]
    assert len(done.stdout.splitlines()) >= 10
    assert server.answered == 60 + 2 * 200


def test_a_teacher_of_ones_own_and_judgments_made_elsewhere(tmp_path):
    (tmp_path / "photos").mkdir()
    picture(0.2).save(tmp_path / "photos" / "a.jpg")
    picture(0.9).save(tmp_path / "photos" / "b.png")
    (tmp_path / "brisque.csv").write_text("image,score\na.jpg,40\nb.png,10\n")
    (tmp_path / "votes.csv").write_text("first,second,winner\na.jpg,b.png,second\n")
    text = PAGE.read_text()
    example = re.search(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL).group(1)
    subprocess.run([sys.executable, "-c", example], cwd=tmp_path, check=True, timeout=300)
    commands = re.findall(r"^leafiqa import .*$", text, re.MULTILINE)
    for command in commands:
        subprocess.run([sys.executable, "-m", *shlex.split(command)], cwd=tmp_path, check=True, timeout=300)
    scores = {name: target.score for name, target in targets(read_evidence([tmp_path / "brightness.jsonl"])).items()}
    assert scores["b.png"] > scores["a.jpg"] + 0.1
    assert len(commands) == 2
    assert {n: t.score for n, t in targets(read_evidence([tmp_path / "brisque.jsonl"])).items()} == {
        "a.jpg": 0,
        "b.png": 1,
    }
    assert read_evidence([tmp_path / "votes.jsonl"]).pairs[0].preference == 0


def rate(table):
    """Fill in the column mos as a person would: better pictures get more."""
    with table.open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["mos"] = f"{1 + 4 * int(Path(row['image']).stem) / 59:.2f}"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
