"""Prints the go.mod of the program in this folder, made from that of k8s.io/kubernetes: its k8s.io modules are folders there, and
modules of their own version for everybody else.

    gomod.py VERSION < .../k8s.io/kubernetes@vVERSION/go.mod
"""

import re
import sys

version = sys.argv[1]
staging = "v0." + version.removeprefix("1.")
text = re.sub(r"(?m)^(\s*k8s\.io/\S+) v0\.0\.0(?=\s|$)", rf"\1 {staging}", sys.stdin.read())
modules = set(re.findall(rf"(?m)^\s*(k8s\.io/\S+) {re.escape(staging)}", text))
modules |= set(re.findall(r"(?m)^\s*(k8s\.io/\S+) => \./staging", text))
print("module hyper\n\ngo 1.24.0\n\ngodebug default=go1.24\n")
print(f"require k8s.io/kubernetes v{version}\n")
for requirements in re.findall(r"require \((.*?)\)", text, re.DOTALL):
    print(f"require ({requirements})")
print("replace (")
for module in sorted(modules):
    print(f"\t{module} => {module} {staging}")
print(")")
