"""Scoring on a cluster: two nodes, a server of objects, Parquet, resuming, a worker that is killed."""

import io
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

from leafiqa.errors import InputError, OutputError
from leafiqa.images import decoding
from tests.conftest import invoke, make_picture

ray = pytest.importorskip("ray")
pa = pytest.importorskip("pyarrow")
pytest.importorskip("ray.data")
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of a cluster, each with processes of its own, on this machine."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100 << 20})
    made.add_node(num_cpus=1, object_store_memory=100 << 20)
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    assert len([node for node in ray.nodes() if node["Alive"]]) == 2
    yield made
    ray.shutdown()
    made.shutdown()


def encoded(pixels, format="PNG"):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format)
    return stream.getvalue()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, metric):
    """A folder of pictures, one of them damaged; and the scores by name."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "inner").mkdir()
    expected = {}
    for number in range(24):
        place = folder / ("inner" if number % 3 == 0 else ".") / f"{number:02}.png"
        place.write_bytes(encoded(make_picture(64 + number, 90, number)))
        expected[place.name] = metric(place).item()
    (folder / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    return folder, expected


def by_name(table):
    return {row["image"].rsplit("/", 1)[-1]: row for row in table.to_pylist()}


def check(table, expected, bad=True):
    rows = by_name(table)
    assert set(rows) == {*expected, *(["bad.png"] if bad else [])}
    for name, score in expected.items():
        assert rows[name]["score"] == pytest.approx(score, abs=TOLERANCE) and rows[name]["error"] == ""
        assert len(rows[name]["sha256"]) == 16 and len(rows[name]["weights"]) == 12
    if bad:
        assert rows["bad.png"]["score"] is None and "damaged" in rows["bad.png"]["error"]


def run_with_own_cluster(command):
    """Run a command that starts a cluster, once more where Ray's own server did not come up: slow machines do that."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    for last in (False, True):
        try:
            return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
        except subprocess.TimeoutExpired as error:
            if last or b"waiting for GCS to become available" not in (error.stderr or b""):
                raise


def test_command_line(pictures, tmp_path):
    # Before the cluster is there: the command starts one of its own.
    folder, expected = pictures
    done = run_with_own_cluster(
        [sys.executable, "-m", "leafiqa", "score", "--ray", str(folder), "-o", str(tmp_path / "out")]
    )
    assert done.returncode == 1, done.stderr  # one picture is damaged
    assert "# 25 rows in" in done.stderr and "1 of 25 images have no score" in done.stderr
    from pyarrow import parquet

    check(parquet.read_table(tmp_path / "out" / "run-0001"), expected)
    for wrong in (["--ray", "-o", "x", "--top", "3"], ["--ray"], ["--column", "x"], ["--format", "parquet"]):
        assert invoke("score", folder, *wrong).returncode == 2
    assert decoding.MAX_PIXELS > 0 and np.isfinite(list(expected.values())).all()


def test_a_folder_is_scored_resumed_and_read_back(cluster, pictures, tmp_path, metric):
    from leafiqa.integrations.ray import score, table

    folder, expected = pictures
    output = tmp_path / "scores"
    first = score(folder, output=output, batch_size=4)
    assert (first.rows, first.failed, first.skipped) == (25, 1, 0) and first.folder.endswith("run-0001")
    check(table(output), expected)
    with pytest.raises(OutputError, match="holds 1 earlier runs; go on with resume=True"):
        score(folder, output=output)
    # One picture is replaced under its name, one is new, the damaged one is tried again.
    changed, new = make_picture(50, 50, 99), make_picture(51, 51, 98)
    kept = (folder / "01.png").read_bytes()
    (folder / "01.png").write_bytes(encoded(changed))
    (folder / "new.png").write_bytes(encoded(new))
    torn = output / "run-0001" / "torn.parquet"
    torn.write_bytes(next((output / "run-0001").glob("*.parquet")).read_bytes()[:200])
    try:
        again = score(folder, output=output, resume=True, batch_size=4)
    finally:
        (folder / "01.png").write_bytes(kept)
        (folder / "new.png").unlink()
    assert (again.rows, again.failed, again.skipped) == (3, 1, 23)
    assert [name.rsplit("/", 1)[-1] for name in again.torn] == ["torn.parquet"]
    both = {**expected, "01.png": metric(changed).item(), "new.png": metric(new).item()}
    with pytest.warns(UserWarning, match="cut off"):
        check(table(output), both)


