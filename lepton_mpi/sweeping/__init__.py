"""Many runs with other options each, and one table of what came of them: the command sweep.

    search.py      START HERE: a TOML file -> the options of every run, by a grid or drawn at random
    runs.py        the folder of a run, and what is known of it
    carry_out.py   a run as a process: signals, its end
    results.py     the table, sorted by the validation score

A run's folder is named by a digest of its options. So a sweep that is started again, also from a file with more values, finds what
is finished and what was interrupted; and several processes, such as the tasks of an array of jobs, may share a sweep: each run has
a lock, which Linux takes back when its holder dies.

    OUT/sweep.toml               the file, as it was last
    OUT/3f2a91c0/options.toml    written once, before the run begins
                 lock            held while it runs
                 log.txt, metrics.jsonl, checkpoint/    of train
                 outcome.json    written when it has ended: exit code, seconds, error
    OUT/results.csv, results.json    written anew after every run, from the folders
"""
