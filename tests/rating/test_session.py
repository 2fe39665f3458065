"""What is asked next, and what answers come to: warm-up, repeats, budget, several raters, restart, undo, skips."""

import math
from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageFilter

from leafiqa.calibration.features import Extracted
from leafiqa.errors import InputError
from leafiqa.rating.answers import AnswerFile, read_answers
from leafiqa.rating.knowledge import stands_for, what_is_known
from leafiqa.rating.next_pictures import Teaching, next_pair
from leafiqa.rating.questions import WARM_UP
from leafiqa.rating.rater_model import PanelEstimate
from leafiqa.rating.session import SKIPS, Session
from tests.conftest import make_picture


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Forty pictures, from sharp to very blurred."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(40):
        image = Image.fromarray(make_picture(96, 96, number % 5))
        image.filter(ImageFilter.GaussianBlur(number / 10)).save(folder / f"{number:02}.png")
    return sorted(folder.iterdir())


def opened(pictures, place, metric, **options):
    session = Session(pictures, AnswerFile(place), metric, **{"budget": 15, **options})
    session.looking.start()
    assert session.looking.done.wait(60)
    return session


def rate_all(session, rater, value=lambda question: "3", limit=200):
    """Answer until there are no questions; return them."""
    asked = []
    for _ in range(limit):
        number, question = session.state(rater)
        if question is None:
            return asked
        ahead = session.ahead(rater)
        assert session.answer(rater, number, value(question), 1.0)
        asked.append(question)
        assert session.state(rater)[1] == ahead
    raise AssertionError("no end")


def test_a_budget_with_warm_up_and_hidden_repeats(pictures, tmp_path, metric):
    session = opened(pictures, tmp_path / "r.csv", metric)
    asked = rate_all(session, "ann")
    phases = Counter(question.phase for question in asked)
    assert phases == {"warm-up": WARM_UP, "first": 15, "repeat": 1}
    first = [question.images[0] for question in asked if question.phase == "first"]
    assert len(set(first)) == 15
    again = next(place for place, question in enumerate(asked) if question.phase == "repeat")
    assert asked[again].images[0] in first and asked[again].images not in [q.images for q in asked[again - 5 : again]]
    # Warm-up shows how far the scale reaches: among the first two a good and a bad one.
    seen = session.looking.seen()
    rank = {int(candidate): place for place, candidate in enumerate(seen.index[np.argsort(seen.logits)])}
    assert rank[asked[0].images[0]] > 30 and rank[asked[1].images[0]] < 10
    assert session.progress("ann") == (20, 20)


def test_each_rater_has_an_order_of_their_own_over_the_same_pictures(pictures, tmp_path, metric):
    session = opened(pictures, tmp_path / "r.csv", metric)
    orders = []
    for rater in ("ann", "bob"):
        orders.append([q.images[0] for q in rate_all(session, rater) if q.phase == "first"])
    assert set(orders[0]) == set(orders[1]) and orders[0] != orders[1]
    assert len(read_answers(tmp_path / "r.csv").ratings()) == 30


def test_a_killed_session_goes_on_and_a_question_is_answered_once(pictures, tmp_path, metric):
    place = tmp_path / "r.csv"
    session = opened(pictures, place, metric)
    for _ in range(7):
        number, _ = session.state("ann")
        assert session.answer("ann", number, "4")
        assert not session.answer("ann", number, "1")  # the same question again: pressed twice, sent twice
    before = [a.image for a in session.own("ann")]
    again = opened(pictures, place, metric)  # nothing was closed: as after a kill
    assert [a.image for a in again.own("ann")] == before
    asked = rate_all(again, "ann")
    counted = read_answers(place).ratings()
    assert len(counted) == len({a.image for a in counted}) == 15
    assert not {str(pictures[q.images[0]]) for q in asked if q.phase == "first"} & set(before[WARM_UP:])


def test_undo_asks_again(pictures, tmp_path, metric):
    session = opened(pictures, tmp_path / "r.csv", metric)
    assert not session.undo("ann", 0)
    for value in "12345":
        number, question = session.state("ann")
        session.answer("ann", number, value)
    assert not session.undo("ann", 4)  # a page that is not up to date takes nothing back
    assert session.undo("ann", 5)
    number, asked = session.state("ann")
    assert asked == question and session.progress("ann")[0] == 4
    assert session.answer("ann", number, "2")
    assert [a.value for a in session.own("ann")] == ["1", "2", "3", "4", "2"]
    assert len(rate_all(session, "ann")) == 20 - 5


def test_skipped_pictures_do_not_count_against_the_budget(pictures, tmp_path, metric):
    session = opened(pictures, tmp_path / "r.csv", metric, budget=10)
    skipped = 0
    while (state := session.state("ann"))[1] is not None:
        if state[1].phase == "first" and skipped < 3:
            skipped += session.skip("ann", state[0], SKIPS[0])
        else:
            session.answer("ann", state[0], "3")
    assert len(read_answers(tmp_path / "r.csv").ratings()) == 10 and skipped == 3
    with pytest.raises(InputError, match="reason must be one of"):
        session.skip("ann", 0, "because")