def test_bytes_and_structs_in_parquet(cluster, pictures, tmp_path):
    from pyarrow import csv, parquet

    from leafiqa.integrations.ray import score, table

    folder, expected = pictures
    files = sorted(folder.rglob("*.png"))
    plain = pa.table({"bytes": [file.read_bytes() for file in files], "name": [file.name for file in files]})
    parquet.write_table(plain, tmp_path / "plain.parquet", row_group_size=5)
    written = score(tmp_path / "plain.parquet", output=tmp_path / "out", format="csv")
    assert (written.rows, written.failed) == (25, 1)
    check(table(tmp_path / "out"), expected)
    assert csv.read_csv(next((tmp_path / "out" / "run-0001").glob("*.csv"))).column_names[:2] == ["image", "score"]
    assert score(tmp_path / "plain.parquet", output=tmp_path / "out", format="csv", resume=True).skipped == 24
    images = [{"bytes": file.read_bytes(), "path": file.name} for file in files[:4]] + [None]
    dataset = ray.data.from_arrow(pa.table({"picture": images, "prompt": list("abcde")}))
    rows = score(dataset, column="picture").take_all()
    assert len(rows) == 5 and [row["image"] for row in rows if row["error"]] == [""]
    assert {row["image"]: pytest.approx(row["score"], abs=TOLERANCE) for row in rows if row["score"]} == {
        file.name: expected[file.name] for file in files[:4] if file.name in expected
    }
    with pytest.raises(InputError, match="there is no column 'image'; there are picture, prompt"):
        score(dataset, column="image")
    with pytest.raises(InputError, match="none of the columns"):
        score(dataset)


def test_a_server_of_objects(cluster, pictures, monkeypatch):
    server = pytest.importorskip("moto.server")
    from pyarrow import fs

    from leafiqa.integrations.ray import score, table

    folder, expected = pictures
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    running = server.ThreadedMotoServer(port=0)
    running.start()
    try:
        _, port = running.get_host_and_port()
        how = {"endpoint_override": f"127.0.0.1:{port}", "scheme": "http", "region": "us-east-1"}
        bucket = fs.S3FileSystem(access_key="test", secret_key="test", allow_bucket_creation=True, **how)
        bucket.create_dir("pictures")
        bucket.create_dir("results")
        for file in sorted(folder.rglob("*.png"))[:9]:
            with bucket.open_output_stream(f"pictures/set/{file.name}") as stream:
                stream.write(file.read_bytes())
        query = "&".join(f"{name}={value}" for name, value in how.items())
        # By a filesystem, as keys need not be in addresses, and by an address alone.
        written = score("s3://pictures/set", filesystem=bucket, output="s3://results/scores")
        assert written.rows == 9 and written.folder == "s3://results/scores/run-0001"
        chosen = {file.name: expected[file.name] for file in sorted(folder.rglob("*.png"))[:9] if file.name in expected}
        found = table("s3://results/scores", filesystem=bucket)
        check(found, chosen, bad=len(chosen) < 9)
        assert all(row["image"].startswith("s3://pictures/set/") for row in found.to_pylist())
        address = f"s3://test:secret@pictures/set?{query}"
        rows = score(address).take_all()
        assert len(rows) == 9 and not any("secret" in row["image"] for row in rows)
        kept = score(address, output=f"s3://test:secret@results/more?{query}")
        assert kept.folder == "s3://results/more/run-0001"
        with pytest.raises(OutputError) as told:
            score(address, output=f"s3://test:secret@results/more?{query}")
        assert "secret" not in str(told.value)
        with pytest.raises(InputError, match="no image in"):
            score("s3://pictures/none", filesystem=bucket)
    finally:
        running.stop()


def test_a_killed_worker_loses_nothing(cluster, pictures, tmp_path):
    from leafiqa.integrations.ray import score, table

    folder, expected = pictures
    many = tmp_path / "many"
    many.mkdir()
    originals = sorted(file for file in folder.rglob("*.png") if file.name in expected)
    for number in range(300):
        os.link(originals[number % len(originals)], many / f"{number}.png")
    killed = []

    def kill():
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not killed:
            for process in _workers():
                time.sleep(0.5)  # it is at work
                os.kill(process, signal.SIGKILL)
                killed.append(process)
                return
            time.sleep(0.05)

    thread = threading.Thread(target=kill)
    thread.start()
    written = score(many, output=tmp_path / "out", batch_size=8)
    thread.join()
    assert killed
    assert (written.rows, written.failed) == (300, 0)
    rows = table(tmp_path / "out").to_pylist()
    assert len(rows) == 300
    for row in rows:
        number = int(row["image"].rsplit("/", 1)[-1].removesuffix(".png"))
        assert row["score"] == pytest.approx(expected[originals[number % len(originals)].name], abs=TOLERANCE)


def _workers():
    """Process numbers of the actors that hold a student."""
    found = []
    for entry in os.listdir("/proc") if os.path.isdir("/proc") else []:
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/cmdline", "rb") as file:
                    title = file.read()
            except OSError:
                continue
            if title.startswith(b"ray::MapWorker") and b"_Worker" in title:
                found.append(int(entry))
    return found


