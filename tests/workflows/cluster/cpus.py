"""Writes a /sys/devices/system/{cpu,node} with N CPUs, for the kubelet: cpus.py N FOLDER"""

import shutil
import sys
from pathlib import Path

count, folder = int(sys.argv[1]), Path(sys.argv[2])
shutil.rmtree(folder, ignore_errors=True)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


for number in range(count):
    for cpu in (folder / f"cpu/cpu{number}", folder / f"node/node0/cpu{number}"):
        write(cpu / "topology/core_id", str(number))
        write(cpu / "topology/physical_package_id", "0")
        write(cpu / "online", "1")
for name, online in (("cpu", f"0-{count - 1}"), ("node", "0")):
    write(folder / name / "online", online)
    write(folder / name / "present", f"0-{count - 1}")
    write(folder / name / "possible", f"0-{count - 1}")
memory = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
write(folder / "node/node0/meminfo", f"Node 0 {memory}")
write(folder / "node/node0/distance", "10")
write(folder / "node/node0/cpulist", f"0-{count - 1}")
