"""The table of versions counts what is apart, and calls everything else a failure."""

from tools import matrix

REPORT = """<testsuites><testsuite>
<testcase name="a"/>
<testcase name="b"><skipped/></testcase>
<testcase name="c"><failure>In[1]: the text of this error has changed</failure></testcase>
<testcase name="d"><failure>In[2]: image/png differs between stored and now</failure></testcase>
<testcase name="e"><error>In[3]: image/png differs between first and second run</error></testcase>
<testcase name="f"><error>no fixture</error></testcase>
</testsuite></testsuites>"""


def test_changed_texts_and_pictures_are_counted_apart_from_failures(tmp_path):
    (report := tmp_path / "report.xml").write_text(REPORT)
    assert matrix.outcome(report) == ["1 passed, 2 failed, 1 skipped", "1", "1"]
    assert matrix.outcome(tmp_path / "none.xml") == ["no test ran", "", ""]


def test_every_row_is_as_wide_as_the_head(tmp_path):
    rows = [["Colab", "3.13.1", *"12345", *matrix.outcome(tmp_path / "none.xml")]]
    head, line, row = matrix.render(rows).splitlines()
    assert head.count("|") == line.count("|") == row.count("|")


def test_readme_has_a_place_for_the_table():
    text = (matrix.ROOT / "README.md").read_text("utf-8")
    assert len(matrix.TABLE.findall(text)) == 1
