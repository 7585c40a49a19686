"""Steps of the DAG as tasks: local processes, or pods."""