def test_comparisons_alone_and_both(pictures, tmp_path, metric):
    session = opened(pictures, tmp_path / "c.csv", metric, budget=4, ask="comparison")
    asked = rate_all(session, "ann", lambda q: "first" if q.images[0] < q.images[1] else "second")
    assert Counter(q.kind for q in asked) == {"comparison": WARM_UP + 6}  # all pairs of four
    assert session.progress("ann") == (WARM_UP + 6, WARM_UP + 6)
    counted = [frozenset(q.images) for q in asked if q.phase == "first"]
    assert len(set(counted)) == len(counted) and len(set.union(*map(set, counted))) == 4
    both = opened(pictures, tmp_path / "b.csv", metric, budget=24, ask="both")
    asked = rate_all(both, "ann", lambda q: "3" if q.kind == "rating" else "tie")
    kinds = Counter(q.kind for q in asked if q.phase == "first")
    assert kinds["rating"] == 24 and 5 <= kinds["comparison"] <= 8


def test_wrong_answers_are_refused(pictures, tmp_path, metric):
    session = opened(pictures, tmp_path / "r.csv", metric)
    for value in ("6", "0", "nan", "", "first", "1e400", "3\n", " 3", "²", "0x3", 3, None):
        with pytest.raises(InputError, match="a rating must be a number from 1 to 5"):
            session.answer("ann", 0, value)
    for name in ("", " ", "a\nb", "x" * 61, None, 7, "=cmd()"):
        with pytest.raises(InputError, match="a rater's name"):
            session.state(name)
    for options, message in (({"budget": 0}, "budget"), ({"budget": 41}, "budget"), ({"ask": "slider"}, "ask must be")):
        with pytest.raises(InputError, match=message):
            Session(pictures, AnswerFile(tmp_path / "n.csv"), metric, **{"budget": 5, **options})


def test_rating_begins_before_the_student_has_looked(pictures, tmp_path, metric):
    session = Session(pictures, AnswerFile(tmp_path / "r.csv"), metric, budget=10)
    assert session.state("ann")[1].phase == "warm-up"
    for _ in range(6):
        session.answer("ann", session.state("ann")[0], "3")
    session.looking.start()
    session.looking.done.wait(60)
    rate_all(session, "ann")
    assert len(read_answers(tmp_path / "r.csv").ratings()) == 10


def test_files_that_cannot_be_read_are_not_asked_about(pictures, tmp_path, metric):
    (tmp_path / "broken.png").write_bytes(b"x")
    session = opened([*pictures[:11], tmp_path / "broken.png"], tmp_path / "r.csv", metric, budget=12)
    asked = {image for question in rate_all(session, "ann") for image in question.images}
    assert 11 not in asked and len(asked) == 11


def test_the_next_picture_is_the_one_that_tells_most_about_the_others():
    rng = np.random.default_rng(0)
    points = rng.normal(0, 0.05, (60, 3))
    points[:20] += 3  # a cluster that nobody has rated
    logits = rng.normal(size=60)
    teaching = Teaching(logits, points)
    rated = list(range(20, 32))
    mos = 3 + rng.normal(size=12)  # nothing to do with the score: corrections matter
    chosen = teaching.next(rated, mos, np.full(12, 0.3), set(range(60)) - set(rated))
    assert chosen < 20
    # Ratings that follow the score leave the ends of the scale as the most telling.
    follows = 3 + logits[rated]
    share = teaching.share(np.array(rated), follows, np.full(12, 0.3))
    assert share < teaching.share(np.array(rated), mos, np.full(12, 0.3))
    assert teaching.next(rated, mos, np.full(12, 0.3), set()) is None


def test_pairs_are_close_or_uncertain_and_never_asked_twice():
    names = ["a", "b", "c", "d"]
    panel = PanelEstimate(names, np.array([1.0, 3.0, 3.1, 5.0]), np.full(4, 0.3), [], 1.0, 0.5)
    rng = np.random.default_rng(0)
    assert set(next_pair(panel, set(), rng)) == {"b", "c"}
    asked = set()
    while (pair := next_pair(panel, asked, rng)) is not None:
        asked.add(frozenset(pair))
    assert len(asked) == 6
    first = [next_pair(panel, set(), np.random.default_rng(seed))[0] for seed in range(20)]
    assert 4 < first.count("b") < 16


def extracted(n, seed=0):
    rng = np.random.default_rng(seed)
    return Extracted(rng.normal(size=(n, 20)), rng.normal(size=n), np.arange(n), [])


def test_what_is_known():
    seen = extracted(300)
    rng = np.random.default_rng(1)
    truth = np.clip(3 + 0.8 * seen.logits + 0.3 * rng.normal(size=300), 1, 5)
    few = what_is_known(seen, np.arange(6), truth[:6], [0.5] * 6)
    assert math.isnan(few.srcc) and "4 more pictures" in few.words
    rows = rng.choice(300, 60, replace=False)
    known = what_is_known(seen, rows, truth[rows], [0.5] * 60)
    assert known.interval[0] < known.srcc < known.interval[1] and known.srcc == pytest.approx(0.92, abs=0.06)
    assert known.to_dict()["labels"] == 60
    more = what_is_known(seen, np.arange(200), truth[:200], [0.5] * 200)
    assert more.interval[1] - more.interval[0] < known.interval[1] - known.interval[0]
    assert more.hardly and "hardly" in more.words


def test_ratings_from_the_ends_of_the_scale_are_weighted_to_hold_for_all():
    logits = np.linspace(-2, 2, 100)
    rated = np.array([0, 1, 2, 3, 50, 97, 98, 99])
    weights = stands_for(logits, rated)
    assert weights.sum() == pytest.approx(100)
    assert weights[4] >= 4 * weights[0]