def test_a_student_of_ones_own_travels_to_the_workers(cluster, pictures, tmp_path):
    from leafiqa.integrations.ray import score
    from leafiqa.model.registry import bundled

    folder, _ = pictures
    file, card = bundled("leaf_lite0.generated-10")
    place = tmp_path / "mine"
    place.mkdir()
    for path in (file, file.with_suffix(".json")):
        (place / path.name).write_bytes(path.read_bytes())
    rows = score(str(folder / "01.png"), weights=place).take_all()
    assert rows[0]["metric"] == card.name and 0 <= rows[0]["score"] <= 5


def test_a_student_that_is_called_as_its_base_is_not_taken_for_it(tmp_path):
    from leafiqa import create_metric
    from leafiqa.integrations.ray import _Student
    from leafiqa.model.checkpoint import load_student, pack_student, write_student
    from leafiqa.model.head import last_layers
    from leafiqa.model.registry import bundled

    file, card = bundled("leaf_lite2.general")  # whose own base is leaf_lite0.general
    student = load_student(file, card).requires_grad_(False)
    for layer in last_layers(student.head):
        layer.bias += 0.5
    told = {name: getattr(card, name) for name in card.__dataclass_fields__ if name != "sha256"}
    content, mine = pack_student(student, {**told, "name": "leaf_lite0.general"}, base=card)
    place = write_student(content, mine, tmp_path)
    sent = _Student.read("leaf", place, "torch", False, False)
    assert sent.files[place.name] == content and sent.short_hash == mine.short_hash
    picture = make_picture()
    expected = create_metric(weights=place, device="cpu")(picture).item()
    assert float(sent.load(1)(picture)) == pytest.approx(expected, abs=TOLERANCE)
    assert expected > create_metric("leaf_lite2.general", device="cpu")(picture).item() + 0.01


def test_what_is_wrong_is_said_before_anything_runs(cluster, tmp_path):
    from leafiqa.integrations.ray import score, table

    for wrong, match in (
        ({"format": "json"}, "format must be one of parquet, csv"),
        ({"resume": True}, "give output, too"),
        ({"batch_size": 0}, "batch_size"),
        ({"workers": 0}, "workers"),
        ({"column": "image"}, "are for datasets and Parquet files"),
    ):
        (tmp_path / "a.png").write_bytes(encoded(make_picture()))
        with pytest.raises(InputError, match=match):
            score(tmp_path, **wrong)
    with pytest.raises(InputError, match="images must be a path"):
        score(5)
    with pytest.raises(InputError, match="there are no scores"):
        table(tmp_path)


def test_addresses_are_told_without_what_opens_them():
    from leafiqa.integrations.ray_images import shown

    assert shown("s3://KEY:SE@CRET@bucket/a/b.png?endpoint_override=http://host:1&x=y") == "s3://bucket/a/b.png"
    assert shown("s3://bucket") == "s3://bucket" and shown("photos/what?.png") == "photos/what?.png"


def test_a_csv_whose_names_hold_line_breaks_is_read_back(tmp_path):
    from leafiqa.integrations.ray_tables import finished_rows, table_of

    (tmp_path / "run-0001").mkdir()
    text = 'image,score,error,note,metric,weights,sha256\n"a\nb.png",0.5,,,m,w,00ff\n"c.png",,"no\nway",,m,w,\n'
    (tmp_path / "run-0001" / "part.csv").write_text(text)
    known, torn = finished_rows(str(tmp_path), None, "w")
    assert torn == () and known.holds("a\nb.png", "00ff") and not known.holds("c.png", "00ff")
    (tmp_path / "run-0001" / "torn.parquet").write_bytes(b"PAR1")
    with pytest.warns(UserWarning, match=r"torn\.parquet was cut off"):
        assert table_of(str(tmp_path), None).num_rows == 2
    assert [part.rsplit("/", 1)[-1] for part in finished_rows(str(tmp_path), None, "w")[1]] == ["torn.parquet"]


def test_known_images_are_found_by_name_and_content():
    from leafiqa.integrations.ray_tables import Known
    from leafiqa.scoring.rows import digits_of

    known = Known.of(["a", "b", "a"], [digits_of(b"1"), digits_of(b"2"), digits_of(b"3")], 1)
    assert known.holds("a", digits_of(b"1")) and known.holds("a", digits_of(b"3")) and known.holds("b", digits_of(b"2"))
    assert not known.holds("a", digits_of(b"2")) and not known.holds("c", digits_of(b"1"))
    assert not Known.nothing().holds("a", digits_of(b"1"))
