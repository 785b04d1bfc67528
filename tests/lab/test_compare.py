"""Two runs side by side: what differs, how sure that is, and the curves of both."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from mindworks.cli import main
from mindworks.lab.index import curves
from mindworks.lab.index.comparison import HELP
from mindworks.lab.index.curves import Name, Track, common_axis, course, grid, iqm, spark
from mindworks.lab.index.differences import MISSING, Both, difference_interval, over_seeds, settings


def claim_of(each: list[float] | None = None, **parts: Any) -> dict[str, Any]:
    """A check as a record has it."""
    found = {"claim": "it rises", "value": 0.5, "op": ">=", "bar": 0.25, "passed": True, **parts}
    if each is not None:
        found |= {"each": each, "interval": [min(each), max(each)]}
    return found


def a_run(folder: Path, lines: Sequence[dict[str, Any]] = (), result: bool = True, **parts: Any) -> Path:
    """A run's folder with metrics."""
    folder.mkdir(parents=True)
    record = {"study": "walk", "scale": "cpu", "config": {"lr": 0.1, "deep": {"a": 1}}, "seeds": [0, 1, 2]}
    record |= {"checks": [claim_of()], "timing": {"wall_s": 2.0, "cpu_s": 1.5}}
    record |= {"environment": {"commit": "abc", "torch": "2"}, **parts}
    described = {key: record[key] for key in ("study", "scale", "config", "seeds")}
    (folder / "config.json").write_text(json.dumps(described))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if result:
        (folder / "result.json").write_text(json.dumps(record))
    return folder


def compared(capsys: pytest.CaptureFixture[str], *words: object, results: Path | None = None) -> str:
    """What the command prints."""
    assert main(["compare", *map(str, words)], package="toys", results=results) == 0
    return capsys.readouterr().out


def read(tmp_path: Path, lines: list[Any], seeds: tuple[int, ...] = ()) -> curves.Curves:
    """The curves of some lines."""
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return curves.read(path, seeds)


# -- settings and checks ----------------------------------------------------------------------------------------------


def test_settings_are_compared_by_name() -> None:
    assert settings({"a": 1, "b": 2, "c": None}, {"d": 4, "b": 3, "a": 1.0}) == [
        Both("b", 2, 3),
        Both("c", None, MISSING),
        Both("d", MISSING, 4),
    ]


def test_paired_seeds_take_the_noise_out() -> None:
    generator = random.Random(0)
    a = [generator.gauss(0, 10) for _ in range(12)]
    b = [x + 1 + generator.gauss(0, 0.1) for x in a]
    low, high = difference_interval(a, b, paired=True)
    wide = difference_interval(a, b, paired=False)
    assert low < stats.trim_mean(b, 0.25) - stats.trim_mean(a, 0.25) < high
    assert 0 < low < 1 < high < 2
    assert wide[0] < -2 < 4 < wide[1]
    assert difference_interval(a, b, paired=True) == (low, high)
    assert difference_interval(b, a, paired=True)[1] == pytest.approx(-low, abs=0.1)


def test_the_interval_covers_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(40):
        low, high = difference_interval(generator.normal(0, 1, 30).tolist(), generator.normal(1, 2, 20).tolist(), False)
        hits += low <= 1 <= high
    assert 34 <= hits <= 40


def test_seeds_pair_whatever_their_order() -> None:
    a, b = claim_of([1.0, 5.0, 9.0, 2.0]), claim_of([3.0, 10.0, 2.0, 6.0])
    found = over_seeds(a, b, [0, 1, 2, 3], [3, 2, 0, 1])
    assert found is not None
    assert (found.value, found.low, found.high, found.paired, found.excludes_zero) == (1, 1, 1, True, True)
    apart = over_seeds(a, b, [0, 1, 2, 3], [0, 1, 2, 7])
    assert apart is not None
    assert (apart.value, apart.paired, apart.excludes_zero) == (1, False, False)
    assert apart.low < 0 < apart.high
    assert over_seeds(a, b, [0, 1], [0, 1]).paired is False  # type: ignore[union-attr]


