"""Ranks and hosts, memory that the ranks of a host share, agreement, the watchdog, and the end of a failing job.

What a program of one's own needs of it, started by ``mpirun -n 4 python sums.py``::

    from lepton_mpi.collectives.allreduce import make_plan
    from lepton_mpi.world.world import run

    def main(world):
        plan = make_plan(world, 1000)
        plan.input[:] = world.rank
        plan.run()
        print("all ranks:", plan.result[0])

        half = range(world.size)[world.rank % 2 :: 2]
        with world.group(half) as group:
            plan = make_plan(group, 1000, op="max")
            plan.input[:] = world.rank
            plan.run()
            print(f"half of rank {world.rank}:", plan.result[0])

    raise SystemExit(run(main))

``run`` makes the ``World``, which is a ``Group`` (``collectives/group.py``), watches it, and gives back what it holds. Where
objects outlive one function, as in a notebook, ``World()`` and its ``close()`` do the same.

    world.py          the job: run, World
    rank_group.py     any ranks of it: where they are, what they share, how they agree
    mpi.py            the MPI library, started on first use
    shared_memory.py  files that a host's ranks map, in large pages (pages.py); memory.py counts them
    heartbeats.py     what ranks show each other, and reports made of it; presence.py begins to
    watchdog.py       phase clock and time limit; backstop.py where the interpreter is stuck, by timers.py
    host_links.py     by which hosts learn of each other's end
    stopping.py       on which step ranks stop that are asked to by a signal
    losses.py         how the others leave what they wait in when a rank is lost, and go on; exits.py how they end then
    loss_news.py      how hosts tell each other of it; members.py who is meant; pmix.py has MPI know it
    failure.py        one report, and the end of the job; launchers.py ends a launcher that stays
"""
