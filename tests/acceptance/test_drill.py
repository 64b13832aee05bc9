"""The incident drill, in short: it shows what there is to see, and loses nothing."""

from datetime import timedelta

from tests.drill.drill import Options, drill

SHORT = Options(
    outage=timedelta(seconds=3),
    timeouts=300,
    every=timedelta(seconds=1),
    then_every=timedelta(seconds=1),
    afterwards=timedelta(0),
    lead=timedelta(seconds=8),
)


def test_a_short_drill_shows_the_outage_and_its_end_and_fires_everything_once() -> None:
    said: list[str] = []
    transcript = drill(SHORT, said.append)
    assert transcript.is_good
    pages = [look.pages["/readyz"] for _, _, look in transcript.looks]
    assert pages[0] == "200 ok"
    assert "503 the database does not answer" in pages
    assert pages[-1] == "200 ok"
    assert transcript.looks[-1][2].gauges["database_up"] == 1
    assert "(exit code 1)" in transcript.statuses[0][1]
    assert {"database.unavailable", "database.recovered"} <= transcript.first_lines.keys()
    assert len(said) == len(transcript.looks)
