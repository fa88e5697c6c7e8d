"""A Slurm in a temporary folder: slurmctld, two slurmd and munged on this host; takes root and the packages.

`python tests/support/slurm_cluster.py COMMAND …` runs a command with the cluster up and takes it down after it.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

NODES = ("bench-node1", "bench-node2")
PORTS = {"slurmctld": 17817, "bench-node1": 17818, "bench-node2": 17819}
HOSTS = Path("/etc/hosts")
MARK = "# benchrunner test-slurm"
PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch")

CONFIG = """
ClusterName=bench
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld_port}
AuthType=auth/munge
AuthInfo=socket={root}/munge.socket
CryptoType=crypto/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={root}/state
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/%n.pid
SlurmdSpoolDir={root}/spool.%n
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmdTimeout=20
KillWait=8
OverTimeLimit=0
JobRequeue=1
MinJobAge=60
SchedulerParameters=sched_interval=2,bf_interval=5
MpiDefault=none
PropagateResourceLimits=NONE
NodeName=bench-node1 NodeHostname={host} NodeAddr=127.0.0.1 Port={port1} CPUs={cpus} State=UNKNOWN
NodeName=bench-node2 NodeHostname={host} NodeAddr=127.0.0.1 Port={port2} CPUs={cpus} State=UNKNOWN
PreemptType=preempt/partition_prio
PreemptMode=CANCEL
PartitionName=main Nodes=bench-node1,bench-node2 Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO PriorityTier=1
PartitionName=urgent Nodes=bench-node1,bench-node2 MaxTime=INFINITE State=UP OverSubscribe=NO PriorityTier=9
"""


def missing():
    """Why there can be no cluster here; None: there can."""
    if os.geteuid() != 0:
        return "it takes root"
    absent = [name for name in PROGRAMS if _program(name) is None]
    return f"{', '.join(absent)} missing (apt install slurm-wlm munge)" if absent else None


def _program(name):
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


class SlurmCluster:
    """While entered the cluster is up, and SLURM_CONF points at it."""

    def __init__(self):
        self.root = Path(tempfile.mkdtemp(prefix="bench-slurm-"))
        self.processes = {}

    def __enter__(self):
        try:
            self._begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _begin(self):
        self.root.chmod(0o755)
        for name in ("state", *(f"spool.{node}" for node in NODES)):
            (self.root / name).mkdir()
        names = " ".join(NODES)
        with HOSTS.open("a") as hosts:
            hosts.write(f"127.0.0.1 {names} {MARK}\n")
        self._write_config()
        self._munge()
        self._start("slurmctld", "slurmctld", "-D")
        for node in NODES:
            self.start_node(node)
        self._wait_until_idle()

    def __exit__(self, *error):
        with suppress(OSError):
            subprocess.run(["scancel", "--user=root"], check=False, capture_output=True, timeout=20)
            time.sleep(2)
        for process in reversed(self.processes.values()):
            process.terminate()
        for process in self.processes.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
        lines = HOSTS.read_text().splitlines(keepends=True)
        HOSTS.write_text("".join(line for line in lines if MARK not in line))
        shutil.rmtree(self.root, ignore_errors=True)

    def start_node(self, node):
        """Start the slurmd of a node."""
        cores = ",".join(map(str, _cores(node)))
        self._start(node, "taskset", "--cpu-list", cores, _program("slurmd"), "-D", "-N", node)

    def stop_node(self, node):
        """End the slurmd of a node at once, as a host that loses its power; its jobs' processes as well."""
        self.processes.pop(node).kill()
        for pid in (*self._step_pids(), *node_pids(node)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _step_pids(self):
        """What watches over jobs on the nodes: it would report their end. Of both nodes: there is one job."""
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                is_step = entry.name.isdigit() and (entry / "comm").read_text().strip() == "slurmstepd"
                if is_step and str(self.root).encode() in (entry / "environ").read_bytes():
                    yield int(entry.name)

    def _write_config(self):
        path = self.root / "slurm.conf"
        host = socket.gethostname().partition(".")[0]
        places = {"root": self.root, "host": host, "cpus": len(_cores(NODES[0])), "ctld_port": PORTS["slurmctld"]}
        path.write_text(CONFIG.format(port1=PORTS[NODES[0]], port2=PORTS[NODES[1]], **places))
        os.environ["SLURM_CONF"] = str(path)

    def _munge(self):
        key = self.root / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        places = {"socket": "munge.socket", "pid-file": "munge.pid", "log-file": "munge.log", "seed-file": "munge.seed"}
        options = [f"--{name}={self.root / file}" for name, file in places.items()]
        self._start("munged", "munged", "--foreground", "--force", f"--key-file={key}", *options)
        while not (self.root / "munge.socket").exists():
            time.sleep(0.1)

    def _start(self, name, program, *arguments):
        with (self.root / f"{name}.out").open("ab") as out:
            self.processes[name] = subprocess.Popen(
                [_program(program), *arguments], stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )

    def _wait_until_idle(self):
        end = time.monotonic() + 60
        while time.monotonic() < end:
            done = subprocess.run(
                ["sinfo", "-h", "-N", "-p", "main", "-o", "%T"], check=False, capture_output=True, text=True
            )
            if done.stdout.split() == ["idle"] * len(NODES):
                return
            time.sleep(0.5)
        raise RuntimeError(f"the cluster does not come up: {done.stdout}{done.stderr}; see {self.root}")


def _cores(node):
    """The cores of this host that a node has for itself, so that jobs of both do not share any: Slurm binds nothing."""
    cores = sorted(os.sched_getaffinity(0))
    half = len(cores) // 2
    return (cores[:half], cores[half : 2 * half])[NODES.index(node)] or cores


def node_pids(node):
    """The processes of jobs on a node, by what Slurm tells them."""
    needle = f"SLURMD_NODENAME={node}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and needle in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


if __name__ == "__main__":
    if why := missing():
        sys.exit(f"no Slurm: {why}")
    with SlurmCluster() as cluster:
        print(f"Slurm is up: SLURM_CONF={os.environ['SLURM_CONF']}", file=sys.stderr)
        code = subprocess.run(sys.argv[1:], check=False).returncode
    sys.exit(code)
