import os
import subprocess
import sys

from benchrunner.worker.parent import stand_somewhere

BLOCKS = """
import os, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGTERM, signal.SIGUSR1})
os.execv(sys.executable, [sys.executable, "-c", sys.argv[1]])
"""
TELLS = """
import os, signal
from benchrunner.{module} import {name}
{name}()
os.waitpid(os.fork() or os._exit(7), 0)
print(signal.pthread_sigmask(signal.SIG_BLOCK, ()), signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL)
"""


def test_what_was_inherited_of_signals_is_undone():
    for module, name in (("worker.parent", "hear_signals"), ("cli.main", "_hear_signals")):
        command = [sys.executable, "-c", BLOCKS, TELLS.format(module=module, name=name)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.stdout == "set() True\n", done.stderr


LIMITED = """
import resource
from benchrunner.worker.parent import hear_of_cpu_limit
for limits in ((90, 90), (50, 89), (1, 1)):
    resource.setrlimit(resource.RLIMIT_CPU, limits)
    hear_of_cpu_limit()
    print(*resource.getrlimit(resource.RLIMIT_CPU))
"""


def test_the_end_of_cpu_time_is_said_before_the_kernel_kills():
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, check=False)
    assert done.stdout == "89 90\n50 89\n1 1\n", done.stderr


def test_a_process_whose_folder_has_gone_stands_somewhere_else(tmp_path, monkeypatch):
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    stand_somewhere()
    assert os.getcwd() == str(place)
    place.rmdir()
    stand_somewhere()
    assert os.getcwd() == "/"
