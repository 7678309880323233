"""What every part of the node reports to: `throttled_log` for faults and events, `latency` for durations."""
