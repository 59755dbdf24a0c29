"""Whether a machine, or a job on it, is set up well: what ``python -m lepton_mpi doctor`` finds.

    finding.py        what a finding is
    one file a subject, each with ``Facts``, a function that reads them, and ``findings(facts)``, which is pure:
      launching, cores, threads, memory, pages, kernel_cache, storage, network, core_latency, versions
    trial.py          another process that tries something
    last_words.py     what is printed if this process is stuck with the interpreter lock
    host_facts.py     all facts of one host, each gathered under a time limit
    job.py            the facts of a job, and all findings that follow from them
    messages.py       how rank 0 asks the other ranks for their facts
    examination.py    START HERE: the order of it all, and what happens to a check that is stuck
    report.py         findings as lines and as JSON

Rank 0 asks and the others answer: no collective, so that rank 0 knows who is silent, and reports without them.

    every rank     its own facts (cores, variables), before MPI starts
    rank 0         collects them; asks the first rank of each host for the facts of the host
    rank 0         exchanges messages with the first rank of each other host in turn: latency, bandwidth, clock
    rank 0         reports, and tells all ranks the exit code

A rank that waits sleeps between two looks, since with more ranks than cores it would disturb what others measure.
A check runs in a thread of its own; one that is late is a finding, and the examination goes on without it. MPI has a
thread of its own, too, so that the main thread can report when MPI itself is stuck. ``MPI_Init`` keeps the interpreter
lock: another process reports for one that is stuck there, and ``faulthandler`` ends it. Without a launcher MPI is tried in another process, which may die of it.
"""
