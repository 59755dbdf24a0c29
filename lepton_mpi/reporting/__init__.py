"""The page that ``python -m lepton_mpi report RUN.jsonl`` writes: one HTML file of one or several runs.

    metrics.py   lines of metrics files -> runs: joins what was resumed, forgives what was cut
    tested.py    a run's checkpoint and its test rows -> loss, prediction and picture of single rows
    curves.py    ROC, precision and recall of scores
    charts.py    matplotlib -> SVG inside of the page
    results.py ranks.py classes.py rows.py configurations.py    sections
    page.py      their order and style
    ../markup/   elements of a page, in which any text that is no ``Markup`` is escaped; its file

One process reads files and writes one; no rank is started. The page asks nothing of a network and has no script: its
Content-Security-Policy allows styles and pictures within it alone. A metrics file is taken for what anybody may have written:
values of a wrong type count as missing. Charts are drawn at the width of a telephone and set side by side where there is room.
"""
