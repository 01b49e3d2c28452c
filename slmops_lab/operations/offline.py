"""Run Python code where there is no network, and count what it tries to reach.

Linux only, and no security boundary: the code can read this machine's files. Costs a Python process or two.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile

from slmops_lab.errors import CourseError
from slmops_lab.settings import QUIET, home

# A network namespace of its own: no packet can leave, and the kernel counts who tried, to 127.0.0.1 too. Unix
# sockets in the file system still work (a resolver service of this machine, for one). The code runs in a child
# of it, so that what is sent at the very end counts, too.
_CAGE = """
import ctypes, json, re, subprocess, sys
NEW_USER, NEW_NET = 0x10000000, 0x40000000
if ctypes.CDLL(None, use_errno=True).unshare(NEW_USER | NEW_NET):
    sys.exit(77)
done = subprocess.run([sys.executable, "-c", *sys.argv[1:]], capture_output=True, text=True, errors="replace")
names, counts = [line.split() for line in open("/proc/self/net/snmp") if line.startswith("Ip:")]
tried = int(counts[names.index("OutNoRoutes")])
v6 = open("/proc/self/net/snmp6").read()
tried += sum(map(int, re.findall(r"^Ip6OutNoRoutes\\s+(\\d+)", v6, re.M)))
print(json.dumps([tried, done.returncode, done.stdout, done.stderr]))
"""
_STAY = """
import sys, time
stay, code = float(sys.argv.pop(1)), sys.argv.pop(1)
try:
    exec(code)
finally:  # after a SystemExit, too
    time.sleep(stay)
"""


def run(code, *arguments, switches=True, stay=0, seconds=600):
    """Run Python code in a process that can send no packet. Returns (attempts, what it printed).

    It has a home folder of its own, which is deleted afterwards with whatever was queued there, and no
    PYTHONPATH. attempts: packets and connections that the kernel had nowhere to send, of Python and compiled
    code alike. (None, "") where this system lets us make no network of our own (only Linux does, and not in
    every container): the code was not run. switches: whether the course's switches against telemetry
    (`settings.QUIET`) are set; code that imports slmops_lab sets them itself. stay: seconds that the process
    waits when the code has ended, since what gathers reports sends them a little later. seconds: for all of it;
    then the code is stopped, with the processes that it started. Raises CourseError where the code fails or is stopped.
    """
    if not sys.platform.startswith("linux"):
        return None, ""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name != "PYTHONPATH" and not name.startswith("XDG_") and (switches or name not in QUIET)
    }
    environment |= QUIET if switches else {}
    command = [sys.executable, "-c", _CAGE, _STAY, str(stay), code, *map(str, arguments)]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as own:
        environment |= {"HOME": own, "SLMOPS_HOME": str(home())}
        status, told, complaint = _within(seconds, command, environment)
    if status == 77:
        return None, ""
    tried, status, printed, complaint = (0, status, "", complaint) if status else json.loads(told)
    if status:
        reason = (complaint.strip().splitlines() or [f"no reason given (exit code {status})"])[-1]
        raise CourseError(f"The code that was run without a network failed: {reason}")
    return tried, printed.removesuffix("\n")


def _within(seconds, command, environment):
    """(exit status, stdout, stderr) of a command that may take so long."""
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        told, complaint = process.communicate(timeout=seconds)
        return process.returncode, told, complaint
    except subprocess.TimeoutExpired:
        raise CourseError(
            f"The code that was run without a network was stopped after {seconds:g} seconds: "
            "give it more of them, or less to do."
        ) from None
    finally:
        if process.poll() is None:  # too late, or interrupted here; a session of its own hears no Ctrl-C
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        process.stdout.close()
        process.stderr.close()