@pytest.mark.parametrize("each", [None, [1.0], [1.0, None], [1.0, "x"], "ab"])
def test_without_values_per_seed_there_is_no_interval(each: Any) -> None:
    broken = {**claim_of(), "each": each}
    assert over_seeds(broken, claim_of([1.0, 2.0]), [0, 1], [0, 1]) is None
    assert over_seeds(claim_of([1.0, 2.0]), broken, [0, 1], [0, 1]) is None


def test_equal_values_give_a_point() -> None:
    assert difference_interval([1.0, 1.0], [4.0, 4.0, 4.0], False) == (3.0, 3.0)


# -- curves -----------------------------------------------------------------------------------------------------------


def test_the_interquartile_mean_is_that_of_the_records() -> None:
    generator = random.Random(1)
    for count in range(1, 12):
        values = [generator.random() for _ in range(count)]
        assert iqm(values) == pytest.approx(stats.trim_mean(values, 0.25), rel=1e-12)


def test_curves_are_told_apart(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        [
            {"stage": "out", "step": 0, "loss": 4.0, "begin": True},
            {"stage": "out", "step": 10, "loss": 2.0, "note": None},
            {"stage": "out", "step": 10, "variant": "x", "loss": 1},
            {"loss": 7},
            {"loss": float("nan")},
        ],
    )
    assert {str(name): curve.drawn("") for name, curve in found.by_name.items()} == {
        "out/loss": [([1.0, 2.0], [4.0, 2.0])],
        "out/variant=x/loss": [([1.0], [1.0])],
        "loss": [([1.0], [7.0])],
    }
    steps = found.by_name[Name("out", "", "loss")]
    assert steps.drawn(common_axis([steps, steps])) == [([0.0, 10.0], [4.0, 2.0])]
    assert common_axis([steps, found.by_name[Name("", "", "loss")]]) == ""
    assert found.unread == 0


def test_seeds_become_tracks_however_they_are_logged(tmp_path: Path) -> None:
    apart = read(
        tmp_path, [{"seed": seed, "stage": "out", "step": k, "v": seed + k} for seed in (3, 4) for k in (0, 1)]
    )
    turns = read(
        tmp_path,
        [{"stage": f"seed-{seed}/out", "seed": seed, "step": k, "v": seed + k} for seed in (3, 4) for k in (0, 1)],
    )
    together = read(tmp_path, [{"stage": "out", "step": k, "v": [3 + k, 4 + k]} for k in (0, 1)], seeds=(3, 4))
    assert apart == turns == together
    (curve,) = apart.by_name.values()
    assert curve.ends() == [4, 5]
    assert curve.drawn("step") == [([0, 1], [3, 4]), ([0, 1], [4, 5])]
    assert read(tmp_path, [{"v": [1, 2, 3]}], seeds=(3, 4)).by_name == {}


def test_a_step_that_falls_back_is_no_axis(tmp_path: Path) -> None:
    (curve,) = read(tmp_path, [{"step": step, "v": step} for step in (0, 1, 0)]).by_name.values()
    assert common_axis([curve]) == ""
    assert curve.drawn("") == [([1, 2, 3], [0, 1, 0])]


def test_long_curves_are_thinned_evenly_and_keep_their_end() -> None:
    track = Track()
    for line in range(100_001):
        track.add(line, float(line), 2.0 * line)
    kept = track.all()
    assert curves.MOST_POINTS / 2 <= len(kept) <= curves.MOST_POINTS + 1
    assert (kept[0], kept[-1]) == ((0, 0.0, 0.0), (100_000, 100_000.0, 200_000.0))
    places = [line for line, _, _ in kept]
    assert places[:-1] == list(range(0, 100_000, track.stride))


def test_damaged_lines_are_counted_and_an_unfinished_one_is_not(tmp_path: Path) -> None:
    found = read(tmp_path, [{"v": 1}, "[]", '{"v": 2', "\x00", {"stage": 3, "v": 1}, {"v": 3}])
    assert (found.by_name[Name("", "", "v")].ends(), found.unread) == ([3], 4)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"v": ')
    assert curves.read(tmp_path / "metrics.jsonl").unread == 4
    assert curves.read(tmp_path / "absent.jsonl").by_name == {}


