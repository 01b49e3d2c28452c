"""Many machines, over time: speed, silence, drift, rollouts, the cloud."""
