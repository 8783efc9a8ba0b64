"""The benchmark's arithmetic, and what it says when it cannot measure; no time is measured here."""

import sys

import pytest

from tools.bench import __main__ as bench
from tools.bench import measure, waiting
from tools.bench.measure import Row


def test_the_exponent_of_a_power_law_is_found():
    sizes = [10, 20, 40, 80]
    assert measure.exponent(sizes, [3 * n**1.5 for n in sizes]) == pytest.approx(1.5)


def test_the_ratio_is_the_median_of_the_rounds_and_not_the_ratio_of_medians():
    assert measure.medians([1, 2, 9], [4, 1, 3]) == (2, 3, 2)


def test_a_process_is_charged_for_its_work_and_must_not_fail():
    done = measure.run(["-c", "import time\nwhile time.process_time() < 0.2: pass\nprint('done')"])
    assert done.printed == "done\n" and done.processor > 0.1
    with pytest.raises(measure.subprocess.CalledProcessError):
        measure.run(["-c", "raise SystemExit(3)"])


def test_a_missed_bar_is_named_and_fails_the_command(monkeypatch, capsys):
    def quick():
        yield Row("within", "1 s", "2 s", 0.5, 0.7)

    def slow():
        yield Row("beyond", "9 s", "2 s", 4.5, 0.7)

    monkeypatch.setattr(bench, "MEASURES", [quick, slow])
    for argv, code in (["bench", "quick"], 0), (["bench", "quick", "slow"], 1):
        monkeypatch.setattr(sys, "argv", argv)
        assert bench.main() == code
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines if "MISSED" in line] == ["beyond"]


def test_an_unknown_name_is_refused_with_those_there_are(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bench", "sweeep"])
    with pytest.raises(SystemExit, match="no measure sweeep; there are .*sweep, "):
        bench.main()


def test_without_mnist_the_lecture_is_skipped_in_words(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(waiting, "DATA_DIR", tmp_path)
    assert list(waiting.lecture()) == []
    assert "skipped" in capsys.readouterr().out