def test_endless_names_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "MOST_CURVES", 3)
    found = read(tmp_path, [{"text": f"t{number % 5}", "v": number} for number in range(10)])
    assert [curve.ends() for curve in found.by_name.values()] == [[5], [6], [7]]
    assert found.full


def test_the_course_over_seeds() -> None:
    tracks = [([0.0, 2.0], [1.0, 3.0]), ([1.0, 2.0], [5.0, 7.0])]
    assert grid(tracks, 5) == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert course(tracks, [-1.0, 0.0, 1.0, 1.9, 2.0, 3.0]) == [None, 1.0, 3.0, 3.0, 5.0, None]


def test_sparks() -> None:
    assert spark([0, 1, 2, 3, None, 4], 0, 4, "abcd") == "abcd d"
    assert spark([5, 5], 5, 5, "abc") == "bb"
    assert spark([-1.7e308, 0, 1.7e308, math.inf], -1.7e308, 1.7e308, "abc") == "abc "


# -- the command ------------------------------------------------------------------------------------------------------


def test_runs_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    each = [0.4, 0.5, 0.6]
    checks_a = [claim_of(each), claim_of(claim="it ends", value=None, passed=False), claim_of(claim="old")]
    checks_b = [claim_of([x + 1 for x in each], value=1.5, bar=2, passed=False), claim_of(claim="it ends")]
    a = a_run(tmp_path / "a", [{"step": k, "loss": 4.0 - k} for k in range(4)], checks=checks_a)
    b = a_run(
        tmp_path / "b",
        [{"step": k, "loss": [k, k + 1, k + 2], "more": 1} for k in range(8)],
        checks=checks_b,
        config={"lr": 0.2, "deep": {"a": 1}},
        environment={"commit": "abd", "torch": "2"},
    )
    text = compared(capsys, a, b)
    for line in (
        "   walk, scale cpu, 3 seeds, finished, 2/3 hold, 1.5 CPU s",
        "  config.lr           0.1  0.2",
        "  environment.commit  abc  abd",
        "  (the same in both: 1 of 2 fields of the configuration)",
        "Checks: 2 in both, 1 in A alone, 0 in B alone",
        "    A      PASS         0.5 >= 0.25        iqm 0.5 [0.4, 0.6], 3 seeds",
        "    B      FAIL         1.5 >= 2           iqm 1.5 [1.4, 1.6], 3 seeds",
        "    A      FAIL        none >= 0.25",
        "    B - A              none",
        "Curves: 1 in both, 0 in A alone, 1 in B alone",
        "  loss  (step 0 to 7)",
        "  in B alone: more",
    ):
        assert line in text.splitlines(), f"{line}\n{text}"
    assert re.search(r"B - A +1 +iqm 1 \[1, 1\], paired by 3 seeds, excludes 0", text)
    left, right = re.findall(r"    [AB]  ([▁-█ ]{32})  (.*)", text)
    assert left[0][0] > right[0][0]
    assert left[0].rstrip()[-1] < right[0][-1] == "█"
    assert (left[1], len(left[0].rstrip()) < 20) == ("1", True)
    assert re.fullmatch(r"iqm 8 \[7, 9\], 3 seeds", right[1])
    assert "torch" not in text
    assert "Curves: 1 in both, 0 in A alone, 0 in B alone" in compared(capsys, a, b, "--curve", "loss")
    assert "Curves: 0 in both, 0 in A alone, 1 in B alone" in compared(capsys, a, b, "--curve", "more")


def test_unfinished_runs_records_and_last_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = a_run(tmp_path / "a")
    b = a_run(tmp_path / "b", result=False, study="apart", seeds=[4, 9])
    text = compared(capsys, a, b)
    assert "   apart, scale cpu, 2 seeds, stopped\n" in text
    assert "different studies" in text
    assert "Checks: 0 in both, 1 in A alone" in text
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "walk.json").write_bytes((a / "result.json").read_bytes())
    same = compared(capsys, a / "result.json", "walk", results=tmp_path / "kept")
    assert "Settings: no difference" in same
    assert f"B  {tmp_path}/kept/walk.json\n" in same
    assert re.search(r"B - A +0\n", same)


