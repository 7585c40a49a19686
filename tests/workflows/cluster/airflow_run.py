"""Runs the provider's example of pods against the cluster: airflow_run.py CONF. With Airflow's Python; prints what ran, as JSON."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
EXAMPLE = HERE.parents[2] / "workflows/airflow/src/sluice_airflow/example_dags/sluice_kubernetes.py"
IMAGE = "docker.io/library/sluice:0.1.0"
# As the README has it: the cluster is that of the connection. Airflow's own sidecar image is not here; ours has a shell.
CONNECTION = {"conn_type": "kubernetes", "extra": {"kube_config_path": os.environ["KUBECONFIG"], "xcom_sidecar_container_image": IMAGE}}


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="sluice-airflow-") as home:
        dags = Path(home, "dags")
        dags.mkdir()
        example = EXAMPLE.read_text().replace('"namespace": "default"', '"namespace": "sluice"')
        (dags / EXAMPLE.name).write_text(example)
        os.environ |= {
            "AIRFLOW_HOME": home,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
            "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "300",
            "AIRFLOW_CONN_KUBERNETES_DEFAULT": json.dumps(CONNECTION),
        }
        with contextlib.redirect_stdout(sys.stderr):
            subprocess.run([Path(sys.executable).with_name("airflow"), "db", "migrate"], check=True, stdout=sys.stderr)
            from airflow.dag_processing.dagbag import DagBag

            bag = DagBag(dags)
            assert not bag.import_errors, bag.import_errors
            done = bag.dags["sluice_kubernetes"].test(run_conf=json.loads(sys.argv[1]))
            instances = done.get_task_instances()
        pods = [ti for ti in instances if "Pod" in str(ti.operator)]
        ended = {f"{ti.task_id}[{ti.map_index}]": str(ti.state) for ti in instances if str(ti.state) != "success"}
        assert not ended, ended
        print(json.dumps({"state": str(done.state), "tasks": len(instances), "pods": len(pods)}))


if __name__ == "__main__":
    main()
