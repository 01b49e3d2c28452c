"""The same work on the machines of a Ray cluster: labels, sweeps, serving. Needs the extra `cluster`."""