def test_the_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [{"stage": "$x$", "step": k, "loss": 4.0 - k, "v": [k, 2 * k, 3 * k], "w": 1.0} for k in range(4)]
    a, b = a_run(tmp_path / "a", [*lines, {"once": 1}]), a_run(tmp_path / "b", [*lines[:2], {"once": 2}])
    assert compared(capsys, a, b, "--out", tmp_path / "new" / "x.svg").endswith(f"figure  {tmp_path}/new/x.svg\n")
    first = (tmp_path / "new" / "x.svg").read_bytes()
    assert first.startswith(b"<?xml")
    assert len(re.findall(rb'<g id="axes_\d+">', first)) == 4
    compared(capsys, a, b, "--out", tmp_path / "new" / "x.svg")
    assert (tmp_path / "new" / "x.svg").read_bytes() == first
    text = compared(capsys, a, b, "--curve", "w", "--curve", "$x$/v", f"--out={tmp_path / 'y.png'}")
    assert "Curves: 2 in both" in text
    assert (tmp_path / "y.png").read_bytes().startswith(b"\x89PNG")


def test_many_curves_are_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = a_run(tmp_path / "a", [{f"k{number}": 1 for number in range(45)}])
    text = compared(capsys, a, a)
    assert "Curves: 45 in both" in text
    assert "and 5 more; --curve KEY" in text


def test_a_terminal_without_blocks_gets_letters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    a = a_run(tmp_path / "a", [{"step": step, "v": step} for step in range(3)])
    monkeypatch.setattr("mindworks.lab.index.comparison._can_print", lambda text: text.isascii())
    text = compared(capsys, a, a)
    assert text.isascii()
    assert re.search(r"A  _+\.*[:\-=]+\+*\*?#  2\n", text)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a"], "compare needs two runs, got a"),
        ([], "compare needs two runs, got none"),
        (["a", "b", "c"], "compare needs two runs, got a b c"),
        (["a", "nowhere"], "compare: no run, record or recorded study is at 'nowhere'; there are: walk"),
        (["a", "wolk"], "compare: no run, record or recorded study is at 'wolk'; nearest: walk"),
        (["a", "kept"], "compare: kept holds no run (config.json is missing)"),
        (["a", "bad"], "compare: bad is damaged (result.json is not JSON)"),
        (["a", "text.json"], "compare: text.json is not JSON"),
        (["a", "list.json"], "compare: list.json is not the record of a run"),
        (["a", "a", "--curve", "los"], "--curve: neither run has a metric 'los'; nearest: loss"),
        (["a", "a", "--out", "x.html"], "--out must end in one of .pdf, .png, .svg, got 'x.html'"),
        (["a", "walk", "--out", "x.svg"], "--out x.svg: the runs have no curve in common to draw"),
        (["a", "a", "--curves", "loss"], "unknown flag --curves; nearest: --curve"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    a = a_run(tmp_path / "a", [{"loss": 1.0}])
    (a_run(tmp_path / "bad") / "result.json").write_text("{")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "walk.json").write_bytes((a / "result.json").read_bytes())
    (tmp_path / "text.json").write_text("text")
    (tmp_path / "list.json").write_text("[]")
    monkeypatch.chdir(tmp_path)
    assert main(["compare", *words], package="toys", results=tmp_path / "kept") == 2
    assert capsys.readouterr().err.strip() == f"mindworks: {message}"
    assert not (tmp_path / "x.svg").exists()


def test_real_runs_are_compared(toy: Any, tmp_path: Path) -> None:
    for drift in ("0.25", "0.5"):
        assert toy("run", "walk", "--scale", "smoke", "--drift", drift).returncode == 0
    a, b = sorted((tmp_path / "runs" / "walk").iterdir())
    ended = toy("compare", a, b, "--curve", "out/mean")
    assert ended.returncode == 0, ended.stderr
    assert re.search(r"config.drift +0.25 +0.5\n", ended.stdout)
    assert "  out/mean  (step 0 to 19)\n" in ended.stdout
    assert toy("compare", "--help").stdout.strip() == HELP
    assert max(map(len, HELP.splitlines())) <= 80
