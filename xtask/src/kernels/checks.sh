# Runs the checks in a guest, in the machine's file system. What they write goes to the console;
# what became of them, to the second serial port.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
# Nothing else can be written to.
TMPDIR=/run
HOME=/run
export PATH TMPDIR HOME
# Of random packets, what an emulated machine manages in a minute.
EVENKEEL_FUZZ_PACKETS=20000
export EVENKEEL_FUZZ_PACKETS
# As many as the test machine of a distribution has.
ulimit -n 20000

report() {
    printf '%s\n' "$*" > /dev/ttyS1
}

check() {
    number=$1
    shift
    printf '\n== check %s\n' "$number"
    if "$@"; then
        report "$number passed"
    else
        report "$number failed"
    fi
}

report "release $(uname -r)"
